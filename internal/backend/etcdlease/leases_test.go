package etcdlease

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"sluice/internal/lib/cluster"
	"sluice/internal/lib/lease"
	"sluice/internal/lib/lease/leasetest"
	"sluice/test/servers"
)

func TestLeases(t *testing.T) {
	t.Parallel() // most of it is waiting
	s := servers.Etcd(t)
	leasetest.Run(t, func(t *testing.T) leasetest.Body {
		e := open(t, s.Addr)
		return leasetest.Body{Leases: e, Pass: func(t *testing.T, d time.Duration) {
			t.Helper()
			pass(t, e, d)
		}}
	})
}

// pass returns when leases made for d have ended. etcd rounds d up to seconds
// and looks twice a second for those that have run out, so it is asked.
func pass(t *testing.T, e *Etcd, d time.Duration) {
	t.Helper()
	<-time.After(d)
	eventually(t, "leases run out", func() bool {
		all, err := e.at().Leases(t.Context())
		must(t, err)
		for _, l := range all.Leases {
			left, err := e.at().TimeToLive(t.Context(), l.ID)
			if err == nil && left.TTL >= 0 && left.GrantedTTL <= e.seconds(d) {
				return false
			}
		}
		return true
	})
}

func acquire(t *testing.T, e *Etcd, name, holder string, ttl time.Duration) lease.Grant {
	t.Helper()
	g, err := e.Acquire(t.Context(), name, holder, ttl)
	must(t, err)
	return g
}

func want(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

// Two processes find a lease free at the same moment. What is written compares,
// and one has it. Without the comparison both do.
func TestRace(t *testing.T) {
	t.Parallel() // most of it is waiting
	s := servers.Etcd(t)
	f := func(careless bool) (holders int) {
		t.Helper()
		a, b := open(t, s.Addr), open(t, s.Addr)
		a.careless, b.careless = careless, careless
		name := "guarded"
		if careless {
			name = "unguarded"
		}
		var seen [2]standing
		for i, e := range []*Etcd{a, b} {
			var err error
			seen[i], err = e.look(t.Context(), name)
			must(t, err)
		}
		for i, e := range []*Etcd{a, b} {
			_, taken, err := e.take(t.Context(), name, string(rune('a'+i)), time.Minute, seen[i])
			must(t, err)
			if taken {
				holders++
			}
		}
		return holders
	}
	if n := f(false); n != 1 {
		t.Errorf("%d hold the lease", n)
	}
	if n := f(true); n != 2 {
		t.Errorf("without the comparison %d hold the lease; what does it prevent?", n)
	}
}

// A holder that stands still past the end of its lease wakes up believing that
// it holds it. It writes nothing any more, whether or not there is a successor.
func TestPausedHolder(t *testing.T) {
	t.Parallel() // most of it is waiting
	s := servers.Etcd(t)
	a, b := open(t, s.Addr), open(t, s.Addr)
	save := func(e *Etcd, g lease.Grant, from int64) error {
		_, err := e.Under(g).Put(t.Context(), cluster.Document{Name: "plan", Data: []byte(`1`), By: g.Holder}, from)
		return err
	}
	old := acquire(t, a, "chief", "a", time.Second)
	must(t, save(a, old, 0))
	pass(t, a, time.Second) // no renewal comes
	want(t, "nobody's", save(a, old, 1), lease.ErrLost)
	next := acquire(t, b, "chief", "b", time.Minute)
	if next.Token <= old.Token {
		t.Errorf("token %d after %d", next.Token, old.Token)
	}
	want(t, "another's", save(a, old, 1), lease.ErrLost)
	must(t, save(b, next, 1))
	want(t, "the holder's, of an old version", save(b, next, 1), cluster.ErrChanged)
	want(t, "renewal", a.Renew(t.Context(), old, time.Minute), lease.ErrLost)

	// The grant ends between the look and the write: the write itself compares.
	seen, err := b.stands(t.Context(), next)
	must(t, err)
	must(t, b.Release(t.Context(), next))
	r, err := b.at().Txn(t.Context()).If(b.unchanged("chief", seen)...).Commit()
	must(t, err)
	if r.Succeeded {
		t.Error("a write compared with a lease that has ended succeeds")
	}
	d, err := a.Document(t.Context(), "plan")
	must(t, err)
	if d.Version != 2 || d.By != "b" {
		t.Errorf("%+v", d)
	}
}

// An etcd that has lost all gives tokens above those it gave before.
func TestReplaced(t *testing.T) {
	t.Parallel() // most of it is waiting
	s := servers.Etcd(t)
	e := open(t, s.Addr)
	var before lease.Grant
	for range 5 {
		before = acquire(t, e, "n", "a", time.Minute)
	}
	must(t, s.RestartEmpty())
	var after lease.Grant
	eventually(t, "a grant", func() (ok bool) {
		var err error
		after, err = e.Acquire(t.Context(), "n", "b", time.Minute)
		return err == nil
	})
	if after.Token <= before.Token {
		t.Errorf("token %d after %d", after.Token, before.Token)
	}
	want(t, "renewal of what is lost", e.Renew(t.Context(), before, time.Minute), lease.ErrLost)
}

// Who waits for a lease gets it when it is given back, or when its holder dies.
func TestHold(t *testing.T) {
	t.Parallel() // most of it is waiting
	s := servers.Etcd(t)
	a, b := open(t, s.Addr), open(t, s.Addr)
	var mu sync.Mutex
	inside, rounds := 0, 0
	var all sync.WaitGroup
	for i, e := range []*Etcd{a, b, a, b} {
		all.Go(func() {
			for range 3 {
				err := lease.Hold(t.Context(), e, "n", string(rune('a'+i)), 10*time.Second, func(context.Context, lease.Grant) error {
					mu.Lock()
					inside++
					rounds++
					if inside != 1 {
						t.Error("two work at once")
					}
					mu.Unlock()
					mu.Lock()
					inside--
					mu.Unlock()
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if rounds != 12 {
		t.Errorf("%d rounds of work, want 12", rounds)
	}

	acquire(t, a, "n", "dead", time.Second) // and never renewed
	began := time.Now()
	must(t, lease.Hold(t.Context(), b, "n", "heir", 10*time.Second, func(context.Context, lease.Grant) error { return nil }))
	t.Logf("the heir of a dead holder of 1 s waited %s", time.Since(began).Round(time.Millisecond))

	// The work outlives several times the lease, since it is renewed, and ends
	// when it is lost.
	boom := errors.New("boom")
	want(t, "work that fails", lease.Hold(t.Context(), a, "n", "a", time.Second, func(ctx context.Context, g lease.Grant) error {
		select {
		case <-ctx.Done():
			t.Error("the lease was lost")
		case <-time.After(2500 * time.Millisecond):
		}
		return boom
	}), boom)
	want(t, "a lease taken away", lease.Hold(t.Context(), a, "n", "a", time.Second, func(ctx context.Context, g lease.Grant) error {
		must(t, b.Release(t.Context(), g))
		<-ctx.Done()
		return nil
	}), lease.ErrLost)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	acquire(t, a, "n", "a", time.Minute)
	want(t, "who gives up waiting", lease.Hold(ctx, b, "n", "b", time.Second, nil), context.DeadlineExceeded)
}
