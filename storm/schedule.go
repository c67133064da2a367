package storm

import (
	"math"
	"sync/atomic"
	"time"
)

// schedule is an open-loop clock: slot n is due at start + n/rate whatever the
// server does. A slow server makes attempts late, never fewer, and lateness
// counts as latency; that is what corrects for coordinated omission.
type schedule struct {
	start time.Time
	rate  int64 // slots per second
	slots int64 // how many there are
	taken atomic.Int64
}

func newSchedule(start time.Time, rate int, length time.Duration) *schedule {
	return &schedule{start: start, rate: int64(rate), slots: int64(float64(rate) * length.Seconds())}
}

// next claims a slot. ok is false when none are left.
func (s *schedule) next() (slot int64, due time.Time, ok bool) {
	slot = s.taken.Add(1) - 1
	if slot >= s.slots {
		return 0, time.Time{}, false
	}
	return slot, s.start.Add(s.offset(slot)), true
}

// offset of a slot from the start, without the overflow of slot × 1e9.
func (s *schedule) offset(slot int64) time.Duration {
	whole, part := slot/s.rate, slot%s.rate
	return time.Duration(whole)*time.Second + time.Duration(part*int64(time.Second)/s.rate)
}

// choice says which question a die answers, so that the answers to different
// questions about the same thing are independent.
type choice uint64

const (
	chooseLose choice = iota + 1
	chooseDouble
	chooseForge
	choosePlan
	chooseReplay
	chooseGreedy
	chooseDelay
	chooseVictim
	chooseMishap
	chooseButton
	chooseAwait
	chooseAnew
	chooseManner
	chooseArrival
	chooseLater
	chooseThink
	chooseSolving
	chooseMistake
	chooseGuess
	chooseStay
)

// dice are all random choices of a storm: a pure function of the seed, the
// question and what it is asked about. The same seed asks for the same storm.
type dice uint64

// bits is splitmix64 (Steele, Lea, Flood 2014) over the three.
func (d dice) bits(c choice, n uint64) uint64 {
	z := uint64(d) + uint64(c)*0xd1342543de82ef95 + n*0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// unit is uniform in [0, 1).
func (d dice) unit(c choice, n uint64) float64 {
	return float64(d.bits(c, n)>>11) / (1 << 53)
}

// hit is true for percent % of all n.
func (d dice) hit(c choice, n uint64, percent float64) bool {
	return percent > 0 && d.unit(c, n)*100 < percent
}

// between is a duration spread evenly over low..high.
func (d dice) between(n uint64, low, high time.Duration) time.Duration {
	return low + time.Duration(math.Floor(d.unit(chooseDelay, n)*float64(high-low)))
}
