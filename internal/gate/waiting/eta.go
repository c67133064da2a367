package waiting

import (
	"math"
	"time"
)

// speed is how fast the head moves.
type speed struct {
	places float64 // a second; 0: it does not
}

const (
	// horizon is how far back the head's speed is measured: long enough that
	// the unevenness of its moves does not show, short enough that a change does.
	horizon = 20 * time.Second
	// warm is how long a head has to move until its own speed is all that counts.
	warm = 5 * time.Second
)

// speedOf measures the head's speed. idle is when nobody was waiting last.
func speedOf(p *Progress, now, idle Millis) speed {
	if len(p.Steps) == 0 {
		return speed{}
	}
	since := now - Millis(horizon/time.Millisecond)
	base := p.Steps[0]
	for _, s := range p.Steps {
		if s.At > since {
			break
		}
		base = s
	}
	base.At = max(base.At, since)
	took := float64(now-base.At) / 1000
	moved := float64(p.Head - base.Head)
	if lacks := warm.Seconds() - took; lacks > 0 {
		moved, took = moved+p.Rate*lacks, warm.Seconds()
	}
	places := moved / took
	if idle >= since && idle > 0 {
		places = max(places, p.Rate) // it moved as people came, and could have moved faster
	}
	return speed{places}
}

// until is the time until a position (1 is next) is called, -1 if nobody can say.
func (s speed) until(position int) time.Duration {
	if s.places <= 0 {
		return -1
	}
	seconds := float64(position) / s.places
	if seconds > 24*3600 {
		return -1
	}
	return time.Duration(seconds * float64(time.Second))
}

// Estimates are judged by how far ahead they look: those of one bucket look
// up to twice as far as those of the one before, the first up to 2 s.
const (
	etaBuckets = 14
	guesses    = 16 // open in one bucket
	judged     = 60 // results after which an old one counts little
	doubts     = 4  // results that what is assumed before any is worth
)

func etaBucket(eta time.Duration) int {
	if eta < 2*time.Second {
		return 0
	}
	return min(etaBuckets-1, int(math.Log2(eta.Seconds())))
}

// oracle makes estimates about places, and remembers them until they can be
// judged. It is used by one goroutine at a time.
type oracle struct {
	open  [etaBuckets][]guess
	made  [etaBuckets]Millis // the last one
	means [etaBuckets]mean   // of squared errors, s²
	all   mean               // of absolute errors, s
	turn  uint32

	speed, strays mean // of the head's speed, and of how far it is from that
	heard         Millis
}

type guess struct {
	place int
	due   Millis
}

// mean is one of the latest values.
type mean struct{ n, value float64 }

func (m *mean) add(value float64) {
	m.n = min(m.n+1, judged)
	m.value += (value - m.value) / m.n
}

// hear notes the head's speed, once a second: how uneven it is tells of errors
// long before the estimates that are wrong by it come due.
func (o *oracle) hear(s speed, now Millis) {
	if now < o.heard+1000 {
		return
	}
	o.heard = now
	o.speed.add(s.places)
	o.strays.add(math.Abs(s.places - o.speed.value))
}

// judge compares the estimates that have come due with what has happened.
func (o *oracle) judge(p *Progress) {
	for b := range o.open {
		left := o.open[b][:0]
		for _, g := range o.open[b] {
			if g.place >= p.Head {
				left = append(left, g)
				continue
			}
			if at, known := p.calledAt(g.place); known {
				off := math.Abs(float64(at-g.due)) / 1000
				o.means[b].add(off * off)
				o.all.add(off)
			}
		}
		o.open[b] = left
	}
}

// guess makes another estimate about one of those who wait, near ones as
// often as far ones.
func (o *oracle) guess(p *Progress, waiting int, s speed, now Millis) {
	if waiting < 1 {
		return
	}
	o.turn++
	at := float64(o.turn*2654435761) / (1 << 32)
	position := int(math.Pow(float64(waiting), at))
	eta := s.until(position)
	if eta < 0 {
		return
	}
	b := etaBucket(eta)
	apart := Millis(1000*math.Exp2(float64(b))) / guesses
	if len(o.open[b]) >= guesses || now-o.made[b] < apart {
		return
	}
	o.made[b] = now
	o.open[b] = append(o.open[b], guess{p.Head + position - 1, now + Millis(eta/time.Millisecond)})
}

// statedErrors are the errors that estimates are told with, in seconds: the root of the
// mean square of what was measured, and as long as that is little, what nearer
// estimates let expect. Squares, as errors come in bursts, when the pace changes, and
// the mean of their sizes would have forgotten the last burst before the next.
type statedErrors [etaBuckets]float32

func (o *oracle) stated(now Millis) (s statedErrors) {
	share, uneven := 0.25, 0.0 // of the time estimated
	if o.speed.value > 0 {
		uneven = o.strays.value / o.speed.value
	}
	for b := range s {
		typical := 1.5 * math.Exp2(float64(b))
		assumed := max(0.5, share*typical)
		m := o.means[b]
		off := (m.n*math.Sqrt(m.value) + doubts*assumed) / (m.n + doubts)
		// Those that are late by more already will not turn out better.
		late, n := 0.0, 0.0
		for _, g := range o.open[b] {
			if by := float64(now-g.due) / 1000; by > off {
				late, n = late+by, n+1
			}
		}
		off = (off*(m.n+doubts) + late) / (m.n + doubts + n)
		off = max(off, 0.6*uneven*typical)
		s[b] = float32(off)
		share = off / typical
	}
	return s
}

// of is the error that an estimate is told with.
func (s *statedErrors) of(eta time.Duration) time.Duration {
	if eta < 0 {
		return 0
	}
	return time.Duration(float64(s[etaBucket(eta)]) * float64(time.Second))
}
