package gate

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

// Claims are read where they are what they should be, and what is not one is as
// if the token did not state it.
func TestVerifyReadsClaims(t *testing.T) {
	v := newVerifier(t, func() time.Time { return noon }, 64, VerifyingKey{Secret: secret})
	f := func(stated string, want *Claims) {
		t.Helper()
		token := forge(secret, `{"alg":"HS256"}`, fmt.Sprintf(`{"sub":"u1","exp":%d%s}`, noon.Add(time.Hour).Unix(), stated))
		for range 2 { // at first sight, and remembered
			id, err := v.Verify([]byte(token))
			if err != nil || id.User != "u1" || !reflect.DeepEqual(id.Claims, want) {
				t.Errorf("%.200s: %+v, %v; want %+v", stated, id.Claims, err, want)
			}
		}
	}
	list := func(n int, entry string) string {
		return `,"groups":[` + strings.TrimSuffix(strings.Repeat(entry+",", n), ",") + `]`
	}
	f(``, nil)
	f(`,"level":3`, &Claims{Level: 3})
	f(`,"level":0`, &Claims{})
	f(`,"level":-2e0`, &Claims{Level: -2})
	f(`,"level":3.5`, nil)
	f(`,"level":1e300`, nil)
	f(`,"level":"3"`, nil)
	f(`,"region":"华东"`, &Claims{Region: "华东"})
	f(`,"region":""`, nil)
	f(`,"region":"a\u0000"`, nil)
	f(`,"region":"`+strings.Repeat("r", 65)+`"`, nil)
	f(`,"region":["eu"]`, nil)
	f(`,"newcomer":true`, &Claims{Newcomer: true})
	f(`,"newcomer":false`, &Claims{})
	f(`,"newcomer":"true"`, nil)
	f(`,"newcomer":1`, nil)
	f(`,"groups":["gold","staff"]`, &Claims{Groups: []string{"gold", "staff"}})
	f(`,"groups":[]`, nil)
	f(`,"groups":"gold"`, nil)
	f(`,"groups":["gold",7]`, nil)
	f(`,"groups":["gold",""]`, nil)
	f(list(16, `"g"`), &Claims{Groups: strings.Split(strings.Repeat("g", 16), "")})
	f(list(17, `"g"`), nil)
	f(`,"level":null,"region":null,"newcomer":null,"groups":null`, nil)
	// One that is none spoils no other.
	f(`,"level":"x","region":"eu"`, &Claims{Region: "eu"})
}

func TestMintWithClaims(t *testing.T) {
	v := newVerifier(t, func() time.Time { return noon }, 64, VerifyingKey{Secret: secret})
	f := func(c Claims, want *Claims) {
		t.Helper()
		token, err := MintWith(secret, "ann", c, noon, time.Hour)
		if want == nil && c.fault() != "" {
			if !errors.Is(err, ErrUnauthenticated) || token != "" {
				t.Errorf("%+v: %q, %v", c, token, err)
			}
			return
		}
		id, verr := v.Verify([]byte(token))
		if err != nil || verr != nil || !reflect.DeepEqual(id.Claims, want) {
			t.Errorf("%+v: %+v, %v, %v", c, id.Claims, err, verr)
		}
	}
	all := Claims{Level: 5, Region: "eu", Newcomer: true, Groups: []string{"a", "b"}}
	f(Claims{}, nil)
	f(all, &all)
	f(Claims{Level: 2_000_000_000}, nil)
	f(Claims{Region: "a\nb"}, nil)
	f(Claims{Groups: make([]string, 17)}, nil)
	f(Claims{Groups: []string{""}}, nil)
	// What is read of each by itself is still too long for a token.
	long := Claims{Groups: make([]string, 16)}
	for i := range long.Groups {
		long.Groups[i] = strings.Repeat(`"`, 64)
	}
	if token, err := MintWith(secret, "ann", long, noon, time.Hour); !errors.Is(err, ErrUnauthenticated) || token != "" {
		t.Errorf("%d bytes, %v", len(token), err)
	}
}
