package app

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"sluice/internal/backend/etcdlease"
	"sluice/internal/backend/sqlstore"
	"sluice/internal/lib/clock"
	"sluice/internal/lib/id"
	"sluice/internal/lib/lease"
)

// Two processes that believe in the same number at the same moment, which leases
// and clocks could bring about, make different ids all the same; without their
// spans of time they make the same ones.
func TestOneNumberTwice(t *testing.T) {
	store := newStore(t)
	now := time.Date(2026, 11, 11, 20, 0, 0, 0, time.UTC)
	clock := func() time.Time { return now }
	start := func(spans bool) (*number, *id.Source) {
		t.Helper()
		k := &number{n: 7, kept: lease.NewKeeper(lease.NewLocal(clock), "id/7", "me", numberTTL, clock)}
		ids := id.NewMarkingSource(k.n, clock)
		if _, err := k.kept.Step(t.Context()); err != nil {
			t.Fatal(err)
		}
		if spans {
			if err := k.mint(t.Context(), ids, store); err != nil {
				t.Fatal(err)
			}
		}
		return k, ids
	}
	same := func(spans bool) (n int) {
		t.Helper()
		seen := map[uint64]bool{}
		a, of := start(spans)
		b, others := start(spans)
		for second := range 60 {
			for range 100 {
				for _, ids := range []*id.Source{of, others} {
					minted, err := ids.Mint("ann")
					if err != nil {
						t.Fatalf("second %d: %v", second, err)
					}
					if seen[minted] {
						n++
					}
					seen[minted] = true
				}
			}
			now = now.Add(time.Second)
			for _, k := range []*number{a, b} {
				if _, err := k.Step(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		}
		now = now.Add(-2 * time.Minute) // for whoever comes next
		return n
	}
	if n := same(false); n == 0 {
		t.Error("without spans nothing comes twice: this test shows nothing")
	}
	if n := same(true); n != 0 {
		t.Errorf("%d ids came twice", n)
	}
}

// newStore is an empty one, on SQLite.
func newStore(t *testing.T) *sqlstore.Store {
	t.Helper()
	store, err := sqlstore.Open(t.Context(), filepath.Join(t.TempDir(), "shop.db"), sqlstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return store
}

// While the leases do not answer a process keeps its number, as long as the store
// gives it spans; without the store, and when somebody has the number, it stops.
func TestNumberWithoutLeases(t *testing.T) {
	store := newStore(t)
	now := time.Date(2026, 11, 11, 20, 0, 0, 0, time.UTC)
	clock := func() time.Time { return now }
	local := lease.NewLocal(clock)
	leases := &cut{Leases: local}
	k := &number{n: 7, kept: lease.NewKeeper(leases, "id/7", "me", numberTTL, clock)}
	ids := id.NewMarkingSource(k.n, clock)
	step := func(wait time.Duration, want, stands, mints error) {
		t.Helper()
		now = now.Add(wait)
		if _, err := k.Step(t.Context()); !errors.Is(err, want) {
			t.Errorf("step: %v, want %v", err, want)
		}
		if err := k.stands(); !errors.Is(err, stands) {
			t.Errorf("stands: %v, want %v", err, stands)
		}
		if _, err := ids.Mint("ann"); !errors.Is(err, mints) {
			t.Errorf("mint: %v, want %v", err, mints)
		}
	}
	step(0, nil, nil, nil)
	if err := k.mint(t.Context(), ids, store); err != nil {
		t.Fatal(err)
	}
	leases.off.Store(true)
	step(numberTTL/2, errCut, nil, nil)
	for range 20 {
		step(numberTTL/2, errCut, nil, nil)
	}
	k.spans = id.NewSpans(ids, nowhere{}, numberTTL) // the store is away, too
	step(numberTTL/2, errNowhere, nil, id.ErrAhead)
	if err := k.mint(t.Context(), ids, store); err != nil {
		t.Fatal(err)
	}
	if _, err := local.Acquire(t.Context(), "id/7", "somebody", numberTTL); err != nil {
		t.Fatal(err)
	}
	step(0, errCut, nil, nil)
	leases.off.Store(false)
	step(0, errTaken, lease.ErrLost, nil)
}

var errNowhere = errors.New("no store")

// nowhere cuts nothing.
type nowhere struct{}

func (nowhere) CutSegment(context.Context, string, int64, int64) (id.Segment, error) {
	return id.Segment{}, errNowhere
}

// away is an etcd that does not answer.
type away struct{ lease.Leases }

func (away) Acquire(context.Context, string, string, time.Duration) (lease.Grant, error) {
	return lease.Grant{}, etcdlease.ErrAway
}

// Looking for a number without leases leaves the processes alone that have one: what
// is cut from the row of a living one tears its span, and its ids leap ahead.
func TestNumberOfAnother(t *testing.T) {
	store := newStore(t)
	now := time.Date(2026, 11, 11, 20, 0, 0, 0, time.UTC)
	clock := func() time.Time { return now }
	living := id.NewMarkingSource(7, clock)
	spans := id.NewSpans(living, store, numberTTL)
	step := func(forward time.Duration) {
		t.Helper()
		now = now.Add(forward)
		if _, err := spans.Step(t.Context()); err != nil {
			t.Fatal(err)
		}
		n, err := living.Mint("ann")
		if ahead := id.Time(n).Sub(now); err != nil || ahead > time.Second {
			t.Errorf("%s: an id %s ahead: %v", now.Format(time.TimeOnly), ahead, err)
		}
	}
	f := func(want bool) {
		t.Helper()
		used, err := id.NewSpans(id.NewMarkingSource(7, clock), store, numberTTL).Used(t.Context(), store.NextNumber)
		if err != nil || used != want {
			t.Errorf("%s: used %t, %v", now.Format(time.TimeOnly), used, err)
		}
	}
	f(false)
	step(0)
	for range 20 {
		f(true)
		step(numberTTL / 5)
	}
	now = now.Add(numberTTL) // it has died
	f(false)
}

// A process can begin while the leases do not answer, with a number that nobody
// uses; without being told to it does not.
func TestNumberGuessed(t *testing.T) {
	store := newStore(t)
	begin := func(unasked bool) (*doors, error) {
		d := &doors{store: sqlstore.Single(store), leases: away{}, holder: "me", clock: clock.New()}
		return d, d.openIDs(t.Context(), unasked, quiet)
	}
	if _, err := begin(false); !errors.Is(err, etcdlease.ErrAway) {
		t.Errorf("without leases: %v", err)
	}
	seen := map[int]bool{}
	for range 30 { // of 256; one in seven would be another's by chance
		d, err := begin(true)
		if err != nil {
			t.Fatal(err)
		}
		if seen[d.number.n] {
			t.Errorf("number %d is in use", d.number.n)
		}
		seen[d.number.n] = true
		if err := d.number.stands(); err != nil {
			t.Error(err)
		}
	}
}

// A process that does not get to the store mints until its span is over, as long
// as its lease lasts, and goes on when it is back. The next one begins behind it
// at once if the time has come, which it has when a lease ran out.
func TestSpanEnds(t *testing.T) {
	store := newStore(t)
	now := time.Date(2026, 11, 11, 20, 0, 0, 0, time.UTC)
	clock := func() time.Time { return now }
	leases := lease.NewLocal(clock)
	begin := func(holder string) (*number, *id.Source) {
		t.Helper()
		k := &number{n: 7, kept: lease.NewKeeper(leases, "id/7", holder, numberTTL, clock)}
		ids := id.NewMarkingSource(k.n, clock)
		if _, err := k.kept.Step(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := k.mint(t.Context(), ids, store); err != nil {
			t.Fatal(err)
		}
		return k, ids
	}
	mints := func(ids *id.Source, want error) {
		t.Helper()
		n, err := ids.Mint("ann")
		if !errors.Is(err, want) {
			t.Errorf("after %s: %v, want %v", now.Format(time.TimeOnly), err, want)
		}
		if ahead := id.Time(n).Sub(now); err == nil && (ahead < 0 || ahead > time.Millisecond) {
			t.Errorf("an id is %s ahead", ahead)
		}
	}
	k, ids := begin("first")
	now = now.Add(numberTTL - time.Millisecond)
	mints(ids, nil)
	now = now.Add(time.Millisecond)
	mints(ids, id.ErrAhead)
	if _, err := k.Step(t.Context()); err != nil {
		t.Fatal(err)
	}
	mints(ids, nil)

	now = now.Add(numberTTL) // and the first is gone
	_, next := begin("next")
	now = now.Add(time.Millisecond)
	mints(next, nil)
	mints(ids, id.ErrAhead)
}
