package gate

import (
	"fmt"
	"time"

	"sluice/internal/lib/limit"
)

// scale is what playbooks leave of rates.
type scale struct {
	percent int
	version int64 // rises with each change, and is the same in all processes
}

// Scale enforces so many percent of every rule's rate from now on, 1..100, until
// it is called again; version is that of the playbooks that say so. Edits of the rules keep to it. What was used stays used. No
// rate falls below one request in its Per, so a rule of 1 per 1s stays as it is
// but for its burst; one that is written as 60 per 1m can be halved. The error is
// a *RuleError, and then nothing changed.
func (l *Limits) Scale(percent int, version int64, now time.Time) error {
	if percent < 1 || percent > 100 {
		return &RuleError{"limit_percent", fmt.Sprintf("%d is not in 1..100", percent)}
	}
	l.editing.Lock()
	defer l.editing.Unlock()
	set := l.now.Load()
	to := scale{percent, version}
	if set.scale == to {
		return nil
	}
	return l.put(set.edition, to, now)
}

// scaled is a rate at so many percent.
func scaled(r limit.Rate, percent int) limit.Rate {
	if percent == 100 {
		return r
	}
	was := r.Limit
	r.Limit = max(was*int64(percent)/100, 1)
	switch {
	case r.Algorithm == limit.LeakyBucket:
		r.Burst = r.Burst * r.Limit / was // the last of the queue waits no longer than before
	case r.Burst > 0:
		r.Burst = max(r.Burst*int64(percent)/100, 1)
	}
	return r
}
