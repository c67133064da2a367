package redisstock_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/internal/backend/redisstock"
	"sluice/internal/lib/redisurl"
	"sluice/internal/stock"
	"sluice/internal/stock/stocktest"
	"sluice/test/servers"
)

// Connections that break in the middle of calls leave their outcome unknown,
// and the same key finds out: nobody gets two, and nothing is lost.
func TestSameKeyFindsOut(t *testing.T) {
	server := servers.Redis(t)
	s := serve(t, server, "")
	open(t, s, stocktest.Allocation("cut", 2000, 1))
	ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute)
	defer stop()
	var unknown, replayed, bought atomic.Int64
	var crowd, killer sync.WaitGroup
	sold := make(chan struct{}, 2000)
	for i := range 32 {
		crowd.Go(func() {
			for n := 0; n < 60; n++ {
				r := stocktest.Request("cut", fmt.Sprint("u", i, "-", n), "k", 1)
				got, err := insist(ctx, s.Ledger, r)
				for ; errors.Is(err, stock.ErrUnknown); got, err = insist(ctx, s.Ledger, r) {
					unknown.Add(1)
				}
				if err != nil {
					t.Error(err)
					return
				}
				sold <- struct{}{}
				if bought.Add(1); got.Replayed {
					replayed.Add(1)
				}
			}
		})
	}
	killer.Go(func() { // by purchases, not by time: on a busy machine no call would ever come through
		n := 0
		for range sold {
			if n++; n%4 == 0 {
				do(t, server, "CLIENT", "KILL", "TYPE", "normal")
			}
		}
	})
	crowd.Wait()
	close(sold)
	killer.Wait()
	c, err := s.Counts(ctx, "cut")
	for err != nil && ctx.Err() == nil {
		c, err = s.Counts(ctx, "cut") // a connection may still be broken
	}
	if err != nil || c.Items[0].Held != int(bought.Load()) {
		t.Errorf("%d bought; %+v, %v", bought.Load(), c, err)
	}
	t.Logf("%d unknown, of which %d had been accepted", unknown.Load(), replayed.Load())
	if unknown.Load() == 0 || replayed.Load() == 0 {
		t.Error("no connection broke in the middle of a call: this test shows nothing")
	}
}

// A server that stands still is "unknown" after the time-out; one that is not
// there is "not ready"; and neither is waited for by more than the bound.
func TestServerAway(t *testing.T) {
	server := servers.Redis(t)
	do(t, server, "FLUSHALL")
	l := connect(t, server, "", redisstock.Options{CallerTime: true, Timeout: 300 * time.Millisecond, MaxInFlight: 4})
	s := &served{l, newKeeper(t, l)}
	open(t, s, stocktest.Allocation("away", 20, 1))
	server.Pause()
	var unknown, overloaded atomic.Int64
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			switch _, err := l.Reserve(t.Context(), stocktest.Request("away", fmt.Sprint("u", i), "k", 1)); {
			case errors.Is(err, stock.ErrUnknown):
				unknown.Add(1)
			case errors.Is(err, stock.ErrOverloaded):
				overloaded.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if unknown.Load() < 4 || overloaded.Load() == 0 {
		t.Errorf("%d unknown, %d refused", unknown.Load(), overloaded.Load())
	}
	if _, err := l.Lookup(t.Context(), stock.Ref{Activity: "away", User: "u0", Key: "k"}); !errors.Is(err, stock.ErrNotReady) {
		t.Errorf("lookup: %v", err)
	}
	server.Resume()
	for i := range 12 {
		r, err := l.Reserve(t.Context(), stocktest.Request("away", fmt.Sprint("u", i), "k", 1))
		for ; err != nil && t.Context().Err() == nil; r, err = l.Reserve(t.Context(), stocktest.Request("away", fmt.Sprint("u", i), "k", 1)) {
			if !errors.Is(err, stock.ErrUnknown) && !errors.Is(err, stock.ErrNotReady) {
				t.Fatal(err)
			}
		}
		if r.State != stock.Pending {
			t.Errorf("%+v", r)
		}
	}
	if it := count(t, l, "away"); it.Held != 12 {
		t.Errorf("%+v", it)
	}
	server.Kill()
	for range 8 { // until the client knows that its connections are gone
		_, err := l.Reserve(t.Context(), stocktest.Request("away", "eve", "k", 1))
		if errors.Is(err, stock.ErrNotReady) {
			return
		}
		if !errors.Is(err, stock.ErrUnknown) {
			t.Fatal(err)
		}
	}
	t.Error("a server that is not there is not noticed")
}

// A keeper that cannot ask learns nothing: only a Redis that answers so has a
// bucket rebuilt.
func TestHeadAskedInVain(t *testing.T) {
	server := servers.Redis(t)
	l := connect(t, server, "", redisstock.Options{CallerTime: true, Timeout: 300 * time.Millisecond})
	open(t, &served{l, newKeeper(t, l)}, stocktest.Allocation("vain", 20, 1))
	f := func(what string) {
		t.Helper()
		_, err := l.Head(t.Context(), stock.Place{Activity: "vain"}, 1)
		if err == nil || errors.Is(err, stock.ErrNotReady) {
			t.Errorf("%s: %v", what, err)
		}
	}
	server.Pause()
	f("frozen")
	server.Resume()
	server.Kill()
	for range 4 { // its connections break, and then there are none
		f("killed")
	}
	if err := server.Restart(); err != nil {
		t.Fatal(err)
	}
	if err := heard(t, l, stock.Place{Activity: "vain"}, 1); !errors.Is(err, stock.ErrNotReady) {
		t.Errorf("without its scripts: %v", err)
	}
}

// A request that is given up before it was sent changes nothing.
func TestGivenUpBefore(t *testing.T) {
	s := serve(t, servers.Redis(t), "")
	open(t, s, stocktest.Allocation("given", 1, 1))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Ledger.Reserve(ctx, stocktest.Request("given", "ann", "k", 1)); !errors.Is(err, stock.ErrNotReady) {
		t.Error(err)
	}
}

// When memory is short, or the disk, nothing changes and the refusal says so.
func TestNoRoom(t *testing.T) {
	server := servers.Redis(t)
	s := serve(t, server, "")
	open(t, s, stocktest.Allocation("room", 5, 1))
	r := stocktest.Request("room", "ann", "k", 1)
	f := func(want error) {
		t.Helper()
		if got, err := s.Ledger.Reserve(t.Context(), r); !errors.Is(err, want) {
			t.Errorf("%+v, %v; want %v", got, err, want)
		}
		if it := count(t, s, "room"); it.Free != 5 {
			t.Errorf("%+v", it)
		}
	}
	do(t, server, "CONFIG", "SET", "maxmemory", "1")
	f(stock.ErrOverloaded)
	do(t, server, "CONFIG", "SET", "maxmemory", "0", "min-replicas-to-write", "1")
	f(stock.ErrNotReady)
	do(t, server, "CONFIG", "SET", "min-replicas-to-write", "0")
	if _, err := s.Ledger.Reserve(t.Context(), r); err != nil {
		t.Error(err)
	}
}

// The log ends where it should, and says when something is missing.
func TestLog(t *testing.T) {
	server := servers.Redis(t)
	do(t, server, "FLUSHALL")
	l := connect(t, server, "", redisstock.Options{CallerTime: true, Slack: 100})
	s := &served{l, newKeeper(t, l)}
	open(t, s, stocktest.Allocation("log", 20_000, 1))
	for i := range 1300 {
		if _, err := l.Reserve(t.Context(), stocktest.Request("log", fmt.Sprint("u", i), "k", 1)); err != nil {
			t.Fatal(err)
		}
	}
	at := func(position uint64) stock.Cursor {
		return stock.Cursor{Log: stock.Place{Activity: "log"}.Log(), Epoch: 1, Position: position}
	}
	f := func(after stock.Cursor, want int, wantErr error) {
		t.Helper()
		n := 0
		for e, err := range l.Tail(t.Context(), after) {
			if err != nil {
				if !errors.Is(err, wantErr) || wantErr == nil {
					t.Errorf("after %+v: %v, want %v", after, err, wantErr)
				}
				wantErr = nil
				break
			}
			if n++; e.Cursor != at(after.Position+uint64(n)) || string(e.Reservation.Terms) != `{"total":1}` {
				t.Fatalf("after %+v: entry %d is %+v", after, n, e)
			}
		}
		if n != want || wantErr != nil {
			t.Errorf("after %+v: %d entries, want %d, and %v", after, n, want, wantErr)
		}
	}
	f(at(0), 1300, nil)
	f(at(1290), 10, nil)
	f(at(1300), 0, nil)
	f(at(5000), 0, nil)
	f(stock.Cursor{Log: "log/7", Epoch: 1}, 0, nil)
	f(stock.Cursor{Log: "wal"}, 0, stock.ErrInvalid)
	if err := l.Trim(t.Context(), at(1200)); err != nil {
		t.Fatal(err)
	}
	f(at(0), 0, stock.ErrTruncated)
	f(at(1100), 200, nil)
	if n := do(t, server, "XLEN", "sluice:{log:0}s").(int64); n < 200 || n > 400 {
		t.Errorf("%d entries are left", n)
	}
	do(t, server, "XDEL", "sluice:{log:0}s", "1-1250")
	f(at(1240), 9, stock.ErrCorrupt)
	f(at(1250), 50, nil)
	together(12_000, func(i int) {
		if _, err := l.Reserve(t.Context(), stocktest.Request("log", fmt.Sprint("v", i), "k", 1)); err != nil {
			t.Error(err)
		}
	})
	if err := l.Trim(t.Context(), at(13_300)); err != nil {
		t.Fatal(err)
	}
	if n := do(t, server, "XLEN", "sluice:{log:0}s").(int64); n < 100 || n > 300 {
		t.Errorf("%d entries are left", n)
	}
	do(t, server, "XADD", "sluice:{log:0}s", "1-13301", "r", "nonsense", "u", "eve")
	f(at(13_299), 1, stock.ErrCorrupt)
}

func TestURL(t *testing.T) {
	f := func(url string, want redisstock.Config, wantErr string) {
		t.Helper()
		got, err := redisstock.ParseURL(url)
		if wantErr != "" {
			if !errors.Is(err, stock.ErrInvalid) || !strings.Contains(err.Error(), wantErr) || strings.Contains(err.Error(), "secret") {
				t.Errorf("%s: %v, want %q in it", url, err, wantErr)
			}
			return
		}
		if err != nil || fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
			t.Errorf("%s: %+v, %v; want %+v", url, got, err, want)
		}
	}
	at := redisurl.URL{Addrs: []string{"a:6379"}}
	f("redis://a:6379", redisstock.Config{URL: at, Buckets: 1}, "")
	f("redis://a:6379?buckets=16&answer=held", redisstock.Config{URL: at, Buckets: 16, Held: true}, "")
	f("redis://a:6379?buckets=256&answer=pending", redisstock.Config{URL: at, Buckets: 256}, "")
	f("redis://user:secret@a", redisstock.Config{}, `"a" is not host:port`)
	f("redis://a:1?bucket=2", redisstock.Config{}, `no option "bucket"`)
	f("redis://a:1?buckets=0", redisstock.Config{}, "1..256")
	f("redis://a:1?buckets=257", redisstock.Config{}, "1..256")
	f("redis://a:1?answer=maybe", redisstock.Config{}, "pending and held")
}

// A Redis that could lose what it was told to keep is refused, with the line to change.
func TestBootCheck(t *testing.T) {
	f := func(line, want string) {
		t.Helper()
		server := servers.Redis(t, servers.Config(line))
		do(t, server, "CONFIG", "SET", "requirepass", "secret")
		l, err := redisstock.Open(t.Context(), "redis://:secret@"+server.Addr, redisstock.Options{})
		if want == "" && err == nil {
			l.Close()
			return
		}
		if err == nil || want == "" || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v, want %q in it", line, err, want)
		}
	}
	f("maxmemory-policy noeviction", "")
	f("maxmemory-policy allkeys-lru", `"maxmemory-policy noeviction"`)
	f("appendonly no", `"appendonly yes"`)
	if err := redisstock.CheckServer("redis_version:6.2.14\r\nmaxmemory_policy:noeviction\r\naof_enabled:1\r\n"); err == nil || !strings.Contains(err.Error(), "7.0 or later") {
		t.Error(err)
	}
	gone := servers.Redis(t)
	gone.Kill()
	if _, err := redisstock.Open(t.Context(), "redis://:secret@"+gone.Addr, redisstock.Options{}); err == nil || strings.Contains(err.Error(), "secret") {
		t.Error(err)
	}
}
