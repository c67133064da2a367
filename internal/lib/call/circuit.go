package call

import "time"

// State of a breaker.
type State uint8

const (
	Closed   State = iota // calls pass and are counted
	Open                  // calls are refused
	HalfOpen              // a few calls pass, as trials
)

const heldByOperator = "held by an operator"

func (s State) String() string { return [...]string{"closed", "open", "half-open"}[s] }

// circuit is the state machine of a Breaker, without lock or clock: every
// method is told the time. Its states and what moves it:
//
//	         share of failures or slow calls too high
//	closed ───────────────────────────────────────────► open ◄──┐
//	   ▲                                                  │      │ a trial failed,
//	   │ all trials answered in time          time is up  │      │ was slow, or has
//	   └─────────────────── half-open ◄───────────────────┘      │ not come back
//	                            └────────────────────────────────┘
//
// Time is only looked at when a call comes: no timer, no goroutine.
type circuit struct {
	o BreakerOptions

	state State
	held  bool // by an operator: nothing but hold and auto moves it
	// generation is raised with every move. A result counts only in the
	// generation its call began in: calls sent before the breaker opened come back
	// during its trials and say nothing about now.
	generation uint64
	window     window

	until    time.Time // open: of the refusal; half-open: by when the trials must be back
	openings int       // in a row, without a quiet window between
	closedAt time.Time
	trials   int // half-open: taken
	passed   int // half-open: came back in time, and well
}

func newCircuit(o BreakerOptions) circuit { return circuit{o: o, window: newWindow(o.Window)} }

// enter asks for a call at now and, if it may be made, takes its place among
// the trials. Asking and taking are one step under the breaker's lock: apart,
// everybody who asks at once would be let through.
func (c *circuit) enter(now time.Time) (generation uint64, ok bool) {
	if !c.ready(now) {
		return 0, false
	}
	c.take()
	return c.generation, true
}

// ready moves the circuit to where it stands at now and says whether a call may
// be made.
func (c *circuit) ready(now time.Time) bool {
	if c.held {
		return c.state == Closed
	}
	switch {
	case c.state == Open && !now.Before(c.until):
		c.try(now, "time to try again")
	case c.state == HalfOpen && !now.Before(c.until):
		c.open(now, "trials did not come back")
	}
	return c.state == Closed || c.state == HalfOpen && c.trials < c.o.Trials
}

// take uses what ready has granted.
func (c *circuit) take() {
	if c.state == HalfOpen {
		c.trials++
	}
}

// settle tells the result of a call that began in generation.
func (c *circuit) settle(now time.Time, generation uint64, v Verdict, took time.Duration) {
	if generation != c.generation {
		return
	}
	if v == Ignored {
		if c.state == HalfOpen {
			c.trials-- // it proved nothing: another may try
		}
		return
	}
	slow := c.o.Slow > 0 && took > c.o.Slow
	c.window.add(now, counts{1, btoi(v == Failed), btoi(slow)})
	switch {
	case c.held:
	case c.state == Closed:
		if why := c.fault(); why != "" {
			c.open(now, why)
		}
	case v == Failed:
		c.open(now, "a trial failed")
	case slow:
		c.open(now, "a trial was slow")
	default:
		if c.passed++; c.passed == c.o.Trials {
			c.close(now, "all trials were answered")
		}
	}
}

// fault says why the window demands to open, or "".
func (c *circuit) fault() string {
	t := c.window.total
	switch {
	case t.calls < c.o.MinCalls:
		return ""
	case float64(t.failed) >= c.o.FailedShare*float64(t.calls):
		return "too many calls failed"
	case c.o.Slow > 0 && float64(t.slow) >= c.o.SlowShare*float64(t.calls):
		return "too many calls were slow"
	default:
		return ""
	}
}

// open refuses for OpenFor, doubled with every opening in a row up to OpenMax,
// of which the last half is random: many processes that lost the same dependency
// together must not come back together. A closed window without a fault ends
// the row; success of a few trials does not, or a dependency that fails under
// load only would be tried at the shortest interval for ever.
func (c *circuit) open(now time.Time, why string) {
	if c.state == Closed && now.Sub(c.closedAt) >= c.o.Window {
		c.openings = 0
	}
	pause := c.o.OpenFor
	for range c.openings {
		if pause *= 2; pause >= c.o.OpenMax {
			break
		}
	}
	pause = min(pause, c.o.OpenMax)
	c.openings++
	c.move(Open, now, why)
	c.until = now.Add(pause/2 + time.Duration(c.o.Random()*float64(pause-pause/2)))
}

func (c *circuit) close(now time.Time, why string) {
	c.closedAt = now
	c.window.clear() // what was before it recovered must not open it again
	c.move(Closed, now, why)
}

// hold is the operator's: s stays until auto, whatever is counted.
func (c *circuit) hold(now time.Time, s State) {
	c.held = true
	if s == Closed {
		c.close(now, heldByOperator)
		return
	}
	c.move(s, now, heldByOperator)
}

// auto ends a hold. What was held open is tried before it is trusted; what was
// held closed stays so until the window, which went on counting, objects.
func (c *circuit) auto(now time.Time) {
	if !c.held {
		return
	}
	c.held = false
	if c.state == Open {
		c.try(now, "released by an operator")
	}
}

// try lets trials through. Ones that never come back must not keep it
// half-open for ever, so they have until the bound of a refusal.
func (c *circuit) try(now time.Time, why string) {
	c.move(HalfOpen, now, why)
	c.until = now.Add(c.o.OpenMax)
}

// move enters a state anew and forgets all calls that are under way.
func (c *circuit) move(to State, now time.Time, why string) {
	from := c.state
	c.state = to
	c.generation++
	c.trials, c.passed = 0, 0
	if c.o.Changed != nil && from != to {
		c.o.Changed(Change{At: now, From: from, To: to, Why: why})
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}
