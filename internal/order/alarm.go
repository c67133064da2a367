package order

import (
	"log/slog"
	"maps"
	"sync"

	"sluice/internal/lib/outbox"
	"sluice/internal/stock"
)

// Kinds of alarm, as they appear in logs and metrics.
const (
	AlarmLanding       = "landing_stopped" // an entry or the store stops landing
	AlarmFenced        = "landing_fenced"  // another process lands this log now
	AlarmSettlement    = "settle_violation"
	AlarmSecondCapture = "second_capture"
	AlarmWrongAmount   = "wrong_amount"
	AlarmWrongCurrency = "wrong_currency"
	AlarmRefundStuck   = "refund_stuck"
	AlarmClockJump     = "clock_jump"
	AlarmDeadLetter    = "dead_letter"        // a message was given up; what follows in its order waits for it
	AlarmUnresolved    = "payment_unresolved" // polls ended without an answer of the provider
	AlarmProof         = "proof_violation"    // the auditor found that the books do not agree
	AlarmTrail         = "trail_cut"          // the log went past its bound, and with it where an activity's units went
	AlarmRefused       = "refused_by_book"    // a ledger accepted what was not there; it landed as refused
	AlarmDisagreed     = "book_disagrees"     // a ledger settled or adjusted otherwise than its book
)

// Alarms counts by kind what a person should look at, and logs each one at
// error level. Safe for concurrent use.
type Alarms struct {
	log    *slog.Logger
	mu     sync.Mutex
	counts map[string]uint64
}

// NewAlarms starts every count at 0, so that the first alarm of a kind is an
// increase to whoever watches the metric.
func NewAlarms(log *slog.Logger) *Alarms {
	a := &Alarms{log: log, counts: make(map[string]uint64)}
	for _, kind := range []string{AlarmLanding, AlarmFenced, AlarmSettlement, AlarmSecondCapture, AlarmWrongAmount,
		AlarmWrongCurrency, AlarmRefundStuck, AlarmClockJump, AlarmDeadLetter, AlarmUnresolved, AlarmProof, AlarmTrail,
		AlarmRefused, AlarmDisagreed} {
		a.counts[kind] = 0
	}
	return a
}

// Counts tells how often each kind was raised since the process started.
func (a *Alarms) Counts() map[string]uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.counts)
}

// DeadLetter is for outbox.Options.Buried.
func (a *Alarms) DeadLetter(m outbox.Message, reason string) {
	a.raise(AlarmDeadLetter, "message", m.ID, "key", m.Key, "topic", m.Topic, "attempts", m.Attempts, "reason", reason)
}

// Violation is for proof.NewWatch.
func (a *Alarms) Violation(activity stock.ActivityID, violation string) {
	a.raise(AlarmProof, "activity", activity, "violation", violation)
}

// TrailCut tells that the log, which starts behind a position now, has let go
// the first entries of an activity without a final proof.
func (a *Alarms) TrailCut(activity stock.ActivityID, start uint64) {
	a.raise(AlarmTrail, "activity", activity, "log_starts_behind", start)
}

func (a *Alarms) raise(kind string, args ...any) {
	a.mu.Lock()
	a.counts[kind]++
	a.mu.Unlock()
	a.log.Error("alarm", append([]any{"kind", kind}, args...)...)
}

// alarm is one that waits until the change that causes it is saved: a change
// may be computed more than once, or not be saved at all.
type alarm struct {
	kind string
	args []any
}
