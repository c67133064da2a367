package call

import (
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestTrialsWithoutGuard shows what the guard of Breaker.Enter is for: with the
// question and the taking apart, as for somebody who reads the state and then
// calls, each under the lock, everybody gets through.
func TestTrialsWithoutGuard(t *testing.T) {
	o, err := BreakerOptions{MinCalls: 1}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1_790_000_000, 0)
	c := newCircuit(o)
	c.open(now, "for the test")
	now = now.Add(time.Hour)
	var (
		mu            sync.Mutex
		asked, called sync.WaitGroup
		passed        int
	)
	const callers = 100
	asked.Add(callers)
	for range callers {
		called.Go(func() {
			mu.Lock()
			ok := c.ready(now)
			mu.Unlock()
			asked.Done()
			asked.Wait() // the worst schedule is one of those that happen
			if ok {
				mu.Lock()
				defer mu.Unlock()
				c.take()
				passed++
			}
		})
	}
	called.Wait()
	if passed != callers {
		t.Errorf("%d of %d got through: the race is not shown", passed, callers)
	}
}

// TestCircuitModel runs random calls, some of which end much later, operators
// and time against a naive model, which keeps all results and counts them anew.
func TestCircuitModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o, err := BreakerOptions{
			Window:      time.Duration(rapid.IntRange(1, 20).Draw(t, "window")) * time.Second,
			MinCalls:    rapid.IntRange(1, 8).Draw(t, "min calls"),
			FailedShare: rapid.Float64Range(0.1, 1).Draw(t, "failed share"),
			Slow:        time.Duration(rapid.IntRange(0, 2).Draw(t, "slow")) * time.Second,
			SlowShare:   rapid.Float64Range(0.1, 1).Draw(t, "slow share"),
			OpenFor:     4 * time.Second, OpenMax: 30 * time.Second,
			Trials: rapid.IntRange(1, 4).Draw(t, "trials"),
			Random: func() float64 { return 0.5 },
		}.withDefaults()
		if err != nil {
			t.Fatal(err)
		}
		m := &circuitModel{o: o, now: time.Unix(1_790_000_000, 0)}
		var told []State
		o.Changed = func(c Change) { told = append(told, c.To) }
		c := newCircuit(o)
		type pending struct {
			began      time.Time
			generation uint64
			model      int
		}
		var under []pending
		t.Repeat(map[string]func(*rapid.T){
			"enter": func(t *rapid.T) {
				generation, ok := c.enter(m.now)
				era, want := m.enter()
				if ok != want {
					t.Fatalf("let through: %v, want %v", ok, want)
				}
				if ok {
					under = append(under, pending{m.now, generation, era})
				}
			},
			"calls": func(t *rapid.T) { // that end at once
				for range rapid.IntRange(1, 10).Draw(t, "n") {
					generation, ok := c.enter(m.now)
					era, want := m.enter()
					if ok != want {
						t.Fatalf("let through: %v, want %v", ok, want)
					}
					if v := rapid.SampledFrom([]Verdict{Answered, Answered, Answered, Failed}).Draw(t, "verdict"); ok {
						c.settle(m.now, generation, v, 0)
						m.settle(era, v, false)
					}
				}
			},
			"end": func(t *rapid.T) {
				if len(under) == 0 {
					t.Skip()
				}
				i := rapid.IntRange(0, len(under)-1).Draw(t, "which")
				p := under[i]
				under = append(under[:i], under[i+1:]...)
				v := rapid.SampledFrom([]Verdict{Answered, Answered, Failed, Ignored}).Draw(t, "verdict")
				took := m.now.Sub(p.began)
				c.settle(m.now, p.generation, v, took)
				m.settle(p.model, v, o.Slow > 0 && took > o.Slow)
			},
			"pass": func(t *rapid.T) {
				m.now = m.now.Add(time.Duration(rapid.IntRange(1, 8000).Draw(t, "ms")) * time.Millisecond)
			},
			"hold": func(t *rapid.T) {
				s := rapid.SampledFrom([]State{Open, Closed}).Draw(t, "state")
				c.hold(m.now, s)
				m.held = true
				m.to(s)
			},
			"auto": func(t *rapid.T) {
				c.auto(m.now)
				if m.held {
					m.held = false
					if m.state == Open {
						m.to(HalfOpen)
					}
				}
			},
			"": func(t *rapid.T) {
				if c.state != m.state || c.held != m.held {
					t.Fatalf("%v held %v, want %v held %v", c.state, c.held, m.state, m.held)
				}
				if c.state == HalfOpen && c.trials > o.Trials {
					t.Fatalf("%d trials of %d", c.trials, o.Trials)
				}
				for i := 1; i < len(told); i++ {
					if told[i] == told[i-1] {
						t.Fatalf("told of %v twice in a row", told[i])
					}
				}
			},
		})
	})
}

// circuitModel is a breaker by its description rather than for speed.
type circuitModel struct {
	o       BreakerOptions
	now     time.Time
	state   State
	held    bool
	era     int // raised with every change
	since   time.Time
	row     int // openings
	pause   time.Duration
	trials  int
	good    int
	results []modelResult // in the closed state
}

type modelResult struct {
	at           time.Time
	failed, slow bool
}

func (m *circuitModel) to(s State) {
	if s == Closed {
		m.results = nil
	}
	m.state, m.since = s, m.now
	m.era++
	m.trials, m.good = 0, 0
}

func (m *circuitModel) opens() {
	if m.state == Closed && m.now.Sub(m.since) >= m.o.Window {
		m.row = 0
	}
	full := min(m.o.OpenMax, m.o.OpenFor<<m.row)
	m.row++
	m.to(Open)
	m.pause = full * 3 / 4
}

func (m *circuitModel) enter() (era int, ok bool) {
	if !m.held && m.state == Open && m.now.Sub(m.since) >= m.pause {
		m.to(HalfOpen)
	}
	if !m.held && m.state == HalfOpen && m.now.Sub(m.since) >= m.o.OpenMax {
		m.opens()
	}
	if m.state == HalfOpen && m.trials < m.o.Trials {
		m.trials++
		return m.era, true
	}
	return m.era, m.state == Closed
}

func (m *circuitModel) settle(era int, v Verdict, slow bool) {
	switch {
	case era != m.era:
	case v == Ignored:
		m.trials--
	case m.state == HalfOpen && (v == Failed || slow):
		m.opens()
	case m.state == HalfOpen:
		if m.good++; m.good == m.o.Trials {
			m.to(Closed)
		}
	default:
		m.results = append(m.results, modelResult{m.now, v == Failed, slow})
		width := int64(m.o.Window / buckets)
		total, failed, slows := 0, 0, 0
		for _, r := range m.results {
			if m.now.UnixNano()/width-r.at.UnixNano()/width >= buckets {
				continue
			}
			total++
			failed += btoi(r.failed)
			slows += btoi(r.slow)
		}
		if m.held || total < m.o.MinCalls {
			return
		}
		if float64(failed) >= m.o.FailedShare*float64(total) || m.o.Slow > 0 && float64(slows) >= m.o.SlowShare*float64(total) {
			m.opens()
		}
	}
}
