package gate

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// signing is a key of an identity provider, made for the tests.
type signing struct {
	id      string
	method  jwt.SigningMethod
	private any
	public  crypto.PublicKey
}

// signingKeys are of each kind; RSA keys take a while to make.
var signingKeys = sync.OnceValue(func() (k struct{ ed, ec, rsa, small signing }) {
	public, ed, err := ed25519.GenerateKey(nil)
	ec, err2 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	big, err3 := rsa.GenerateKey(rand.Reader, 2048)
	small, err4 := rsa.GenerateKey(rand.Reader, 1024)
	if err := errors.Join(err, err2, err3, err4); err != nil {
		panic(err)
	}
	k.ed = signing{"ed", jwt.SigningMethodEdDSA, ed, public}
	k.ec = signing{"ec", jwt.SigningMethodES256, ec, &ec.PublicKey}
	k.rsa = signing{"rsa", jwt.SigningMethodRS256, big, &big.PublicKey}
	k.small = signing{"small", jwt.SigningMethodRS256, small, &small.PublicKey}
	return k
})

func newSigning(t testing.TB, id string) signing {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return signing{id, jwt.SigningMethodEdDSA, private, public}
}

// signed is a token for an hour, with more claims if they are given.
func (s signing) signed(t testing.TB, user string, claims jwt.MapClaims) string {
	t.Helper()
	all := jwt.MapClaims{"sub": user, "exp": noon.Add(time.Hour).Unix()}
	maps.Copy(all, claims)
	token := jwt.NewWithClaims(s.method, all)
	if s.id != "" {
		token.Header["kid"] = s.id
	}
	text, err := token.SignedString(s.private)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

type entry map[string]any

// published is the key as a set has it; edits change or, with nil, leave out.
func (s signing) published(edits ...entry) entry {
	enc := base64.RawURLEncoding.EncodeToString
	e := entry{"kid": s.id, "use": "sig", "alg": s.method.Alg()}
	switch p := s.public.(type) {
	case ed25519.PublicKey:
		maps.Copy(e, entry{"kty": "OKP", "crv": "Ed25519", "x": enc(p)})
	case *ecdsa.PublicKey:
		point, err := p.Bytes()
		if err != nil {
			panic(err)
		}
		maps.Copy(e, entry{"kty": "EC", "crv": "P-256", "x": enc(point[1:33]), "y": enc(point[33:])})
	case *rsa.PublicKey:
		maps.Copy(e, entry{"kty": "RSA", "n": enc(p.N.Bytes()), "e": enc(big.NewInt(int64(p.E)).Bytes())})
	}
	for _, edit := range edits {
		for name, value := range edit {
			if e[name] = value; value == nil {
				delete(e, name)
			}
		}
	}
	return e
}

func keySet(keys ...entry) []byte {
	text, err := json.Marshal(map[string]any{"keys": keys})
	if err != nil {
		panic(err)
	}
	return text
}

func TestParseJWKS(t *testing.T) {
	k := signingKeys()
	f := func(want string, keys ...entry) {
		t.Helper()
		got, err := ParseJWKS(keySet(keys...))
		var ids []string
		for _, key := range got {
			ids = append(ids, key.ID)
		}
		if strings.Join(ids, " ") != want || (want == "") != errors.Is(err, ErrKey) {
			t.Errorf("%v: %q, %v; want %q", keys, ids, err, want)
		}
	}
	f("ed ec rsa", k.ed.published(), k.ec.published(), k.rsa.published())
	f("ed ec rsa", k.ed.published(entry{"alg": nil, "use": nil}), k.ec.published(entry{"alg": nil}), k.rsa.published(entry{"key_ops": []string{"verify"}}))
	// What cannot be used is passed over, and a set of nothing else is refused.
	f("ed", entry{"kty": "oct", "k": "c2VjcmV0", "kid": "s"}, entry{"kty": 7}, entry{}, k.ed.published(), entry{"kty": "AKP"})
	f("")
	none := func(what signing, edit entry) {
		t.Helper()
		f("", what.published(edit))
		f("ed", k.ed.published(), what.published(edit))
	}
	none(k.rsa, entry{"use": "enc"})
	none(k.rsa, entry{"use": ""})
	none(k.rsa, entry{"key_ops": []string{"encrypt", "wrapKey"}})
	none(k.rsa, entry{"key_ops": []string{}})
	none(k.rsa, entry{"alg": "PS256"})
	none(k.rsa, entry{"alg": "HS256"})
	none(k.rsa, entry{"alg": "none"})
	none(k.rsa, entry{"alg": ""})
	none(k.rsa, entry{"e": "AQ"})   // 1
	none(k.rsa, entry{"e": "AQAA"}) // 65536
	none(k.rsa, entry{"e": "AQAAAAE"})
	none(k.rsa, entry{"e": ""})
	none(k.rsa, entry{"n": strings.Repeat("_", 1368)}) // 8,208 bits
	none(k.rsa, entry{"d": "AQAB"})
	none(k.small, nil)
	none(k.ed, entry{"alg": "ES256"})
	none(k.ed, entry{"crv": "X25519"})
	none(k.ed, entry{"crv": "Ed448"})
	none(k.ed, entry{"x": "AAAA"})
	none(k.ed, entry{"x": k.ed.published()["x"].(string) + "="})
	none(k.ed, entry{"kty": "EC"})
	none(k.ed, entry{"kid": 7})
	none(k.ec, entry{"alg": "ES384"})
	none(k.ec, entry{"crv": "secp256k1"})
	none(k.ec, entry{"y": k.ec.published()["x"]}) // not on the curve
	none(k.ec, entry{"x": "AAAA"})
	none(k.ec, entry{"kty": "OKP"})

	bad := func(text string) {
		t.Helper()
		if keys, err := ParseJWKS([]byte(text)); !errors.Is(err, ErrKey) || keys != nil {
			t.Errorf("%.40q: %v, %v", text, keys, err)
		}
	}
	good := string(keySet(k.ed.published()))
	bad("")
	bad("<html>")
	bad("null")
	bad(`{"keys":{}}`)
	bad(good + good)
	bad(good[:len(good)-1])
	bad(good + strings.Repeat(" ", maxJWKS))
	bad(`{"keys":[` + strings.Repeat("{},", maxEntries) + `{}]}`)
	many := make([]entry, MaxKeys+1)
	for i := range many {
		many[i] = k.ed.published(entry{"kid": fmt.Sprint(i)})
	}
	bad(string(keySet(many...)))
	if keys, err := ParseJWKS(keySet(many[1:]...)); err != nil || len(keys) != MaxKeys {
		t.Errorf("%d keys, %v", len(keys), err)
	}
}

// A key is for one method: nothing that is public does as a secret, no kind of
// key as another, and no name of one key for another.
func TestKeysAreBoundToTheirMethod(t *testing.T) {
	k := signingKeys()
	fixed := VerifyingKey{Secret: secret}
	keys := []VerifyingKey{fixed}
	for _, s := range []signing{k.ed, k.ec, k.rsa} {
		keys = append(keys, VerifyingKey{ID: s.id, Public: s.public})
	}
	v := newVerifier(t, func() time.Time { return noon }, 64, keys...)
	f := func(what, token string, ok bool) {
		t.Helper()
		for range 2 {
			if id, err := v.Verify([]byte(token)); (err == nil) != ok || ok != (id.User == "ann") {
				t.Errorf("%s: %+v, %v", what, id, err)
			}
		}
	}
	for _, s := range []signing{k.ed, k.ec, k.rsa} {
		f(s.id, s.signed(t, "ann", nil), true)
		unnamed := s
		unnamed.id = ""
		f(s.id+" unnamed", unnamed.signed(t, "ann", nil), true)
		for _, other := range []signing{k.ed, k.ec, k.rsa} {
			if other.id != s.id {
				wrong := s
				wrong.id = other.id
				f(s.id+" named "+other.id, wrong.signed(t, "ann", nil), false)
			}
		}
		// The public key as an HMAC secret, in each form that an attacker has.
		claims := fmt.Sprintf(`{"sub":"ann","exp":%d}`, noon.Add(time.Hour).Unix())
		for form, text := range publicForms(t, s) {
			for _, alg := range []string{"HS256", s.method.Alg()} {
				f("HMAC with "+form+" of "+s.id, forge(text, fmt.Sprintf(`{"alg":%q,"kid":%q}`, alg, s.id), claims), false)
				f("HMAC with "+form+" of "+s.id, forge(text, fmt.Sprintf(`{"alg":%q}`, alg), claims), false)
			}
		}
		parts := strings.Split(s.signed(t, "ann", nil), ".")
		for _, header := range []string{`{"alg":"none"}`, `{"alg":"none","kid":"` + s.id + `"}`, `{"alg":"None"}`, `{}`} {
			head := base64.RawURLEncoding.EncodeToString([]byte(header))
			f("alg none", head+"."+parts[1]+".", false)
			f("alg none, signed", head+"."+parts[1]+"."+parts[2], false)
		}
	}
	strong := signing{"rsa", jwt.SigningMethodRS512, k.rsa.private, nil}
	f("RS512", strong.signed(t, "ann", nil), false)
	strong.method = jwt.SigningMethodPS256
	f("PS256", strong.signed(t, "ann", nil), false)
	f("a secret that is one", forge(secret, `{"alg":"HS256"}`, fmt.Sprintf(`{"sub":"ann","exp":%d}`, noon.Add(time.Hour).Unix())), true)
}

// publicForms are the bytes in which a public key is published.
func publicForms(t *testing.T, s signing) map[string][]byte {
	t.Helper()
	text, err := json.Marshal(s.published())
	if err != nil {
		t.Fatal(err)
	}
	forms := map[string][]byte{"the set's entry": text}
	for _, name := range []string{"x", "y", "n"} {
		if coded, ok := s.published()[name].(string); ok {
			raw, err := base64.RawURLEncoding.DecodeString(coded)
			if err != nil {
				t.Fatal(err)
			}
			forms[name], forms[name+" in base64"] = raw, []byte(coded)
		}
	}
	return forms
}

func TestUnusablePublicKeys(t *testing.T) {
	k := signingKeys()
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	f := func(public crypto.PublicKey) {
		t.Helper()
		if _, err := NewVerifier(time.Now, 0, VerifyingKey{Public: public}); !errors.Is(err, ErrKey) {
			t.Errorf("%T: %v", public, err)
		}
	}
	f(k.small.public)
	f(&p384.PublicKey)
	f(&rsa.PublicKey{N: k.rsa.public.(*rsa.PublicKey).N, E: 2})
	f(&rsa.PublicKey{})
	f((*rsa.PublicKey)(nil))
	f((*ecdsa.PublicKey)(nil))
	f("a text")
	f(k.ed.private)
}

// FuzzParseJWKS: no document does harm, and what comes of it is what it says it
// is: within its bounds, and safe to verify with.
func FuzzParseJWKS(f *testing.F) {
	k := signingKeys()
	f.Add(keySet(k.ed.published(), k.ec.published(), k.rsa.published()))
	f.Add(keySet(k.small.published(), k.rsa.published(entry{"n": "AAAA"})))
	f.Add([]byte(`{"keys":[{"kty":"EC","crv":"P-256","x":"","y":""},{"kty":"oct","k":""}]}`))
	f.Add([]byte(`{"keys":[null,[],"x",{"kty":null,"key_ops":["verify",null]}]}`))
	f.Fuzz(func(t *testing.T, document []byte) {
		keys, err := ParseJWKS(document)
		if (err == nil) != (len(keys) > 0) || len(keys) > MaxKeys || err != nil && !errors.Is(err, ErrKey) {
			t.Fatalf("%d keys, %v", len(keys), err)
		}
		for _, key := range keys {
			method, err := key.method()
			if err != nil || key.Secret != nil {
				t.Fatalf("%+v: %v", key, err)
			}
			if method.Verify("text", make([]byte, 256), key.Public) == nil || method.Verify("text", make([]byte, 64), key.Public) == nil {
				t.Fatalf("%+v takes zeros for a signature", key)
			}
		}
	})
}
