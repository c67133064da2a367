package call_test

import (
	"container/heap"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"sluice/internal/lib/call"
)

// The classes of a shop, as its gate would name them.
const (
	paying call.Class = iota
	buying
	browsing
)

var shares = []float64{1, 0.9, 0.6}

// server is a queueing model in virtual time: workers that each serve one piece
// of work at a time, one queue in front of them, and people who arrive whether
// or not those before them were served (an open loop, as a flood is) and who
// stop caring about an answer after their patience.
type server struct {
	random   *rand.Rand
	workers  int
	patience time.Duration
	// takes is the mean time of work by class; it varies exponentially.
	takes func(now time.Duration, c call.Class) time.Duration
	// thrash makes all work slower by this share for each queue as long as
	// workers is: memory, locks and caches have limits too.
	thrash float64
	// limit is nil for the server that admits everybody.
	limit *call.Adaptive

	now    time.Duration
	events events
	queue  []*job
	inside int // waiting or being served
	busy   int
	tally  map[call.Class]*tally
	watch  func()
}

type job struct {
	class   call.Class
	came    time.Duration
	permit  call.Permit
	arrival bool // an event: somebody comes; otherwise: served
	rate    float64
	until   time.Duration
}

// tally is of what arrived after the warm-up.
type tally struct {
	offered, refused, good int
	took                   []time.Duration
}

func (t tally) p99() time.Duration {
	if len(t.took) == 0 {
		return 0
	}
	slices.Sort(t.took)
	return t.took[len(t.took)*99/100]
}

func newServer(limit *call.Adaptive) *server {
	return &server{
		random: rand.New(rand.NewPCG(1, 2)), workers: 16, patience: 300 * time.Millisecond, limit: limit,
		takes: func(time.Duration, call.Class) time.Duration { return 10 * time.Millisecond },
		tally: map[call.Class]*tally{paying: {}, buying: {}, browsing: {}},
	}
}

// capacity of the server above: 16 workers at 10 ms each, a second.
const capacity = 1600

// offer lets people of a class arrive at random, so many a second.
func (s *server) offer(c call.Class, from, until time.Duration, rate float64) {
	s.at(from, &job{class: c, arrival: true, rate: rate, until: until})
}

func (s *server) at(t time.Duration, j *job) { heap.Push(&s.events, event{t, j}) }

// run lets time pass. Who arrived before warm is not counted.
func (s *server) run(warm, until time.Duration) {
	for s.events.Len() > 0 && s.events[0].at < until {
		e := heap.Pop(&s.events).(event)
		s.now = e.at
		if e.job.arrival {
			s.arrive(e.job, warm)
		} else {
			s.served(e.job, warm)
		}
		if s.watch != nil {
			s.watch()
		}
	}
}

var epoch = time.Unix(1_790_000_000, 0)

func (s *server) clock() time.Time { return epoch.Add(s.now) }

func (s *server) arrive(j *job, warm time.Duration) {
	next := s.now + time.Duration(s.random.ExpFloat64()/j.rate*float64(time.Second))
	if next < j.until {
		s.at(next, j)
	}
	t, counts := s.tally[j.class], s.now >= warm
	if counts {
		t.offered++
	}
	work := &job{class: j.class, came: s.now}
	if s.limit != nil {
		var err error
		if work.permit, err = s.limit.Acquire(j.class, s.clock()); err != nil {
			if counts {
				t.refused++
			}
			return
		}
	}
	s.inside++
	s.queue = append(s.queue, work)
	s.serve()
}

func (s *server) serve() {
	for s.busy < s.workers && len(s.queue) > 0 {
		j := s.queue[0]
		s.queue = s.queue[1:]
		s.busy++
		mean := float64(s.takes(s.now, j.class)) * (1 + s.thrash*float64(max(0, s.inside-s.workers))/float64(s.workers))
		s.at(s.now+time.Duration(s.random.ExpFloat64()*mean), j)
	}
}

func (s *server) served(j *job, warm time.Duration) {
	s.busy--
	s.inside--
	j.permit.Release(s.clock(), call.Served)
	if took := s.now - j.came; j.came >= warm {
		t := s.tally[j.class]
		t.took = append(t.took, took)
		if took <= s.patience {
			t.good++
		}
	}
	s.serve()
}

type event struct {
	at  time.Duration
	job *job
}

type events []event

func (e events) Len() int           { return len(e) }
func (e events) Less(i, j int) bool { return e[i].at < e[j].at }
func (e events) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)        { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

func adaptive(t testing.TB, o call.AdaptiveOptions) *call.Adaptive {
	t.Helper()
	if o.Random == nil {
		o.Random = rand.New(rand.NewPCG(3, 4)).Float64
	}
	a, err := call.NewAdaptive(o)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestGoodputUnderFlood offers twenty times what the server can do. Without the
// limit everybody is let in and nobody is served in time; with it, nine tenths of
// the best rate there is are served, from the first second of the flood.
func TestGoodputUnderFlood(t *testing.T) {
	const length = 10 * time.Second
	// goodput at a load, as a share of capacity.
	goodput := func(load, thrash float64, limit *call.Adaptive) float64 {
		s := newServer(limit)
		s.thrash = thrash
		s.offer(browsing, 0, length, load*capacity)
		s.run(0, length)
		return float64(s.tally[browsing].good) / length.Seconds() / capacity
	}
	f := func(name string, thrash float64) {
		t.Helper()
		peak := 0.0
		for _, load := range []float64{0.5, 0.7, 0.8, 0.9, 0.95, 1} {
			peak = max(peak, goodput(load, thrash, nil))
		}
		for _, load := range []float64{1.5, 5, 20} {
			without := goodput(load, thrash, nil)
			with := goodput(load, thrash, adaptive(t, call.AdaptiveOptions{Shares: shares}))
			t.Logf("%-8s load %4.1f × capacity: goodput %.2f of peak with the limit, %.2f without (peak %.2f)", name, load, with/peak, without/peak, peak)
			if with < 0.9*peak {
				t.Errorf("%s: at %v × capacity goodput is %.2f of the peak %.2f, want 0.9", name, load, with/peak, peak)
			}
			if load == 20 && without > 0.2*peak {
				t.Errorf("%s: without the limit goodput is %.2f: this test could not fail", name, without)
			}
		}
	}
	f("plain", 0)
	f("thrashes", 0.05)
}

// TestPayingUnharmed floods the server with browsing at twenty times its
// capacity beside people who buy and pay.
func TestPayingUnharmed(t *testing.T) {
	const warm, length = time.Second, 10 * time.Second // the flood comes at 1 s
	load := func(shares []float64) *server {
		s := newServer(adaptive(t, call.AdaptiveOptions{Shares: shares, ProbeEvery: 2 * time.Second}))
		s.offer(paying, 0, length, 0.2*capacity)
		s.offer(buying, 0, length, 0.3*capacity)
		s.offer(browsing, warm, length, 20*capacity)
		s.run(warm, length)
		for c, name := range []string{"paying", "buying", "browsing"} {
			x := s.tally[call.Class(c)]
			t.Logf("shares %v, %-8s offered %6d, refused %6d, good %5d, p99 %v", shares, name, x.offered, x.refused, x.good, x.p99().Round(time.Millisecond))
		}
		return s
	}
	s := load(shares)
	f := func(c call.Class, least float64) {
		t.Helper()
		if x := s.tally[c]; float64(x.good) < least*float64(x.offered) {
			t.Errorf("class %d: %d of %d were served in time, want %v", c, x.good, x.offered, least)
		}
	}
	f(paying, 0.995)
	f(buying, 0.97)
	// What they leave is not wasted.
	total := s.tally[paying].good + s.tally[buying].good + s.tally[browsing].good
	if rate := float64(total) / (length - warm).Seconds(); rate < 0.9*capacity {
		t.Errorf("%.0f a second were served, capacity is %d", rate, capacity)
	}
	if x := load([]float64{1, 1, 1}).tally[paying]; float64(x.good) > 0.5*float64(x.offered) {
		t.Errorf("with equal shares %d of %d who pay were served: this test could not fail", x.good, x.offered)
	}
}

// TestUnqueuedTimeDoesNotDrift floods a server for five minutes. A limiter that
// compares with an average of what it sees comes to take its own queue for normal.
func TestUnqueuedTimeDoesNotDrift(t *testing.T) {
	limit := adaptive(t, call.AdaptiveOptions{})
	s := newServer(limit)
	const length = 5 * time.Minute
	s.offer(paying, 0, length, 2*capacity)
	highest := 0
	s.watch = func() { highest = max(highest, limit.Status().Limit) }
	s.run(length/2, length)
	st := limit.Status()
	if u := st.Classes[0].Unqueued; u < 7*time.Millisecond || u > 15*time.Millisecond {
		t.Errorf("unqueued time is taken to be %v, it is 10 ms", u)
	}
	if highest > 3*16 || s.tally[paying].p99() > 100*time.Millisecond {
		t.Errorf("the limit rose to %d before 16 workers, p99 %v", highest, s.tally[paying].p99())
	}
	if rate := float64(s.tally[paying].good) / (length / 2).Seconds(); rate < 0.95*capacity {
		t.Errorf("%.0f a second were served, capacity is %d", rate, capacity)
	}
}

// TestUnusedLimitDoesNotGrow leaves a server with little to do, and then with
// nothing for an hour.
func TestUnusedLimitDoesNotGrow(t *testing.T) {
	limit := adaptive(t, call.AdaptiveOptions{Initial: 30})
	s := newServer(limit)
	highest := 0
	s.watch = func() { highest = max(highest, limit.Status().Limit) }
	s.offer(paying, 0, time.Minute, 0.2*capacity)
	s.offer(paying, time.Hour, time.Hour+time.Minute, 0.01*capacity)
	s.run(0, 2*time.Hour)
	if highest != 30 || limit.Status().Limit != 30 {
		t.Errorf("the limit went from 30 to %d and at most %d", limit.Status().Limit, highest)
	}
}

// TestQueueFarBelowTheLimit works a server just so hard that work waits for it, and
// far fewer are in flight than a high first limit admits: what that takes must not
// be learned as what work takes, or the flood that follows finds a queue no longer
// than usual.
func TestQueueFarBelowTheLimit(t *testing.T) {
	limit := adaptive(t, call.AdaptiveOptions{Initial: 256, Min: 16, Tolerance: 2})
	s := newServer(limit)
	s.offer(paying, 0, 5*time.Second, 0.2*capacity)
	s.offer(paying, 5*time.Second, time.Minute, capacity)
	s.offer(paying, time.Minute, 2*time.Minute, 3*capacity)
	s.run(70*time.Second, 2*time.Minute)
	if u := limit.Status().Classes[0].Unqueued; u > 15*time.Millisecond {
		t.Errorf("unqueued time is taken to be %v, it is 10 ms", u)
	}
	if p99 := s.tally[paying].p99(); p99 > 100*time.Millisecond {
		t.Errorf("p99 %v under a limit of %d, before 16 workers", p99, limit.Status().Limit)
	}
}

// TestSlowerAndFasterAgain makes all work take four times as long for a while,
// as when a database is sick. The limit must neither sink to its minimum nor stay
// there.
func TestSlowerAndFasterAgain(t *testing.T) {
	s := newServer(adaptive(t, call.AdaptiveOptions{}))
	s.takes = func(now time.Duration, _ call.Class) time.Duration {
		if now >= 20*time.Second && now < 80*time.Second {
			return 40 * time.Millisecond
		}
		return 10 * time.Millisecond
	}
	s.offer(paying, 0, 2*time.Minute, 3*capacity)
	f := func(name string, from, until time.Duration, best float64) {
		t.Helper()
		s.run(from, from) // up to here
		before := s.tally[paying].good
		s.run(from, until)
		if rate := float64(s.tally[paying].good-before) / (until - from).Seconds(); rate < 0.9*best {
			t.Errorf("%s: %.0f a second were served in time, capacity is %.0f", name, rate, best)
		}
	}
	f("healthy", 10*time.Second, 20*time.Second, capacity)
	f("slow", 25*time.Second, 80*time.Second, capacity/4)
	s.run(85*time.Second, 85*time.Second)
	s.tally[paying].took = nil
	f("healthy again", 85*time.Second, 95*time.Second, capacity)
	// Who came then waits behind the queue of now, and not behind that of the slow
	// minute.
	if p99 := s.tally[paying].p99(); p99 > 75*time.Millisecond {
		t.Errorf("p99 is %v after it is healthy again", p99)
	}
	f("for long", 95*time.Second, 2*time.Minute, capacity)
}

// TestSlowWork floods, from the first moment, a server whose work takes half a
// second. The first results to arrive are those of the shortest work.
func TestSlowWork(t *testing.T) {
	const length = 30 * time.Second
	s := newServer(adaptive(t, call.AdaptiveOptions{Initial: 500}))
	s.workers, s.patience = 400, 3*time.Second
	s.takes = func(time.Duration, call.Class) time.Duration { return 500 * time.Millisecond }
	s.watch = func() {
		if u := s.limit.Status().Classes[0].Unqueued; u != 0 && (u < 300*time.Millisecond || u > 900*time.Millisecond) {
			t.Fatalf("after %v unqueued work is taken to last %v, it lasts 500 ms", s.now, u)
		}
	}
	s.offer(paying, 0, length, 20*800)
	s.run(0, length)
	if rate := float64(s.tally[paying].good) / length.Seconds(); rate < 0.9*800 {
		t.Errorf("%.0f a second were served in time, capacity is 800", rate)
	}
}

// TestFirstLimitTooHigh floods a server whose limit is sixty times what it can
// use, so that even a probe at half of it measures a queue.
func TestFirstLimitTooHigh(t *testing.T) {
	s := newServer(adaptive(t, call.AdaptiveOptions{Initial: 1000}))
	s.offer(paying, 0, 20*time.Second, 20*capacity)
	s.run(10*time.Second, 20*time.Second)
	if p99 := s.tally[paying].p99(); p99 > 75*time.Millisecond {
		t.Errorf("p99 is %v after ten seconds, limit %d", p99, s.limit.Status().Limit)
	}
}

// TestNewClass lets a class come in a flood, alone, of which nothing is known.
func TestNewClass(t *testing.T) {
	s := newServer(adaptive(t, call.AdaptiveOptions{Shares: shares, Initial: 400}))
	s.offer(paying, 0, 10*time.Second, 200)
	s.offer(browsing, 10*time.Second, 20*time.Second, 20*capacity)
	s.run(13*time.Second, 20*time.Second)
	if p99 := s.tally[browsing].p99(); p99 > 100*time.Millisecond {
		t.Errorf("p99 is %v, limit %d", p99, s.limit.Status().Limit)
	}
}

// TestMixOfClasses replaces quick work by work that takes ten times as long: no
// queue, no overload, and so no reason to refuse anybody.
func TestMixOfClasses(t *testing.T) {
	s := newServer(adaptive(t, call.AdaptiveOptions{Shares: shares, Initial: 60}))
	s.workers = 60
	s.takes = func(_ time.Duration, c call.Class) time.Duration {
		return [...]time.Duration{50 * time.Millisecond, 20 * time.Millisecond, 5 * time.Millisecond}[c]
	}
	const length = time.Minute
	s.offer(browsing, 0, length, 4500) // 22 workers
	s.offer(paying, 0, length, 20)
	s.offer(browsing, length, 2*length, 100)
	s.offer(paying, length, 2*length, 600) // 30 workers
	s.run(time.Second, 2*length)
	for _, c := range []call.Class{paying, browsing} {
		if x := s.tally[c]; x.refused > x.offered/1000 {
			t.Errorf("class %d: %d of %d refused with room for all", c, x.refused, x.offered)
		}
	}
}
