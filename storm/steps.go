package storm

import (
	"context"
	"fmt"
	"io"
	"time"
)

// Limits past which a step has found the knee.
const (
	kneeLatency = 200.0 // ms, p99
	kneeErrors  = 0.01  // of attempts: errors and attempts that could not be sent
	stepGrowth  = 1.5
	stepLength  = 5 * time.Second
	maxSteps    = 24
)

// Knee is how far the load could be raised.
type Knee struct {
	Steps    []Step `json:"steps"`
	Rate     int    `json:"rate"`     // the highest rate that kept the limits; 0 = none did
	Proposed int    `json:"proposed"` // a limit to configure: 70 % of the knee, for a sale's own unevenness
}

// Step is one rate.
type Step struct {
	Rate     int     `json:"rate"`
	Achieved float64 `json:"achieved"` // attempts a second really sent in the rush
	P99      float64 `json:"p99_ms"`
	Errors   float64 `json:"errors"` // share of errors and unsent
	OK       bool    `json:"ok"`
}

// climb rehearses one sale after the other, each at a higher rate, until the
// limits break. Each step is audited like any rehearsal; a violation ends the
// climb. The report is the last good step's, with all violations.
func climb(ctx context.Context, o Options, progress io.Writer) (Report, error) {
	o.Duration = min(o.Duration, stepLength)
	o.RestartCmd, o.Supervisor = "", nil
	o.Linearize = 0 // recording would cost the load that is measured
	var best Report
	knee := &Knee{}
	for range maxSteps {
		if _, err := fmt.Fprintf(progress, "step: %d attempts/s for %s\n", o.Rate, o.Duration); err != nil {
			return best, err
		}
		report, err := rehearse(ctx, o, usual, progress)
		if err != nil {
			return report, err
		}
		step := stepOf(report)
		knee.Steps = append(knee.Steps, step)
		if step.OK || best.Attempts == 0 || len(report.Violations) > 0 {
			best = report
		}
		if !step.OK || len(report.Violations) > 0 {
			break
		}
		knee.Rate, knee.Proposed = step.Rate, step.Rate*7/10
		if o.Rate = int(float64(o.Rate) * stepGrowth); o.Rate > maxRate {
			break
		}
	}
	best.Knee = knee
	return best, nil
}

func stepOf(r Report) Step {
	s := Step{Rate: r.Rate, P99: r.LatencyMS.P99}
	due := float64(r.Attempts + r.Unsent)
	if due > 0 {
		s.Errors = float64(r.Errors+r.Unsent) / due
	}
	s.Achieved = r.AchievedRate
	s.OK = s.P99 <= kneeLatency && s.Errors <= kneeErrors
	return s
}

func (k Knee) rows(row func(name, format string, args ...any)) {
	for _, s := range k.Steps {
		verdict := "ok"
		if !s.OK {
			verdict = "past the knee"
		}
		row("step", "%d/s: %.0f/s sent, p99 %.1f ms, %.2f%% errors, %s", s.Rate, s.Achieved, s.P99, 100*s.Errors, verdict)
	}
	row("knee", "%d/s; proposed limit %d/s", k.Rate, k.Proposed)
}
