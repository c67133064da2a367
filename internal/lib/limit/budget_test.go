package limit

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// hour is where virtual time begins.
var hour = time.Unix(3600, 0)

// world is a virtual clock and a pool behind a network that fails.
type world struct {
	at      time.Time
	pool    *LocalPool
	next    fault
	stall   time.Duration // of a call that stalls: before it is done, and again before the answer
	calls   int
	granted int64 // permits; a repeated answer is not a second grant
}

type fault int

const (
	fine     fault = iota
	fails          // the call does not arrive
	loses          // it does, the answer does not
	stalls         // both are slow
	restarts       // the pool answers, then loses its memory
	faults         // how many there are
)

var errFault = errors.New("planned fault")

func newWorld(r Rate, validity time.Duration) *world {
	w := &world{at: hour}
	w.pool = must(NewLocalPool(r, validity, w.now))
	return w
}

func (w *world) now() time.Time       { return w.at }
func (w *world) ns() int64            { return w.at.UnixNano() }
func (w *world) pass(d time.Duration) { w.at = w.at.Add(d) }

// meet does a call with the next fault.
func (w *world) meet(call func() error) error {
	f := w.next
	w.next, w.calls = fine, w.calls+1
	if f == fails {
		return errFault
	}
	if f == stalls {
		w.pass(w.stall)
	}
	err := call()
	switch f {
	case loses:
		return errFault
	case stalls:
		w.pass(w.stall)
	case restarts:
		w.pool = must(NewLocalPool(w.pool.plan.rate, w.pool.validity, w.now))
	}
	return err
}

func (w *world) Grant(ctx context.Context, id string, want int64) (l Lease, err error) {
	err = w.meet(func() (err error) {
		g := w.pool.leases[id]
		if l, err = w.pool.Grant(ctx, id, want); g == nil || g.until <= w.ns() {
			w.granted += l.Permits
		}
		return err
	})
	if err != nil {
		return Lease{}, err
	}
	return l, nil
}

func (w *world) Return(ctx context.Context, id string, unspent int64) error {
	return w.meet(func() error { return w.pool.Return(ctx, id, unspent) })
}

func options(holder string, lease, low int64) BudgetOptions {
	return BudgetOptions{Holder: holder, Lease: lease, Low: low, Every: 10 * time.Millisecond, Timeout: time.Minute}
}

func (w *world) budget(holder string, lease, low int64) *Budget {
	return must(NewBudget(w, options(holder, lease, low), w.now))
}

// newTestBudget holds a lease that a test will not use up.
func newTestBudget(t testing.TB, lease int64) *Budget {
	t.Helper()
	w := newWorld(Rate{Algorithm: TokenBucket, Limit: MaxLimit, Per: time.Second}, time.Hour)
	w.at = time.Unix(0, 0)
	b := w.budget("p", lease, 0)
	step(t, b, true)
	return b
}

func step(t testing.TB, b *Budget, want bool) {
	t.Helper()
	if worked, err := b.Step(t.Context()); err != nil || worked != want {
		t.Fatalf("step: %v, %v; want %v", worked, err, want)
	}
}

func bucketOf(limit int64, per time.Duration, burst int64) Rate {
	return Rate{Algorithm: TokenBucket, Limit: limit, Per: per, Burst: burst}
}

func TestBudgetOptions(t *testing.T) {
	f := func(o BudgetOptions, want ...string) {
		t.Helper()
		_, err := NewBudget(nil, o, time.Now)
		if (err == nil) != (len(want) == 0) || err != nil && !errors.Is(err, ErrBudget) {
			t.Fatalf("%+v: %v", o, err)
		}
		for _, w := range want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%q does not speak of %q", err, w)
			}
		}
	}
	f(options("p", 1, 0))
	f(options(strings.Repeat("p", 100), MaxLimit, MaxLimit-1))
	f(BudgetOptions{}, "holder", "lease 0", "every", "timeout")
	f(options("p", 5, 5), "low 5")
	f(BudgetOptions{Holder: "p", Lease: 5, Advance: 6, Every: 1, Timeout: 1}, "advance 6")
	f(options("p", MaxLimit+1, -1), "lease", "low -1")
	for _, a := range []Algorithm{FixedWindow, SlidingWindow, LeakyBucket} {
		if _, err := NewLocalPool(Rate{Algorithm: a, Limit: 1, Per: time.Second}, time.Second, time.Now); !errors.Is(err, ErrRate) {
			t.Errorf("a pool of %s: %v", a, err)
		}
	}
	if _, err := NewLocalPool(bucketOf(1, time.Second, 1), 0, time.Now); !errors.Is(err, ErrPool) {
		t.Errorf("leases valid for nothing: %v", err)
	}
}

// TestAdvance: who comes before the first answer is served, and the first leases
// pay for it.
func TestAdvance(t *testing.T) {
	w := newWorld(bucketOf(1, time.Hour, 25), time.Minute)
	o := options("p", 10, 0)
	o.Advance = 8
	b := must(NewBudget(w, o, w.now))
	if d := b.Take(6, w.ns()); !d.Allowed || d.Remaining != 2 || d.Reset != 0 {
		t.Errorf("%+v", d)
	}
	w.next = fails
	if _, err := b.Step(t.Context()); !errors.Is(err, errFault) || !b.Take(1, w.ns()).Allowed {
		t.Errorf("%v; the advance lasts until the pool answers", err)
	}
	step(t, b, true)
	if d := b.Take(3, w.ns()); !d.Allowed || d.Remaining != 0 { // 10 granted, 7 owed; what was not spent is no more
		t.Errorf("%+v", d)
	}
	step(t, b, true)
	if d := b.Take(10, w.ns()); !d.Allowed || w.granted != 20 {
		t.Errorf("%+v, granted %d", d, w.granted)
	}
	// A lease smaller than what is owed pays a part.
	o.Holder = "q"
	q := must(NewBudget(w, o, w.now))
	if !q.Take(8, w.ns()).Allowed {
		t.Fatal("no advance")
	}
	step(t, q, true) // the 5 that are left
	if q.owed != 3 || q.Take(1, w.ns()).Allowed {
		t.Errorf("owes %d", q.owed)
	}
	w.pass(5 * time.Hour)
	step(t, q, true)
	if d := q.Take(2, w.ns()); !d.Allowed || q.owed != 0 || w.granted != 30 {
		t.Errorf("%+v, owes %d, granted %d", d, q.owed, w.granted)
	}
}

func TestRefusalsCostNoCall(t *testing.T) {
	w := newWorld(bucketOf(10, time.Hour, 10), time.Minute)
	b := w.budget("p", 10, 0)
	if d := b.Take(1, w.ns()); d.Allowed || d.RetryAfter != 10*time.Millisecond {
		t.Errorf("before the first step: %+v", d)
	}
	step(t, b, true)
	for i := range int64(10) {
		if d := b.Take(1, w.ns()); !d.Allowed || d.Remaining != 9-i {
			t.Errorf("%+v", d)
		}
	}
	step(t, b, true) // asks, and hears that there is nothing for so long
	calls := w.calls
	for range 10_000 {
		if d := b.Take(1, w.ns()); d.Allowed || d.RetryAfter != 18*time.Minute { // 3 permits, at 10 an hour
			t.Fatalf("%+v", d)
		}
		step(t, b, false)
	}
	if w.calls != calls {
		t.Errorf("10,000 refusals made %d calls", w.calls-calls)
	}
	if d := b.Take(11, w.ns()); d.RetryAfter != Never {
		t.Errorf("more than a lease: %+v", d)
	}
}

// TestOvershootIsReached: the stated bound is not loose. Processes that have
// drawn all they may and then spend at once, pass the plain limit by P × 2 L - P.
func TestOvershootIsReached(t *testing.T) {
	const processes, lease, burst = 4, 10, 100
	w := newWorld(bucketOf(100, time.Second, burst), time.Minute)
	var all [processes]*Budget
	for i := range all {
		all[i] = w.budget(fmt.Sprint(i), lease, lease-1)
		step(t, all[i], true)
		all[i].Take(1, w.ns())
		step(t, all[i], true) // low already: the second lease
	}
	w.pass(time.Second) // the bucket is full again
	spent := int64(0)
	for i := range all {
		for all[i].Take(1, w.ns()).Allowed {
			spent++
		}
	}
	late := w.budget("late", burst, 0)
	if step(t, late, true); !late.Take(burst, w.ns()).Allowed {
		t.Fatal("the bucket is not full")
	}
	spent += burst
	if want := int64(burst + processes*(2*lease-1)); spent != want {
		t.Errorf("%d at one instant, want %d", spent, want)
	}
}

// TestLostAnswer: an answer that is lost is asked for again, by the same id.
// With an id of its own for each attempt, the pool would run dry.
func TestLostAnswer(t *testing.T) {
	w := newWorld(bucketOf(1, time.Hour, 100), time.Minute)
	b := w.budget("p", 10, 0)
	for range 5 {
		w.next = loses
		if _, err := b.Step(t.Context()); !errors.Is(err, errFault) {
			t.Fatal(err)
		}
	}
	step(t, b, true)
	if d := b.Take(10, w.ns()); !d.Allowed || w.granted != 10 {
		t.Errorf("%+v; the pool granted %d", d, w.granted)
	}
	for i := range 5 { // the guard off
		w.next = loses
		if _, err := w.Grant(t.Context(), fmt.Sprint("fresh", i), 10); !errors.Is(err, errFault) {
			t.Fatal(err)
		}
	}
	if w.granted != 60 {
		t.Errorf("with fresh ids, %d granted: the test shows nothing", w.granted-10)
	}
}

// TestSlowAnswer: a lease ends here no later than at the pool, however long
// its answer took.
func TestSlowAnswer(t *testing.T) {
	w := newWorld(bucketOf(1, time.Hour, 100), time.Minute)
	b := w.budget("p", 10, 0)
	w.next, w.stall = stalls, 25*time.Second // granted at 25 s, to run out at 85; heard at 50
	step(t, b, true)
	if d := b.Take(1, w.ns()); !d.Allowed || d.Reset != 10*time.Second {
		t.Errorf("%+v", d)
	}
	w.pass(10 * time.Second)
	if d := b.Take(1, w.ns()); d.Allowed {
		t.Errorf("spent beyond its end: %+v", d)
	}
	step(t, b, true) // a new one, heard too late to be of use
	if w.next = stalls; !b.Take(10, w.ns()).Allowed {
		t.Error("no new lease")
	}
	w.stall = 40 * time.Second
	step(t, b, true)
	if d := b.Take(1, w.ns()); d.Allowed {
		t.Errorf("spent what was over when it was heard: %+v", d)
	}
}

// TestBudgetClockGoesBack: a lease that was over stays over.
func TestBudgetClockGoesBack(t *testing.T) {
	w := newWorld(bucketOf(1, time.Hour, 100), time.Minute)
	b := w.budget("p", 10, 0)
	step(t, b, true)
	end := w.ns() + int64(time.Minute)
	if !b.Take(1, end-1).Allowed || b.Take(1, end).Allowed || b.Take(1, end-1).Allowed {
		t.Error("a lease ends at another time than it should, or begins again")
	}
}

// TestFirstLeaseOver: of two leases the first ends between steps, and what it
// still had ends with it.
func TestFirstLeaseOver(t *testing.T) {
	w := newWorld(bucketOf(1, time.Hour, 100), time.Minute)
	b := w.budget("p", 10, 0)
	step(t, b, true)
	w.pass(45 * time.Second)
	step(t, b, true)
	w.pass(15 * time.Second)
	spent := 0
	for b.Take(1, w.ns()).Allowed {
		spent++
	}
	if spent != 10 {
		t.Errorf("spent %d of 10 that are valid", spent)
	}
}

// TestStopReturnsAll: also a lease that was granted and not heard of.
func TestStopReturnsAll(t *testing.T) {
	w := newWorld(bucketOf(1, time.Hour, 30), time.Minute)
	b := w.budget("p", 10, 8)
	step(t, b, true)
	b.Take(2, w.ns())
	step(t, b, true)
	b.Take(10, w.ns())
	w.next = loses
	if _, err := b.Step(t.Context()); !errors.Is(err, errFault) || w.granted != 30 {
		t.Fatalf("%v, %d granted", err, w.granted)
	}
	if err := b.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if l, err := w.pool.Grant(t.Context(), "all", 30); err != nil || l.Permits != 18 {
		t.Errorf("%+v, %v: 12 of 30 were spent", l, err)
	}
	w.next = fails
	if _, err := b.Step(t.Context()); !errors.Is(err, errFault) {
		t.Errorf("it may go on after a Stop: %v", err)
	}
}

// TestIdleReturns: what a process does not use goes back, again and again, and
// others can have it.
func TestIdleReturns(t *testing.T) {
	w := newWorld(bucketOf(1, time.Hour, 30), time.Minute)
	b := w.budget("idle", 10, 2)
	for range 100 * 60 {
		if _, err := b.Step(t.Context()); err != nil {
			t.Fatal(err)
		}
		if d := b.Take(21, w.ns()); d.Remaining < 10 { // more than it can hold: only looks
			t.Fatalf("a pause in its supply: %+v", d)
		}
		w.pass(time.Second)
	}
	// 100 minutes are worth one permit; nothing was lost on the way.
	if err := b.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if b.Take(1, w.ns()).Allowed {
		t.Error("spends after Stop")
	}
	if l, err := w.pool.Grant(t.Context(), "all", 30); err != nil || l.Permits != 30 {
		t.Errorf("%+v, %v", l, err)
	}
}

// TestPoolAway: leases are spent to their end, then everything is refused, and
// the silence can be seen; when the pool is back, so is the budget.
func TestPoolAway(t *testing.T) {
	w := newWorld(bucketOf(1000, time.Second, 100), time.Minute)
	b := w.budget("p", 10, 5)
	step(t, b, true)
	for i := range 10 {
		w.next = fails
		if _, err := b.Step(t.Context()); i >= 5 && !errors.Is(err, errFault) {
			t.Fatalf("%d: %v", i, err)
		}
		w.next = fine
		if !b.Take(1, w.ns()).Allowed {
			t.Fatalf("%d: what is held cannot be spent", i)
		}
		w.pass(time.Second)
	}
	if d := b.Take(1, w.ns()); d.Allowed || b.Silence(w.ns()) != 10*time.Second {
		t.Errorf("%+v, silent for %s", d, b.Silence(w.ns()))
	}
	step(t, b, true)
	if d := b.Take(1, w.ns()); !d.Allowed || b.Silence(w.ns()) != 0 {
		t.Errorf("%+v, silent for %s", d, b.Silence(w.ns()))
	}
}

// TestWeightedRequestsAreNotStuck: two remainders that are too small for a
// request do not hold the places of a lease that is large enough.
func TestWeightedRequestsAreNotStuck(t *testing.T) {
	w := newWorld(bucketOf(100, time.Second, 14), time.Hour)
	b, other := w.budget("p", 10, 4), w.budget("other", 11, 0)
	step(t, other, true) // leaves 3
	step(t, b, true)
	step(t, b, false)
	for range 50 {
		if b.Take(9, w.ns()).Allowed {
			return
		}
		if _, err := b.Step(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.pass(10 * time.Millisecond)
	}
	t.Error("never allowed")
}

func TestResize(t *testing.T) {
	w := newWorld(bucketOf(1000, time.Second, 1000), time.Minute)
	b := w.budget("p", 10, 5)
	step(t, b, true)
	if err := b.Resize(50, 50); !errors.Is(err, ErrBudget) {
		t.Error(err)
	}
	if err := b.Resize(50, 20); err != nil {
		t.Fatal(err)
	}
	step(t, b, true)
	if d := b.Take(45, w.ns()); !d.Allowed || d.Remaining != 15 {
		t.Errorf("%+v", d)
	}
}

// TestGroupWithBudget: a budget in a group is charged with the others or not at all.
func TestGroupWithBudget(t *testing.T) {
	b, l := newTestBudget(t, 5), newFixed(3, 1)
	asks := []Ask{{Budget: b, N: 1}, {Limiter: l, N: 1}}
	for range 3 {
		if v := All(asks, 0); !v.Allowed {
			t.Fatalf("%+v", v)
		}
	}
	if v := All(asks, 0); v.Allowed || v.Refused != 1 || b.Take(6, 0).Remaining != 2 {
		t.Errorf("%+v, the budget has %d", v, b.Take(6, 0).Remaining)
	}
}

// TestRacedBudget: many spend while one draws. What is spent and what is left
// is what was granted.
func TestRacedBudget(t *testing.T) {
	w := newWorld(bucketOf(1, time.Hour, 5000), time.Hour)
	b, gate := w.budget("p", 100, 60), newFixed(4000, 1)
	now, stop := w.ns(), make(chan struct{})
	step(t, b, true) // or the spenders may be done before the first draw
	var spent atomic.Int64
	var spenders, drawer sync.WaitGroup
	for range 4 {
		spenders.Go(func() {
			for range 2000 {
				if b.Take(1, now).Allowed {
					spent.Add(1)
				}
				if asks := [2]Ask{{Budget: b, N: 2}, {Limiter: gate, N: 1}}; All(asks[:], now).Allowed {
					spent.Add(2)
				}
			}
		})
	}
	drawer.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				if _, err := b.Step(t.Context()); err != nil {
					t.Error(err)
				}
			}
		}
	})
	spenders.Wait()
	close(stop)
	drawer.Wait()
	rest := b.purse[0] + b.purse[1]
	if err := b.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	back := must(w.pool.Grant(t.Context(), "rest", 5000)).Permits
	if got := spent.Load(); got == 0 || got+back != 5000 {
		t.Errorf("spent %d, held %d, and %d of 5000 are left", got, rest, back)
	}
}

// TestBudgetModel runs P processes against a pool that fails, stalls, loses
// answers and its memory, and checks the promises over every interval.
func TestBudgetModel(t *testing.T) {
	var fired [faults]int
	spentByAll := int64(0)
	rapid.Check(t, func(t *rapid.T) {
		r := bucketOf(rapid.Int64Range(1, 50).Draw(t, "limit"), time.Second, rapid.Int64Range(1, 100).Draw(t, "burst"))
		w := newWorld(r, rapid.SampledFrom([]time.Duration{50 * time.Millisecond, time.Second, 10 * time.Second}).Draw(t, "validity"))
		lease := rapid.Int64Range(1, 20).Draw(t, "lease")
		low := rapid.Int64Range(0, lease-1).Draw(t, "low")
		advance := rapid.SampledFrom([]int64{0, 1, lease}).Draw(t, "advance")
		all := make([]*Budget, rapid.IntRange(1, 4).Draw(t, "processes"))
		for i := range all {
			o := options(fmt.Sprint("p", i), lease, low)
			o.Advance = advance
			all[i] = must(NewBudget(w, o, w.now))
		}
		unpaid := func() (n int64) {
			for _, b := range all {
				n += b.owed
				if b.held[0].id == "" && b.held[0].until > 0 {
					n += advance - b.purse[0]
				}
			}
			return n
		}
		// level is how far spending is ahead of Limit × x/Per at its worst, in
		// permits × Per: of all intervals that end now, the worst one.
		level, last, spent, restarted := int64(0), w.ns(), int64(0), int64(0)
		for range rapid.IntRange(1, 200).Draw(t, "actions") {
			w.pass(rapid.SampledFrom([]time.Duration{0, 0, time.Millisecond, 20 * time.Millisecond, 300 * time.Millisecond, 5 * time.Second}).Draw(t, "pass"))
			b := rapid.SampledFrom(all).Draw(t, "process")
			if rapid.Bool().Draw(t, "step") {
				w.next = fault(rapid.IntRange(0, int(faults)*2).Draw(t, "fault"))
				if w.next >= faults {
					w.next = fine
				}
				w.stall = rapid.SampledFrom([]time.Duration{time.Millisecond, 40 * time.Millisecond, time.Second}).Draw(t, "stall")
				f, calls := w.next, w.calls
				_, err := b.Step(t.Context())
				if w.next = fine; w.calls > calls {
					fired[f]++
					if f == restarts {
						restarted++
					}
				}
				if err != nil && !errors.Is(err, errFault) {
					t.Fatal(err)
				}
				continue
			}
			n := rapid.Int64Range(1, lease).Draw(t, "n")
			for range rapid.IntRange(1, 30).Draw(t, "spend") {
				if !b.Take(n, w.ns()).Allowed {
					break
				}
				level = max(level-(w.ns()-last)*r.Limit, 0) + n*int64(r.Per)
				last, spent = w.ns(), spent+n
				if most := r.capacity() + restarted*r.capacity() + int64(len(all))*(2*lease+advance); level > most*int64(r.Per) {
					t.Fatalf("%s, %d processes, leases of %d, advance %d: %d ahead of the rate, at most %d",
						r, len(all), lease, advance, level/int64(r.Per), most)
				}
				if spent > w.granted+unpaid() {
					t.Fatalf("spent %d of %d granted and %d advanced", spent, w.granted, unpaid())
				}
			}
		}
		spentByAll += spent
	})
	for f, n := range fired {
		if n == 0 {
			t.Errorf("fault %d never fired", f)
		}
	}
	if spentByAll == 0 {
		t.Error("nothing was ever spent")
	}
}

// TestBudgetsServeTheLimit: under more demand than the limit, all processes
// together spend nearly all of it, also when one takes most and some are idle.
func TestBudgetsServeTheLimit(t *testing.T) {
	w := newWorld(bucketOf(1000, time.Second, 1000), time.Second)
	var all [5]*Budget
	for i := range all {
		all[i] = w.budget(fmt.Sprint("p", i), 50, 25)
	}
	spent := 0
	const seconds = 20
	for tick := range seconds * 100 { // every 10 ms
		for i, b := range all {
			if _, err := b.Step(t.Context()); err != nil {
				t.Fatal(err)
			}
			for range []int{40, 5, 5, 0, 0}[(i+tick/500)%5] { // 5,000 a second, and the crowd moves
				if b.Take(1, w.ns()).Allowed {
					spent++
				}
			}
		}
		w.pass(10 * time.Millisecond)
	}
	t.Logf("%d of %d + 1000", spent, seconds*1000)
	if spent < seconds*950 || spent > (seconds+1)*1000 {
		t.Errorf("spent %d of %d", spent, seconds*1000)
	}
}
