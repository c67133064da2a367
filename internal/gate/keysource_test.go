package gate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// provider is an identity provider on loopback, and a verifier that follows it on
// a virtual clock.
type provider struct {
	*httptest.Server
	answer atomic.Pointer[http.HandlerFunc]
	reads  atomic.Int64
	at     atomic.Int64 // since noon
	v      *Verifier
}

func newProvider(t testing.TB, meant string, keys ...entry) *provider {
	t.Helper()
	p := &provider{}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.reads.Add(1)
		(*p.answer.Load())(w, r)
	}))
	t.Cleanup(p.Close)
	p.publish(keys...)
	source, ok, err := KeysAt(p.URL + "/keys" + meant)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	p.v, err = NewVerifierFrom(p.now, 64, slog.New(slog.DiscardHandler), []KeySource{source})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *provider) now() time.Time       { return noon.Add(time.Duration(p.at.Load())) }
func (p *provider) pass(d time.Duration) { p.at.Add(int64(d)) }

func (p *provider) answers(f http.HandlerFunc) { p.answer.Store(&f) }

func (p *provider) publish(keys ...entry) {
	document := keySet(keys...)
	p.answers(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(document) })
}

// step runs one, and says how many reads there have been.
func (p *provider) step(t testing.TB, reads int64) {
	t.Helper()
	if worked, err := p.v.Step(t.Context()); worked || err != nil {
		t.Errorf("step: %v, %v", worked, err)
	}
	if n := p.reads.Load(); n != reads {
		t.Errorf("%d reads, want %d", n, reads)
	}
}

func (p *provider) knows(t testing.TB, token string, ok bool) {
	t.Helper()
	if id, err := p.v.Verify([]byte(token)); (err == nil) != ok || ok != (id.User == "ann") || err != nil && !errors.Is(err, ErrUnauthenticated) {
		t.Errorf("%+v, %v; want %v", id, err, ok)
	}
}

func (p *provider) woken() bool {
	select {
	case <-p.v.Woken():
		return true
	default:
		return false
	}
}

// A key is added, both are good, the old one is withdrawn: its tokens end with the
// read that misses it, those that were verified before as well.
func TestKeysRotate(t *testing.T) {
	a, b := newSigning(t, "a"), newSigning(t, "b")
	p := newProvider(t, "", a.published())
	byA, alsoA, byB := a.signed(t, "ann", nil), a.signed(t, "ann", jwt.MapClaims{"n": 1}), b.signed(t, "ann", nil)
	p.knows(t, byA, false)
	p.step(t, 1)
	p.knows(t, byA, true)
	p.knows(t, byB, false)

	p.publish(a.published(), b.published())
	if !p.woken() {
		t.Error("nobody is told of a token with an unknown key")
	}
	p.step(t, 1) // too early
	p.pass(keysAgain)
	p.step(t, 2)
	p.knows(t, byB, true)
	p.knows(t, byA, true)
	p.pass(keysAgain)
	p.step(t, 2) // nobody asks

	p.publish(b.published())
	p.pass(RefreshKeys - keysAgain)
	p.step(t, 3)
	for range 2 {
		p.knows(t, byA, false)
		p.knows(t, alsoA, false)
		p.knows(t, byB, true)
	}
	p.pass(keysAgain)
	p.publish(b.published(), a.published())
	p.step(t, 4)
	p.knows(t, byA, true)
	p.knows(t, alsoA, true)
	p.knows(t, byB, true)
}

// A key that comes under the same name as another is another key.
func TestKeyReplacedUnderItsName(t *testing.T) {
	a, b := newSigning(t, "k"), newSigning(t, "k")
	p := newProvider(t, "", a.published())
	byA, byB := a.signed(t, "ann", nil), b.signed(t, "ann", nil)
	p.step(t, 1)
	p.knows(t, byA, true)
	p.publish(b.published())
	p.pass(RefreshKeys)
	p.step(t, 2)
	p.knows(t, byA, false)
	p.knows(t, byB, true)
	p.publish(a.published(), b.published()) // both: each token is its signer's
	p.pass(RefreshKeys)
	p.step(t, 3)
	p.knows(t, byA, true)
	p.publish(a.published())
	p.pass(RefreshKeys)
	p.step(t, 4)
	p.knows(t, byA, true)
	p.knows(t, byB, false)
}

// Made-up key ids cause one read in ten seconds, and none waits.
func TestUnknownKeysAreBounded(t *testing.T) {
	a := newSigning(t, "a")
	p := newProvider(t, "", a.published())
	p.step(t, 1)
	for second := range 60 {
		for i := range 50 {
			forged := newSigning(t, fmt.Sprint("made-up-", second, "-", i))
			p.knows(t, forged.signed(t, "ann", nil), false)
		}
		p.step(t, 1+int64(second/10))
		p.pass(time.Second)
	}
	p.pass(time.Minute)
	p.step(t, 7)
	p.pass(time.Minute)
	// What is refused for another cause, or names nothing, asks for nothing.
	p.woken()
	p.knows(t, a.signed(t, "ann", jwt.MapClaims{"exp": 1}), false)
	p.knows(t, newSigning(t, "").signed(t, "ann", nil), false)
	p.knows(t, "garbage", false)
	if p.step(t, 7); p.woken() {
		t.Error("woken")
	}
}

// A token that names no key is tried against those without a name only.
func TestKeysOfProvidersMustBeNamed(t *testing.T) {
	a, plain := newSigning(t, "a"), newSigning(t, "")
	p := newProvider(t, "", a.published(), plain.published(entry{"kid": nil}))
	p.step(t, 1)
	unnamed := a
	unnamed.id = ""
	p.knows(t, unnamed.signed(t, "ann", nil), false)
	p.knows(t, plain.signed(t, "ann", nil), true)
	plain.id = "a"
	p.knows(t, plain.signed(t, "ann", nil), true)
	a.id = "b"
	p.knows(t, a.signed(t, "ann", nil), false)
}

// While the provider is away, slow, or answers anything but a set of keys, the
// last known keys stay.
func TestProviderFails(t *testing.T) {
	a, b := newSigning(t, "a"), newSigning(t, "b")
	p := newProvider(t, "", a.published())
	p.step(t, 1)
	byA, byB := a.signed(t, "ann", nil), b.signed(t, "ann", nil)
	var giveUp func() // ends the read under way, as its time-out does
	f := func(what string, answer http.HandlerFunc) (err error) {
		t.Helper()
		p.answers(answer)
		p.pass(RefreshKeys)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		giveUp = cancel
		began := time.Now()
		_, err = p.v.Step(ctx)
		if err == nil || !strings.Contains(err.Error(), p.URL) || strings.Contains(err.Error(), "AAAA") || time.Since(began) > 3*time.Second {
			t.Errorf("%s: %v after %s", what, err, time.Since(began))
		}
		if _, again := p.v.Step(t.Context()); again == nil || again.Error() != err.Error() {
			t.Errorf("%s: while it lasts: %v", what, again)
		}
		p.knows(t, byA, true)
		p.knows(t, byB, false)
		return err
	}
	text := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
		}
	}
	f("error", text(503, string(keySet(b.published()))))
	f("garbage", text(200, "<html>"))
	f("nothing", text(200, ""))
	f("no keys", text(200, `{"keys":[]}`))
	f("secrets", text(200, `{"keys":[{"kty":"oct","kid":"b","k":"AAAA"}]}`))
	if err := f("huge", func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 1<<16)); err != nil {
				return
			}
		}
	}); !errors.Is(err, ErrKey) {
		t.Errorf("read on and on: %v", err)
	}
	f("slow", func(_ http.ResponseWriter, r *http.Request) {
		giveUp()
		<-r.Context().Done()
	})
	f("slow body", func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte(`{"keys":`))
		_ = http.NewResponseController(w).Flush()
		giveUp()
		<-r.Context().Done()
	})
	f("cut off", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "5000")
		_, _ = w.Write(keySet(b.published()))
		panic(http.ErrAbortHandler)
	})
	f("sends us elsewhere", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://127.0.0.1:1/keys", http.StatusFound)
	})
	p.publish(b.published())
	p.pass(keysAgain) // sooner than after a success
	if _, err := p.v.Step(t.Context()); err != nil {
		t.Error(err)
	}
	p.knows(t, byA, false)
	p.knows(t, byB, true)
	p.Close()
	p.pass(RefreshKeys)
	if _, err := p.v.Step(t.Context()); err == nil {
		t.Error("away, and nothing is said")
	}
	p.knows(t, byB, true)
}

// Whoever the machine does not trust is no provider.
func TestProviderWithoutACertificate(t *testing.T) {
	a := newSigning(t, "a")
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(keySet(a.published())) }))
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	server.StartTLS()
	defer server.Close()
	source, ok, err := KeysAt(server.URL)
	if err != nil || !ok {
		t.Fatal(err)
	}
	if document, err := source.Read(t.Context()); err == nil {
		t.Errorf("read %d bytes", len(document))
	}
}

// A provider that serves other shops as well says whom a token is for.
func TestTokensAreMeantForThisShop(t *testing.T) {
	a := newSigning(t, "a")
	f := func(meant string, claims jwt.MapClaims, ok bool) {
		t.Helper()
		p := newProvider(t, meant, a.published())
		p.step(t, 1)
		p.knows(t, a.signed(t, "ann", claims), ok)
	}
	f("", jwt.MapClaims{"iss": "anybody", "aud": "anybody"}, true)
	f("#aud=shop", jwt.MapClaims{"aud": "shop"}, true)
	f("#aud=shop", jwt.MapClaims{"aud": []string{"other", "shop"}}, true)
	f("#aud=shop", jwt.MapClaims{"aud": "other"}, false)
	f("#aud=shop", jwt.MapClaims{"aud": "shop2"}, false)
	f("#aud=shop", nil, false)
	const both = "#iss=https%3A%2F%2Fid.example%2F&aud=shop"
	f(both, jwt.MapClaims{"iss": "https://id.example/", "aud": "shop"}, true)
	f(both, jwt.MapClaims{"iss": "https://id.example", "aud": "shop"}, false)
	f(both, jwt.MapClaims{"aud": "shop"}, false)
	f("#iss=https://id.example/", jwt.MapClaims{"iss": "https://id.example/"}, true)
}

func TestKeysAt(t *testing.T) {
	f := func(line string, is bool, fault string) {
		t.Helper()
		s, ok, err := KeysAt(line)
		if ok != is || (err != nil) != (fault != "") || err != nil && (!errors.Is(err, ErrKey) || !strings.Contains(err.Error(), fault)) {
			t.Errorf("%q: %+v, %v, %v", line, s, ok, err)
		}
	}
	f("https://id.example/keys", true, "")
	f("https://id.example/keys?a=b,c#aud=x", true, "")
	f("http://127.0.0.1:8080/keys", true, "")
	f("http://[::1]/keys", true, "")
	f("http://localhost/keys", true, "")
	f("/etc/keys.json", true, "")
	f("keys.json#iss=x", true, "")
	f("keys.pem", false, "")
	f("id=keys.pem", false, "")
	f("id=keys.json", true, "names its keys itself")
	f("http://id.example/keys", true, "https")
	f("http://127.0.0.1.example/keys", true, "https")
	f("https://", true, "no address")
	f("https://me:secret@id.example/", true, "credentials")
	f("https://id.example/#sub=x", true, "sub")
	f("https://id.example/#aud=", true, "aud")
	f("https://id.example/#aud=a&aud=b", true, "aud")
	f("https://id.example/#aud=%zz", true, "percent")
	if _, _, err := KeysAt("https://me:secret@id.example/"); strings.Contains(err.Error(), "secret") {
		t.Error("a credential in a message")
	}
}

func TestKeysInAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	source, _, err := KeysAt(path)
	if err != nil {
		t.Fatal(err)
	}
	v, err := NewVerifierFrom(func() time.Time { return noon }, 64, slog.New(slog.DiscardHandler), []KeySource{source}, VerifyingKey{Secret: secret})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.Step(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	a := newSigning(t, "a")
	if err := os.WriteFile(path, keySet(a.published()), 0o600); err != nil {
		t.Fatal(err)
	}
	v.sources[0].tried = time.Time{}
	if _, err := v.Step(t.Context()); err != nil {
		t.Error(err)
	}
	for _, token := range []string{a.signed(t, "ann", nil), mint(t, "ann", time.Hour)} {
		if id, err := v.Verify([]byte(token)); err != nil || id.User != "ann" {
			t.Errorf("%+v, %v", id, err)
		}
	}
}

// Shoppers come while keys change: nobody gets in by a key that is gone, and
// nobody with one that stays is turned away.
func TestVerifyWhileKeysRotate(t *testing.T) {
	stays, comes := newSigning(t, "stays"), newSigning(t, "comes")
	p := newProvider(t, "", stays.published())
	p.step(t, 1)
	var good, other [16][]byte
	for i := range good {
		good[i] = []byte(stays.signed(t, "ann", jwt.MapClaims{"n": i}))
		other[i] = []byte(comes.signed(t, "ann", jwt.MapClaims{"n": i}))
	}
	done := make(chan struct{})
	var all sync.WaitGroup
	var let atomic.Int64
	for range 4 {
		all.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				if id, err := p.v.Verify(good[i%16]); err != nil || id.User != "ann" {
					t.Errorf("turned away: %+v, %v", id, err)
					return
				}
				if _, err := p.v.Verify(other[i%16]); err == nil {
					let.Add(1)
				}
			}
		})
	}
	for round := range 40 {
		if p.publish(stays.published()); round%2 == 0 {
			p.publish(stays.published(), comes.published())
		}
		p.pass(RefreshKeys / 100) // within the hour of the tokens
		p.v.sources[0].tried = time.Time{}
		if _, err := p.v.Step(t.Context()); err != nil {
			t.Error(err)
		}
		for i := range other {
			if _, err := p.v.Verify(other[i]); (err == nil) != (round%2 == 0) {
				t.Fatalf("round %d: %v", round, err)
			}
		}
	}
	close(done)
	all.Wait()
	if let.Load() == 0 {
		t.Error("nobody came by the key that comes and goes")
	}
}

func TestVerifyOfAProvidersTokenAllocatesNothing(t *testing.T) {
	for _, s := range []signing{signingKeys().ec, signingKeys().rsa} {
		p := newProvider(t, "#aud=shop", s.published())
		p.step(t, 1)
		token := []byte(s.signed(t, "ann", jwt.MapClaims{"aud": "shop", "level": 3, "groups": []string{"a"}}))
		if n := testing.AllocsPerRun(100, func() {
			if id, err := p.v.Verify(token); err != nil || id.Claims.Level != 3 {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", s.id, n)
		}
	}
}

func BenchmarkVerifyFirstSeenOf(b *testing.B) {
	k := signingKeys()
	for _, s := range []signing{k.ed, k.ec, k.rsa} {
		b.Run(s.method.Alg(), func(b *testing.B) {
			p := newProvider(b, "", s.published())
			p.step(b, 1)
			token := s.signed(b, "ann", nil)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := p.v.verify(0, token); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
