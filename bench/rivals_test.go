package main

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sluice/internal/gate"
	"sluice/test/servers"
)

var secret = []byte("a secret with \x00, \", \\ and 'quotes'")

func mint(t *testing.T, user string, ttl time.Duration) string {
	t.Helper()
	token, err := gate.Mint(secret, user, time.Now(), ttl)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// A measurement against a rival that does not decide would flatter us.
func TestChainDecides(t *testing.T) {
	c, err := startChain(t, secret, "always")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.sell("drop", 3, 0, 2); err != nil {
		t.Fatal(err)
	}
	alice, bob, carol := mint(t, "alice", time.Hour), mint(t, "bob", time.Hour), mint(t, "carol", time.Hour)
	var first []byte
	f := func(activity, token, key, want string) {
		t.Helper()
		r, code, err := attempt(t.Context(), c.addr, purchases(activity), token, key)
		if err != nil {
			t.Fatal(err)
		}
		if err := expectCode(r, code, want); err != nil {
			t.Error(err)
		}
		if key == "k1" && token == alice {
			if first == nil {
				first = r.body
			} else if !bytes.Equal(first, r.body) {
				t.Errorf("the same key answered %s, then %s", first, r.body)
			}
		}
	}
	f("drop", alice, "k1", "held")
	f("drop", alice, "k1", "held")
	f("drop", alice, "k2", "held")
	f("drop", alice, "k3", "limit_reached")
	f("drop", bob, "k1", "held")
	f("drop", carol, "k1", "all_held")
	f("drop", alice, "k1", "held") // a returning buyer
	f("nowhere", alice, "k4", "no_such_activity")
	f("drop", mint(t, "dave", -time.Minute), "k1", "unauthenticated")
	f("drop", alice[:len(alice)-2]+"AA", "k1", "unauthenticated")
	f("drop", alice, "", "idempotency_key_missing")
	if n, err := c.queued("drop"); err != nil || n != 3 {
		t.Errorf("%d queued, %v, want 3", n, err)
	}
}

func TestConstantRepliesTheSame(t *testing.T) {
	want := reply{
		status: http.StatusConflict,
		header: http.Header{"Content-Type": {"application/problem+json"}, "Cache-Control": {"no-store"}, "Server": {"other"}},
		body:   []byte(`{"title":"It's \"sold\" out","code":"sold_out"}`),
	}
	s, err := constant(t, want)
	if err != nil {
		t.Fatal(err)
	}
	got, code, err := attempt(t.Context(), s.addr, purchases("drop"), "any", "k1")
	if err != nil {
		t.Fatal(err)
	}
	if got.status != want.status || !bytes.Equal(got.body, want.body) || code != "sold_out" ||
		got.header.Get("Content-Type") != "application/problem+json" || got.header.Get("Cache-Control") != "no-store" {
		t.Errorf("got %d %v %s", got.status, got.header, got.body)
	}
}

// The whole way of a measurement, for a second each: load, count, CPU time.
func TestGenerator(t *testing.T) {
	dir := t.TempDir()
	g, err := newGenerator(t, dir, secret, 100)
	if err != nil {
		t.Fatal(err)
	}
	c, err := startChain(t, secret, "always")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.sell("open", 1_000_000, 0, 1_000_000); err != nil {
		t.Fatal(err)
	}
	if err := c.sell("gone", 1, 1, 1); err != nil {
		t.Fatal(err)
	}
	c.pause()
	f := func(l load) sample {
		t.Helper()
		l.duration = time.Second
		s, err := g.run(t.Context(), &c.subject, l)
		if err != nil {
			t.Fatal(err)
		}
		if s.Other != 0 || s.Rate <= 0 || s.CPU <= 0 || s.P50 <= 0 || s.Bytes < 100 || s.Good == 0 {
			t.Errorf("%+v", s)
		}
		return s
	}
	f(load{path: purchases("gone"), mode: "repeat", run: "r", connections: 8, refused: true})
	accepted := f(load{path: purchases("open"), mode: "fresh", run: "f", connections: 32})
	c.resume()
	// wrk leaves the last requests of its connections unanswered.
	if n, err := c.queued("open"); err != nil || n < accepted.Good || n > accepted.Good+32 {
		t.Errorf("%d queued, %v, but %d were seen to be accepted", n, err, accepted.Good)
	}
}

func TestParseStat(t *testing.T) {
	f := func(text string, group, ticks int) {
		t.Helper()
		g, n, err := parseStat(text)
		if err != nil || g != group || n != ticks {
			t.Errorf("%q: group %d, %d ticks, %v", text, g, n, err)
		}
	}
	f("12 (nginx) S 1 77 12 0 -1 4194560 500 0 0 0 30 12 0 0 20 0 1 0 100", 77, 42)
	f("12 (a) b (c) R 1 78 12 0 -1 4194560 500 0 0 0 1 2 0 0 20 0 1 0 100", 78, 3)
	if _, _, err := parseStat("12 (short) S 1"); err == nil {
		t.Error("a short line was taken")
	}
	own, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(os.Getpid()), "stat"))
	if err != nil {
		servers.Missing(t, "/proc")
	}
	if _, _, err := parseStat(string(own)); err != nil {
		t.Error(err)
	}
}
