package gate

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sluice/internal/stock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	secret = []byte(strings.Repeat("k", 32))
	noon   = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)
)

// forge signs any header and claims, as an outsider who knows key would.
func forge(key []byte, header, claims string) string {
	enc := base64.RawURLEncoding.EncodeToString
	text := enc([]byte(header)) + "." + enc([]byte(claims))
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(text))
	return text + "." + enc(mac.Sum(nil))
}

func newVerifier(t testing.TB, now func() time.Time, remember int, keys ...VerifyingKey) *Verifier {
	t.Helper()
	v, err := NewVerifier(now, remember, keys...)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func mint(t testing.TB, user string, ttl time.Duration) string {
	t.Helper()
	token, err := Mint(secret, user, noon, ttl)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestVerifyRefuses(t *testing.T) {
	const hs = `{"alg":"HS256","typ":"JWT"}`
	exp, past := noon.Add(time.Hour).Unix(), noon.Add(-time.Second).Unix()
	ok := fmt.Sprintf(`{"sub":"u1","exp":%d}`, exp)
	v := newVerifier(t, func() time.Time { return noon }, 64, VerifyingKey{Secret: secret})

	good := forge(secret, hs, ok)
	if got, err := v.Verify([]byte(good)); err != nil || got.User != "u1" || got.Expires.Unix() != exp {
		t.Fatalf("a good token: %+v, %v", got, err)
	}
	f := func(name, token string) {
		t.Helper()
		for range 2 { // the second time must not be remembered as good
			if id, err := v.Verify([]byte(token)); !errors.Is(err, ErrUnauthenticated) || id != (Identity{}) {
				t.Errorf("%s: got %+v, %v", name, id, err)
			}
		}
	}
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." + strings.Split(good, ".")[1] + "."
	f("empty", "")
	f("garbage", "x")
	f("two parts", strings.Join(strings.Split(good, ".")[:2], "."))
	f("alg none", none)
	f("alg none, signed", forge(secret, `{"alg":"none"}`, ok))
	f("HS512 named, HS256 used", forge(secret, `{"alg":"HS512"}`, ok))
	f("RS256 named", forge(secret, `{"alg":"RS256"}`, ok))
	f("EdDSA named", forge(secret, `{"alg":"EdDSA"}`, ok))
	f("other secret", forge([]byte(strings.Repeat("z", 32)), hs, ok))
	f("critical extension", forge(secret, `{"alg":"HS256","crit":["b64"]}`, ok))
	f("expired", forge(secret, hs, fmt.Sprintf(`{"sub":"u1","exp":%d}`, past)))
	f("expires now", forge(secret, hs, fmt.Sprintf(`{"sub":"u1","exp":%d}`, noon.Unix())))
	f("no expiry", forge(secret, hs, `{"sub":"u1"}`))
	f("expiry is a string", forge(secret, hs, `{"sub":"u1","exp":"soon"}`))
	f("not yet valid", forge(secret, hs, fmt.Sprintf(`{"sub":"u1","exp":%d,"nbf":%d}`, exp, noon.Unix()+5)))
	f("no subject", forge(secret, hs, fmt.Sprintf(`{"exp":%d}`, exp)))
	f("subject with a space", forge(secret, hs, fmt.Sprintf(`{"sub":"a b","exp":%d}`, exp)))
	f("subject not ASCII", forge(secret, hs, fmt.Sprintf(`{"sub":"é","exp":%d}`, exp)))
	f("subject too long", forge(secret, hs, fmt.Sprintf(`{"sub":%q,"exp":%d}`, strings.Repeat("u", 65), exp)))
	f("oversize", forge(secret, hs, fmt.Sprintf(`{"sub":"u1","exp":%d,"x":%q}`, exp, strings.Repeat("x", MaxToken))))
	f("signature cut", good[:len(good)-1])
	for i := range good { // one flipped bit anywhere, while the good token is remembered
		forged := []byte(good)
		forged[i] ^= 1
		f(fmt.Sprintf("bit flipped at %d", i), string(forged))
	}
}

// A phone number is read if it is one; a token without is as good.
func TestVerifyReadsThePhone(t *testing.T) {
	v := newVerifier(t, func() time.Time { return noon }, 64, VerifyingKey{Secret: secret})
	f := func(claim, want string) {
		t.Helper()
		token := forge(secret, `{"alg":"HS256"}`, fmt.Sprintf(`{"sub":"u1","exp":%d%s}`, noon.Add(time.Hour).Unix(), claim))
		for range 2 {
			if id, err := v.Verify([]byte(token)); err != nil || id.User != "u1" || id.Phone != want {
				t.Errorf("%s: %+v, %v; want %q", claim, id, err, want)
			}
		}
	}
	f(``, "")
	f(`,"phone_number":"+8613800138000"`, "+8613800138000")
	f(`,"phone_number":""`, "")
	f(`,"phone_number":138`, "")
	f(`,"phone_number":"+86 138"`, "")
	f(`,"phone_number":"`+strings.Repeat("1", 33)+`"`, "")
}

func TestVerifyJudgesExpiryEachTime(t *testing.T) {
	now := noon
	v := newVerifier(t, func() time.Time { return now }, 64, VerifyingKey{Secret: secret})
	token := []byte(mint(t, "u1", time.Minute))
	f := func(at time.Duration, want error) {
		t.Helper()
		now = noon.Add(at)
		if _, err := v.Verify(token); !errors.Is(err, want) {
			t.Errorf("at %v: %v, want %v", at, err, want)
		}
	}
	f(0, nil)
	f(59*time.Second, nil)
	f(time.Minute, ErrUnauthenticated)
	f(time.Hour, ErrUnauthenticated)
}

func TestKeysAreRotated(t *testing.T) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	old, fresh := []byte(strings.Repeat("o", 32)), []byte(strings.Repeat("f", 40))
	v := newVerifier(t, func() time.Time { return noon }, 64,
		VerifyingKey{ID: "old", Secret: old}, VerifyingKey{ID: "new", Secret: fresh}, VerifyingKey{Public: public})
	claims := fmt.Sprintf(`{"sub":"u1","exp":%d}`, noon.Add(time.Hour).Unix())
	f := func(token string, want error) {
		t.Helper()
		if _, err := v.Verify([]byte(token)); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", token, err, want)
		}
	}
	f(forge(old, `{"alg":"HS256","kid":"old"}`, claims), nil)
	f(forge(fresh, `{"alg":"HS256","kid":"new"}`, claims), nil)
	f(forge(fresh, `{"alg":"HS256"}`, claims), nil)
	f(forge(fresh, `{"alg":"HS256","kid":"old"}`, claims), ErrUnauthenticated)
	f(forge(fresh, `{"alg":"HS256","kid":7}`, claims), ErrUnauthenticated)
	// The public key is no secret: it must not do as one.
	f(forge(public, `{"alg":"HS256"}`, claims), ErrUnauthenticated)

	enc := base64.RawURLEncoding.EncodeToString
	text := enc([]byte(`{"alg":"EdDSA"}`)) + "." + enc([]byte(claims))
	f(text+"."+enc(ed25519.Sign(private, []byte(text))), nil)
	f(text+"."+enc(ed25519.Sign(private, []byte(text+"x"))), ErrUnauthenticated)
}

func TestUnusableKeysAreRefused(t *testing.T) {
	public := make(ed25519.PublicKey, ed25519.PublicKeySize)
	f := func(keys ...VerifyingKey) {
		t.Helper()
		if _, err := NewVerifier(time.Now, 0, keys...); !errors.Is(err, ErrKey) {
			t.Errorf("%d keys: %v", len(keys), err)
		}
	}
	f()
	f(VerifyingKey{})
	f(VerifyingKey{Secret: secret[:31]})
	f(VerifyingKey{Secret: secret, Public: public})
	f(VerifyingKey{Public: public[:5]})
	f(make([]VerifyingKey, MaxKeys+1)...)
}

// TestMemoryIsBounded verifies far more tokens than are remembered, from
// several goroutines, and finds every answer right and the table no larger.
func TestMemoryIsBounded(t *testing.T) {
	v := newVerifier(t, func() time.Time { return noon }, 64, VerifyingKey{Secret: secret})
	var all sync.WaitGroup
	for g := range 4 {
		all.Go(func() {
			for i := range 500 {
				user := fmt.Sprintf("u%d-%d", g%2, i)
				if id, err := v.Verify([]byte(mint(t, user, time.Minute))); err != nil || id.User != stock.UserID(user) {
					t.Errorf("%s: %+v, %v", user, id, err)
				}
			}
		})
	}
	all.Wait()
	remembered := 0
	for i := range v.sets {
		for j := range v.sets[i].places {
			if v.sets[i].places[j].Load() != nil {
				remembered++
			}
		}
	}
	if remembered == 0 || remembered > 64 {
		t.Fatalf("%d tokens remembered, want 1..64", remembered)
	}
}

// A token whose hash is that of a remembered one is still another token.
func TestVerifyComparesTheWholeToken(t *testing.T) {
	v := newVerifier(t, func() time.Time { return noon }, 64, VerifyingKey{Secret: secret})
	good, forged := mint(t, "u1", time.Minute), "not.a.token"
	id, err := v.Verify([]byte(good))
	if err != nil {
		t.Fatal(err)
	}
	v.remember(maphash.String(v.seed, forged), &verified{id, good, (*v.keys.Load())[0]})
	if id, err := v.Verify([]byte(forged)); err == nil {
		t.Fatalf("a token of the same hash is taken for %+v", id)
	}
}

func TestVerifyOfASeenTokenAllocatesNothing(t *testing.T) {
	v := newVerifier(t, func() time.Time { return noon }, 64, VerifyingKey{Secret: secret})
	token := []byte(mint(t, "u1", time.Minute))
	n := testing.AllocsPerRun(100, func() {
		if _, err := v.Verify(token); err != nil {
			t.Fatal(err)
		}
	})
	if n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

func TestMintRefusesWhatVerifyWould(t *testing.T) {
	f := func(key []byte, user string, want error) {
		t.Helper()
		if token, err := Mint(key, user, noon, time.Minute); !errors.Is(err, want) || (err != nil) != (token == "") {
			t.Errorf("Mint(%q) = %q, %v, want %v", user, token, err, want)
		}
	}
	f(secret, "alice", nil)
	f(secret, "", ErrUnauthenticated)
	f(secret, "a b", ErrUnauthenticated)
	f(secret, strings.Repeat("a", 65), ErrUnauthenticated)
	f(secret[:5], "alice", ErrKey)
}

func TestKeyIsMadeOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	if _, err := ReadKey(dir); !errors.Is(err, ErrKey) || !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("reading a missing key: %v", err)
	}
	keys := make([]string, 8)
	var all sync.WaitGroup
	for i := range keys {
		all.Go(func() {
			key, err := KeyIn(SecretsPath(dir))
			if err != nil {
				t.Error(err)
			}
			keys[i] = string(key)
		})
	}
	all.Wait()
	for _, key := range keys {
		if key != keys[0] || len(key) != 32 {
			t.Fatal("two callers got different keys")
		}
	}
	info, err := os.Stat(KeyPath(dir))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
	names, err := os.ReadDir(filepath.Dir(KeyPath(dir)))
	if err != nil || len(names) != 1 {
		t.Fatalf("files left over: %v, %v", names, err)
	}
}

func TestBadKeyFileIsNotReplaced(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Dir(KeyPath(dir)), 0o700); err != nil {
		t.Fatal(err)
	}
	f := func(content string) {
		t.Helper()
		if err := os.WriteFile(KeyPath(dir), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := KeyIn(SecretsPath(dir))
		if !errors.Is(err, ErrKey) || (content != "" && strings.Contains(err.Error(), content)) {
			t.Errorf("%q: %v", content, err)
		}
		if kept, err := os.ReadFile(KeyPath(dir)); err != nil || string(kept) != content {
			t.Errorf("%q was replaced by %q, %v", content, kept, err)
		}
	}
	f("")
	f("not hex")
	f("abcdef")
}

func TestInFlightIsBounded(t *testing.T) {
	f := NewInFlight(3)
	var inside, most, entered int
	var mu sync.Mutex
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for range 500 {
				if f.Enter() != nil {
					continue
				}
				mu.Lock()
				inside, entered = inside+1, entered+1
				most = max(most, inside)
				mu.Unlock()
				mu.Lock()
				inside--
				mu.Unlock()
				f.Leave()
			}
		})
	}
	all.Wait()
	if most > 3 || entered == 0 || f.Count() != 0 {
		t.Fatalf("%d inside at most, %d entered, %d left inside", most, entered, f.Count())
	}
	for range 3 {
		if err := f.Enter(); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Enter(); !errors.Is(err, ErrOverloaded) {
		t.Fatalf("the fourth: %v", err)
	}
	f.Leave()
	if err := f.Enter(); err != nil {
		t.Fatalf("after one left: %v", err)
	}
}

// FuzzVerify: no bytes without our signature become an identity.
func FuzzVerify(f *testing.F) {
	v := newVerifier(f, func() time.Time { return noon }, 64, VerifyingKey{Secret: secret})
	good := mint(f, "u1", time.Hour)
	f.Add([]byte(good))
	f.Add([]byte(forge([]byte("other"), `{"alg":"HS256"}`, `{"sub":"u1","exp":9999999999}`)))
	f.Add([]byte(forge(nil, `{"alg":"none"}`, `{"sub":"u1","exp":9999999999}`)))
	f.Add([]byte(".."))
	f.Fuzz(func(t *testing.T, token []byte) {
		id, err := v.Verify(token)
		if (err == nil) != (string(token) == good) {
			t.Fatalf("%q: %+v, %v", token, id, err)
		}
	})
}

func BenchmarkVerifySeen(b *testing.B) {
	v := newVerifier(b, func() time.Time { return noon }, 0, VerifyingKey{Secret: secret})
	token := []byte(mint(b, "user-123456", time.Hour))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Verify(token); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerifyFirstSeen(b *testing.B) {
	v := newVerifier(b, func() time.Time { return noon }, 0, VerifyingKey{Secret: secret})
	token := mint(b, "user-123456", time.Hour)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.verify(0, token); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkInFlight(b *testing.B) {
	f := NewInFlight(1024)
	b.ReportAllocs()
	for b.Loop() {
		if f.Enter() == nil {
			f.Leave()
		}
	}
}
