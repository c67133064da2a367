package limit

import (
	"errors"
	"fmt"
	"time"
)

// Algorithm names how a limit counts. The zero Algorithm is not valid, so that
// a rule that forgot to name one is an error.
type Algorithm uint8

const (
	FixedWindow Algorithm = iota + 1
	SlidingWindow
	TokenBucket
	LeakyBucket
)

var algorithmNames = [...]string{FixedWindow: "fixed", SlidingWindow: "sliding", TokenBucket: "token", LeakyBucket: "leaky"}

// String is the name in rules and answers: fixed, sliding, token or leaky.
func (a Algorithm) String() string {
	if a < FixedWindow || a > LeakyBucket {
		return fmt.Sprintf("algorithm(%d)", uint8(a))
	}
	return algorithmNames[a]
}

// MarshalText writes the name.
func (a Algorithm) MarshalText() ([]byte, error) {
	if a < FixedWindow || a > LeakyBucket {
		return nil, fmt.Errorf("%w: %s", ErrRate, a)
	}
	return []byte(a.String()), nil
}

// UnmarshalText reads the name, or answers ErrRate.
func (a *Algorithm) UnmarshalText(text []byte) error {
	for i, name := range algorithmNames {
		if name != "" && name == string(text) {
			*a = Algorithm(i)
			return nil
		}
	}
	return fmt.Errorf("%w: algorithm %q is none of fixed, sliding, token, leaky", ErrRate, text)
}

// Bounds of a rate.
const (
	MaxLimit = 1_000_000_000 // permits; of Limit and of Burst
	MinPer   = time.Millisecond
	MaxPer   = 31 * 24 * time.Hour
	// MaxFill bounds how long a bucket takes from empty to full.
	MaxFill = 366 * 24 * time.Hour
)

// ErrRate: a rate is out of bounds; the text says which field and what to do.
var ErrRate = errors.New("invalid rate")

// Rate is what a key may do. It is a plain value: compare it, copy it, keep it
// in rules.
type Rate struct {
	Algorithm Algorithm
	Limit     int64         // permits in each Per, 1..MaxLimit
	Per       time.Duration // MinPer..MaxPer
	// Burst is for buckets, 0..MaxLimit. Token bucket: how many permits can be
	// saved up; 0 means Limit. Leaky bucket: how many may wait in the queue; 0
	// means that nobody waits, and who comes early is refused. A window has none.
	Burst int64
}

// String is for people: "token 5 per 1s, burst 10".
func (r Rate) String() string {
	s := fmt.Sprintf("%s %d per %s", r.Algorithm, r.Limit, r.Per)
	switch r.Algorithm {
	case TokenBucket:
		s += fmt.Sprintf(", burst %d", r.capacity())
	case LeakyBucket:
		s += fmt.Sprintf(", queue %d", r.Burst)
	}
	return s
}

// Validate answers all faults of a rate at once, each wrapping ErrRate.
func (r Rate) Validate() error {
	var faults []error
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("%w: %s", ErrRate, fmt.Sprintf(format, args...)))
	}
	known := r.Algorithm >= FixedWindow && r.Algorithm <= LeakyBucket
	if !known {
		fault("algorithm: name one of fixed, sliding, token, leaky")
	}
	if r.Limit < 1 || r.Limit > MaxLimit {
		fault("limit %d: 1 to %d permits; to allow none, refuse before the limit", r.Limit, MaxLimit)
	}
	if r.Per < MinPer || r.Per > MaxPer {
		fault("per %s: %s to %s", r.Per, MinPer, MaxPer)
	}
	if r.Burst < 0 || r.Burst > MaxLimit {
		fault("burst %d: 0 to %d permits", r.Burst, MaxLimit)
	} else if r.Burst > 0 && (r.Algorithm == FixedWindow || r.Algorithm == SlidingWindow) {
		fault("burst %d: a window has none; its burst is the limit", r.Burst)
	}
	if len(faults) == 0 && known {
		if fill := float64(r.capacity()) * float64(r.Per) / float64(r.Limit); fill > float64(MaxFill) {
			fault("burst %d: would take more than %s to refill", r.Burst, MaxFill)
		}
	}
	return errors.Join(faults...)
}

// capacity is the most permits that can ever be taken at one moment.
func (r Rate) capacity() int64 {
	switch {
	case r.Algorithm == LeakyBucket:
		return r.Burst + 1 // those who wait, and the one who need not
	case r.Algorithm == TokenBucket && r.Burst > 0:
		return r.Burst
	}
	return r.Limit
}

// plan is a rate made ready for use.
type plan struct {
	algorithm
	rate Rate
}

func newPlan(r Rate) (plan, error) {
	if err := r.Validate(); err != nil {
		return plan{}, err
	}
	switch r.Algorithm {
	case FixedWindow:
		return plan{fixed{limit: r.Limit, per: int64(r.Per)}, r}, nil
	case SlidingWindow:
		return plan{sliding{limit: r.Limit, per: int64(r.Per)}, r}, nil
	}
	return plan{newBucket(r), r}, nil
}
