package redisgate_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/internal/backend/redisgate"
	"sluice/internal/gate/waiting"
	"sluice/internal/gate/waiting/linetest"
	"sluice/internal/lib/limit"
	"sluice/internal/lib/limit/pooltest"
	"sluice/internal/lib/redisurl"
	"sluice/test/servers"
)

var optionsOfTest = redisgate.Options{Timeout: 5 * time.Second}

// On a cluster everything goes to one slot each, wherever that is.
func TestOnCluster(t *testing.T) {
	c := servers.Cluster(t)
	linetest.Run(t, func(t *testing.T) waiting.Line { return clustered(t, c).Line })
	linetest.PresenceRun(t, func(t *testing.T) waiting.Presence { return clustered(t, c).Presence })
	pooltest.Run(t, func(t *testing.T, r limit.Rate, validity time.Duration) pooltest.Body {
		return pooltest.Body{Pool: pool(t, clustered(t, c), t.Name(), 1, r, validity), Pass: func(t *testing.T, d time.Duration) { pass(t, c.Nodes[0], d+time.Millisecond) }}
	})
	s := clustered(t, c)
	for i := range 50 { // on all nodes
		spend(t, s.Once, fmt.Sprint("id", i), time.Now().Add(time.Minute), true)
		spend(t, s.Once, fmt.Sprint("id", i), time.Now().Add(time.Minute), false)
	}
}

// A sentinel says who is the primary, and who is it next.
func TestOnSentinel(t *testing.T) {
	watched := servers.RedisSentinel(t)
	s, err := redisgate.Open(t.Context(), "redis://"+watched.Watch.Addr+"?answer=held&sentinel="+servers.SentinelSet, redisgate.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	spend(t, s.Once, "before", time.Now().Add(time.Minute), true)
	if err := watched.Failover(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "spend", func() error {
		_, err := s.Once.Spend(t.Context(), "after", time.Now().Add(time.Minute))
		return err
	})
}

func spend(t testing.TB, o *redisgate.Once, id string, until time.Time, want bool) {
	t.Helper()
	if first, err := o.Spend(t.Context(), id, until); err != nil || first != want {
		t.Errorf("%s: first %v, %v; want %v", id, first, err, want)
	}
}

func TestOnce(t *testing.T) {
	server := servers.Redis(t)
	do(t, server, "FLUSHALL")
	now := time.Unix(1_700_000_000, 0)
	a := connect(t, server, redisgate.Options{Now: func() time.Time { return now }}).Once
	b := connect(t, server, redisgate.Options{Now: func() time.Time { return now.Add(-30 * time.Second) }}).Once
	spend(t, a, "x", now.Add(5*time.Minute), true)
	spend(t, a, "x", now.Add(5*time.Minute), false)
	spend(t, b, "x", now.Add(5*time.Minute), false)
	spend(t, b, "{y}\x00", now.Add(time.Second), true)
	spend(t, a, "late", now.Add(-time.Hour), true)
	spend(t, b, "late", now.Add(-time.Hour), false) // one whose clock is behind
	f := func(key string, from, to time.Duration) {
		t.Helper()
		ms, _ := do(t, server, "PTTL", key).(int64)
		if left := time.Duration(ms) * time.Millisecond; left < from || left > to {
			t.Errorf("%q ends in %s, want %s to %s", key, left, from, to)
		}
	}
	f("sluice:once:x", 5*time.Minute+50*time.Second, 6*time.Minute)
	f("sluice:once:late", 50*time.Second, time.Minute)

	var firsts atomic.Int64
	together(crowd*20, func(i int) {
		first, err := []*redisgate.Once{a, b}[i%2].Spend(t.Context(), fmt.Sprint("shared", i/crowd), now)
		if err != nil {
			t.Error(err)
		}
		if first {
			firsts.Add(1)
		}
	})
	if firsts.Load() != 20 {
		t.Errorf("20 ids were first %d times", firsts.Load())
	}
}

// A Redis that is killed comes back with its rooms from the append-only file.
func TestRestartKeepsRooms(t *testing.T) {
	server := servers.Redis(t, servers.Config("appendfsync always"))
	s := serve(t, server)
	p := pool(t, s, "kept", 1, bucketOf(1, time.Hour, 100), time.Hour)
	open(t, s.Line, "kept")
	for i := range 100 {
		if n, _, err := s.Line.Join(t.Context(), "kept", fmt.Sprint("u", i), entry(i), -1, 1000); err != nil || n != i {
			t.Fatal(n, err)
		}
	}
	before, err := s.Line.Advance(t.Context(), "kept", 0, waiting.Progress{Head: 40, Called: 30, Digest: []byte{0, 1}})
	if err != nil {
		t.Fatal(err)
	}
	grant(t, p, "a", 60, 60)
	spend(t, s.Once, "spent", time.Now().Add(time.Minute), true)
	server.Kill()
	if err := server.Restart(); err != nil {
		t.Fatal(err)
	}
	var after waiting.Room
	eventually(t, "room", func() (err error) {
		after, err = s.Line.Room(t.Context(), "kept")
		return err
	})
	if fmt.Sprint(after) != fmt.Sprint(before) || after.Joined != 100 || after.Progress.Head != 40 {
		t.Errorf("%+v, before %+v", after, before)
	}
	eventually(t, "find", func() error {
		n, e, err := s.Line.Find(t.Context(), "kept", "u77")
		if err == nil && (n != 77 || e != entry(77)) {
			t.Errorf("number %d, entry %x", n, e)
		}
		return err
	})
	eventually(t, "join", func() error {
		n, _, err := s.Line.Join(t.Context(), "kept", "new", entry(100), -1, 1000)
		if err == nil && n != 100 {
			t.Errorf("number %d", n)
		}
		return err
	})
	eventually(t, "grant", func() error {
		l, err := p.Grant(t.Context(), "b", 100)
		if err == nil && l.Permits != 40 {
			t.Errorf("%+v", l)
		}
		return err
	})
	eventually(t, "spend", func() error {
		first, err := s.Once.Spend(t.Context(), "spent", time.Now().Add(time.Minute))
		if first {
			t.Error("spent twice")
		}
		return err
	})
}

// A Redis that has lost everything says that there is no room, and never that
// somebody is not in it or that nothing has moved; scripts come back by themselves.
func TestFlushed(t *testing.T) {
	server := servers.Redis(t)
	s := serve(t, server)
	open(t, s.Line, "lost")
	for i := range 10 {
		if _, _, err := s.Line.Join(t.Context(), "lost", fmt.Sprint("u", i), entry(i), -1, 1000); err != nil {
			t.Fatal(err)
		}
	}
	p := pool(t, s, "lost", 1, bucketOf(1, time.Hour, 100), time.Hour)
	grant(t, p, "a", 100, 100)
	do(t, server, "FLUSHALL")
	do(t, server, "SCRIPT", "FLUSH")
	f := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, waiting.ErrNoRoom) {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err := s.Line.Room(t.Context(), "lost")
	f("room", err)
	_, _, err = s.Line.Join(t.Context(), "lost", "u3", entry(3), -1, 1000)
	f("join", err)
	_, _, err = s.Line.Find(t.Context(), "lost", "u3")
	f("find", err)
	_, err = s.Line.Advance(t.Context(), "lost", 0, waiting.Progress{})
	f("advance", err)
	grant(t, p, "b", 1000, 100) // a full bucket, as the contract says of a pool that lost its memory
}

// A server that stands still, or is not there, is an error within the time-out,
// for all of many callers at once, and they are well when it is back.
func TestAway(t *testing.T) {
	server := servers.Redis(t)
	do(t, server, "FLUSHALL")
	const timeout = 300 * time.Millisecond
	s := connect(t, server, redisgate.Options{Timeout: timeout})
	p := pool(t, s, "away", 1, bucketOf(1, time.Hour, 100), time.Hour)
	open(t, s.Line, "away")
	ask := func(ctx context.Context) error {
		_, err1 := p.Grant(ctx, "a", 1)
		_, _, err2 := s.Line.Join(ctx, "away", "u", entry(1), -1, 10)
		_, err3 := s.Once.Spend(ctx, "id", time.Now())
		err4 := s.Presence.See(ctx, "away", 1, []int{1})
		_, err5 := s.Line.Entries(ctx, "away", 0, 10)
		all := []error{err1, err2, err3, err4, err5}
		if some := slices.ContainsFunc(all, func(err error) bool { return err == nil }); some && errors.Join(all...) != nil {
			return nil // it went or came meanwhile
		}
		return errors.Join(all...)
	}
	fails := func(what string) {
		t.Helper()
		begun := time.Now()
		together(2*crowd, func(int) {
			if err := ask(t.Context()); err == nil {
				t.Errorf("%s: no error", what)
			} else if errors.Is(err, waiting.ErrNoRoom) {
				t.Errorf("%s: a wrong answer: %v", what, err)
			}
		})
		if took := time.Since(begun); took > 2*5*timeout+10*time.Second { // two rounds of five calls, on a busy machine
			t.Errorf("%s: it took %s", what, took)
		}
	}
	server.Pause()
	begun := time.Now()
	var all sync.WaitGroup
	for range 4 * 1024 { // four times as many as have a place
		all.Go(func() {
			if _, err := s.Line.Room(t.Context(), "away"); err == nil {
				t.Error("a paused server answered")
			}
		})
	}
	all.Wait()
	if took := time.Since(begun); took > 10*time.Second { // a busy machine has most of it
		t.Errorf("who waited for a place waited %s", took)
	} else {
		t.Logf("4,096 callers at once had their error after %s", took)
	}
	fails("paused")
	server.Resume()
	eventually(t, "resumed", func() error { _, err := s.Line.Room(t.Context(), "away"); return err })
	server.Kill()
	fails("killed")
	if _, err := redisgate.Open(t.Context(), "redis://"+server.Addr, redisgate.Options{Timeout: timeout}); err == nil {
		t.Error("opened a server that is not there")
	}
}

// What a budget does without its pool, and with it again.
func TestBudgetWithoutRedis(t *testing.T) {
	server := servers.Redis(t)
	do(t, server, "FLUSHALL")
	s := connect(t, server, redisgate.Options{Timeout: 300 * time.Millisecond})
	p := pool(t, s, "budget", 1, bucketOf(1000, time.Second, 1000), time.Minute)
	at := time.Unix(1_700_000_000, 0)
	b, err := limit.NewBudget(p, limit.BudgetOptions{Holder: "gate/1", Lease: 10, Low: 2, Every: 10 * time.Millisecond, Timeout: time.Second}, func() time.Time { return at })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Step(t.Context()); err != nil {
		t.Fatal(err)
	}
	server.Pause()
	spent := 0
	for b.Take(1, at.UnixNano()).Allowed {
		spent++
	}
	if spent != 10 {
		t.Errorf("%d of 10 held could be spent", spent)
	}
	if _, err := b.Step(t.Context()); err == nil {
		t.Error("a step without redis is no error")
	}
	at = at.Add(3 * time.Second)
	if d := b.Take(1, at.UnixNano()); d.Allowed || b.Silence(at.UnixNano()) != 3*time.Second {
		t.Errorf("%+v, silent for %s", d, b.Silence(at.UnixNano()))
	}
	server.Resume()
	eventually(t, "step", func() error { _, err := b.Step(t.Context()); return err })
	if !b.Take(1, at.UnixNano()).Allowed {
		t.Error("nothing to spend with redis back")
	}
}

// What is the ledger's in the URL is passed over; what is wrong with the rest is said.
func TestURL(t *testing.T) {
	if _, err := redisgate.Open(t.Context(), "redis://u:secret@a", redisgate.Options{}); !errors.Is(err, redisurl.ErrInvalid) {
		t.Error(err)
	}
	server := servers.Redis(t)
	do(t, server, "CONFIG", "SET", "requirepass", "s%c:r@t")
	for _, ok := range []string{"redis://default:s%25c%3Ar@t@" + server.Addr + "/2?buckets=16&answer=held", "redis://:s%25c%3Ar@t@" + server.Addr + "?cluster=false"} {
		s, err := redisgate.Open(t.Context(), ok, redisgate.Options{})
		if err != nil {
			t.Fatalf("%s: %v", ok, err)
		}
		s.Close()
	}
}
