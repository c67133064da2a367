// Package leasetest is the conformance suite of lease.Leases: every body
// passes it unchanged.
package leasetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/internal/lib/lease"
)

// Body is leases nobody holds yet, and the way their clock advances: Pass
// returns once at least d has passed on it.
type Body struct {
	lease.Leases
	Pass func(t *testing.T, d time.Duration)
}

// Run checks a body. open is called once a test.
func Run(t *testing.T, open func(t *testing.T) Body) {
	for name, f := range map[string]func(*testing.T, Body){
		"one holder":         oneHolder,
		"tokens ascend":      tokensAscend,
		"runs out":           runsOut,
		"renewed":            renewed,
		"released":           released,
		"late release":       lateRelease,
		"names apart":        namesApart,
		"names are bytes":    namesAreBytes,
		"bounds":             bounds,
		"raced":              raced,
		"keeper":             keeper,
		"keeper without":     keeperWithout,
		"keepers hand over":  keepersHandOver,
		"cancelled, nothing": cancelled,
	} {
		t.Run(name, func(t *testing.T) { f(t, open(t)) })
	}
}

const (
	long  = time.Minute
	short = 150 * time.Millisecond
)

func acquire(t *testing.T, b Body, name, holder string, ttl time.Duration) lease.Grant {
	t.Helper()
	g, err := b.Acquire(t.Context(), name, holder, ttl)
	if err != nil || g.Name != name || g.Holder != holder || g.Token == 0 {
		t.Fatalf("acquire %s for %s: %+v, %v", name, holder, g, err)
	}
	return g
}

func want(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

func held(t *testing.T, b Body, name, holder string) {
	t.Helper()
	g, err := b.Acquire(t.Context(), name, holder, long)
	if want(t, holder+" while another holds", err, lease.ErrHeld); g != (lease.Grant{}) {
		t.Errorf("a refusal grants %+v", g)
	}
}

func oneHolder(t *testing.T, b Body) {
	g := acquire(t, b, "n", "a", long)
	held(t, b, "n", "b")
	want(t, "renew", b.Renew(t.Context(), g, long), nil)
	held(t, b, "n", "b")
}

func tokensAscend(t *testing.T, b Body) {
	var last uint64
	for i := range 6 {
		holder := fmt.Sprint("h", i/2) // each twice: the holder itself gets a new grant too
		g := acquire(t, b, "n", holder, long)
		if g.Token <= last {
			t.Errorf("token %d after %d", g.Token, last)
		}
		last = g.Token
		if i%2 == 1 {
			want(t, "release", b.Release(t.Context(), g), nil)
		}
	}
}

func runsOut(t *testing.T, b Body) {
	g := acquire(t, b, "n", "a", short)
	b.Pass(t, short)
	want(t, "renew behind the end", b.Renew(t.Context(), g, long), lease.ErrLost)
	next := acquire(t, b, "n", "b", long)
	if next.Token <= g.Token {
		t.Errorf("token %d after %d", next.Token, g.Token)
	}
	want(t, "renew of the earlier", b.Renew(t.Context(), g, long), lease.ErrLost)
	held(t, b, "n", "a")
	want(t, "renew of the later", b.Renew(t.Context(), next, long), nil)
}

func renewed(t *testing.T, b Body) {
	g := acquire(t, b, "n", "a", long)
	want(t, "shorten", b.Renew(t.Context(), g, short), nil)
	b.Pass(t, short)
	next := acquire(t, b, "n", "b", short)
	want(t, "lengthen", b.Renew(t.Context(), next, long), nil)
	b.Pass(t, short)
	held(t, b, "n", "a")
	again := acquire(t, b, "n", "b", long)
	want(t, "renew of the holder's own earlier", b.Renew(t.Context(), next, long), lease.ErrLost)
	want(t, "renew", b.Renew(t.Context(), again, long), nil)
}

func released(t *testing.T, b Body) {
	g := acquire(t, b, "n", "a", long)
	for range 2 {
		want(t, "release", b.Release(t.Context(), g), nil)
	}
	want(t, "renew of a released one", b.Renew(t.Context(), g, long), lease.ErrLost)
	if next := acquire(t, b, "n", "b", long); next.Token <= g.Token {
		t.Errorf("token %d after %d", next.Token, g.Token)
	}
	want(t, "release of what never was", b.Release(t.Context(), lease.Grant{Name: "other", Holder: "a", Token: 1}), nil)
}

// Who releases late does not release another's.
func lateRelease(t *testing.T, b Body) {
	g := acquire(t, b, "n", "a", short)
	b.Pass(t, short)
	acquire(t, b, "n", "b", long)
	want(t, "release", b.Release(t.Context(), g), nil)
	held(t, b, "n", "c")
}

func namesApart(t *testing.T, b Body) {
	a, o := acquire(t, b, "n", "a", long), acquire(t, b, "m", "b", long)
	want(t, "release", b.Release(t.Context(), a), nil)
	want(t, "renew", b.Renew(t.Context(), o, long), nil)
	held(t, b, "m", "a")
}

func namesAreBytes(t *testing.T, b Body) {
	for i, name := range []string{"land/x", "LAND/x", "land/x ", "land/ä", "land/\xff", "land/X"} {
		acquire(t, b, name, fmt.Sprint("h", i), long)
	}
	acquire(t, b, "holder", "a", long)
	held(t, b, "holder", "A")
	held(t, b, "holder", "a ")
}

func bounds(t *testing.T, b Body) {
	f := func(name, holder string, ttl time.Duration) {
		t.Helper()
		_, err := b.Acquire(t.Context(), name, holder, ttl)
		want(t, "acquire", err, lease.ErrInvalid)
		want(t, "renew", b.Renew(t.Context(), lease.Grant{Name: name, Holder: holder, Token: 1}, ttl), lease.ErrInvalid)
	}
	long128 := fmt.Sprintf("%0128d", 0)
	f("", "a", long)
	f("n", "", long)
	f(long128+"0", "a", long)
	f("n", long128+"0", long)
	f("n", "a", lease.MinTTL-1)
	f("n", "a", lease.MaxTTL+1)
	acquire(t, b, long128, long128, lease.MaxTTL)
}

// Many who want it at once: one gets it, and the counter that only its holder
// may touch never sees two.
func raced(t *testing.T, b Body) {
	var inside, rounds atomic.Int64
	var wg sync.WaitGroup
	var mu sync.Mutex
	tokens := map[uint64]bool{}
	for w := range 6 {
		wg.Go(func() {
			for rounds.Load() < 30 {
				g, err := b.Acquire(t.Context(), "n", fmt.Sprint("w", w), long)
				if errors.Is(err, lease.ErrHeld) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				if inside.Add(1) != 1 {
					t.Error("two hold the lease")
				}
				mu.Lock()
				if tokens[g.Token] {
					t.Errorf("token %d was granted twice", g.Token)
				}
				tokens[g.Token] = true
				mu.Unlock()
				rounds.Add(1)
				inside.Add(-1)
				if err := b.Release(t.Context(), g); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func step(t *testing.T, k *lease.Keeper, want bool) {
	t.Helper()
	if worked, err := k.Step(t.Context()); err != nil || worked != want {
		t.Errorf("step: %v, %v, want %v", worked, err, want)
	}
}

// A keeper renews, and knows by its own clock when it can no longer be sure.
func keeper(t *testing.T, b Body) {
	now := time.Unix(1000, 0)
	k := lease.NewKeeper(b, "n", "a", long, func() time.Time { return now })
	if _, err := k.Held(); !errors.Is(err, lease.ErrLost) {
		t.Errorf("held before any step: %v", err)
	}
	step(t, k, true)
	first, err := k.Held()
	want(t, "held", err, nil)
	now = now.Add(long / 2)
	step(t, k, false) // renews
	now = now.Add(long - 1)
	if g, err := k.Held(); err != nil || g != first {
		t.Errorf("held after a renewal: %+v, %v", g, err)
	}
	now = now.Add(1)
	_, err = k.Held()
	want(t, "held past its end", err, lease.ErrLost)
	step(t, k, true)
	if g, err := k.Held(); err != nil || g.Token <= first.Token {
		t.Errorf("acquired again: %+v, %v, after token %d", g, err, first.Token)
	}
	want(t, "stop", k.Stop(t.Context()), nil)
	_, err = k.Held()
	want(t, "held after stop", err, lease.ErrLost)
	acquire(t, b, "n", "b", long)
}

// away is leases that do not answer.
type away struct {
	lease.Leases
	err error
}

func (a *away) Renew(ctx context.Context, g lease.Grant, ttl time.Duration) error {
	if a.err != nil {
		return a.err
	}
	return a.Leases.Renew(ctx, g, ttl)
}

// Leases that do not answer end nothing before its time.
func keeperWithout(t *testing.T, b Body) {
	now, a := time.Unix(1000, 0), &away{Leases: b.Leases}
	k := lease.NewKeeper(a, "n", "a", long, func() time.Time { return now })
	step(t, k, true)
	a.err = errors.New("away")
	now = now.Add(long - 1)
	_, err := k.Step(t.Context())
	want(t, "step", err, a.err)
	_, err = k.Held()
	want(t, "held until its end", err, nil)
	a.err = nil
	step(t, k, false)
	now = now.Add(long - 1)
	_, err = k.Held()
	want(t, "renewed at last", err, nil)
}

func keepersHandOver(t *testing.T, b Body) {
	now := time.Unix(1000, 0)
	clock := func() time.Time { return now }
	a, o := lease.NewKeeper(b, "n", "a", long, clock), lease.NewKeeper(b, "n", "b", long, clock)
	step(t, a, true)
	step(t, o, false)
	_, err := o.Held()
	want(t, "the other", err, lease.ErrLost)
	g, err := a.Held()
	want(t, "the first", err, nil)
	want(t, "stop", a.Stop(t.Context()), nil)
	step(t, o, true)
	if n, err := o.Held(); err != nil || n.Token <= g.Token {
		t.Errorf("handed over: %+v, %v", n, err)
	}
	want(t, "a stop that comes twice", a.Stop(t.Context()), nil)
}

func cancelled(t *testing.T, b Body) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := b.Acquire(ctx, "n", "a", long)
	want(t, "acquire", err, context.Canceled)
	acquire(t, b, "n", "b", long)
}
