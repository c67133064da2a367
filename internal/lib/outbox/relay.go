package outbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Named is a handler with the topics it wants; none is all of them.
type Named struct {
	Name   string // appears in the reason of a failure
	Topics []string
	Handle Handler
}

// Options of a relay; zero values are the defaults.
type Options struct {
	Batch       int           // messages per step, 1..1,000; default 500
	Workers     int           // keys handled side by side; default 32, 1 is one after the other on the caller's goroutine
	MaxAttempts int           // failures until a message is a dead letter; default 12
	BackoffMin  time.Duration // wait after the first failure, doubled after each; default 1 s
	BackoffMax  time.Duration // default 5 min
	Timeout     time.Duration // of one handler call; default 10 s
	// Buried is told of each message that became a dead letter, with all its
	// attempts, by the goroutine that handled it. Default: it is logged.
	Buried func(m Message, reason string)
}

func (o Options) orDefaults() Options {
	o.Batch = cmp.Or(max(0, min(o.Batch, 1000)), 500)
	o.Workers = cmp.Or(max(0, o.Workers), 32)
	o.MaxAttempts = cmp.Or(max(0, o.MaxAttempts), 12)
	o.BackoffMin = cmp.Or(max(0, o.BackoffMin), time.Second)
	o.BackoffMax = max(cmp.Or(max(0, o.BackoffMax), 5*time.Minute), o.BackoffMin)
	o.Timeout = cmp.Or(max(0, o.Timeout), 10*time.Second)
	return o
}

// Relay takes messages from a queue to their handlers. A message is done when
// every handler that wants its topic has returned nil; after a failure all of
// them get it again, later. One relay serves a queue at a time.
type Relay struct {
	queue    Queue
	handlers []Named
	now      func() time.Time
	jitter   func() float64
	log      *slog.Logger
	o        Options

	delivered, failed, buried atomic.Uint64
}

// New builds a relay; it starts nothing, the caller runs Step. jitter answers
// numbers in [0, 1) and spreads retries: a wait is up to a quarter longer.
func New(q Queue, handlers []Named, now func() time.Time, jitter func() float64, log *slog.Logger, o Options) *Relay {
	o = o.orDefaults()
	if o.Buried == nil {
		o.Buried = func(m Message, reason string) {
			log.Error("message given up", "message", m.ID, "key", m.Key, "topic", m.Topic, "attempts", m.Attempts, "reason", reason)
		}
	}
	return &Relay{queue: q, handlers: handlers, now: now, jitter: jitter, log: log, o: o}
}

// Step delivers one batch of due messages. Messages of one key are handled in
// id order and stop at the first that fails; keys do not wait for each other.
// worked says that some message was delivered or given up, so that another
// step may find more. A failed handler is no error of Step: err is the queue's.
func (r *Relay) Step(ctx context.Context) (worked bool, err error) {
	batch, err := r.queue.Pending(ctx, r.now().UnixMilli(), r.o.Batch)
	if err != nil || len(batch) == 0 {
		return false, err
	}
	lanes := byKey(batch)
	outcomes := make([]outcome, len(lanes))
	r.each(len(lanes), func(i int) { outcomes[i] = r.deliver(ctx, lanes[i]) })

	// What was handled is recorded even when the process is stopping: otherwise
	// it would all be handled again.
	ctx = context.WithoutCancel(ctx)
	var done []int64
	var errs []error
	for _, o := range outcomes {
		done = append(done, o.done...)
		errs = append(errs, o.err)
		worked = worked || o.failed
	}
	if len(done) > 0 {
		slices.Sort(done)
		if err := r.queue.Done(ctx, done); err != nil {
			return false, errors.Join(append(errs, err)...)
		}
		r.delivered.Add(uint64(len(done)))
		worked = true
	}
	return worked, errors.Join(errs...)
}

// outcome of one key's messages in a batch.
type outcome struct {
	done   []int64
	failed bool
	err    error // of the queue, when a failure could not be recorded
}

// byKey splits a batch into lanes, one a key, keeping the order in each.
func byKey(batch []Message) [][]Message {
	at := make(map[string]int, len(batch))
	var lanes [][]Message
	for _, m := range batch {
		i, ok := at[m.Key]
		if !ok {
			i = len(lanes)
			at[m.Key] = i
			lanes = append(lanes, nil)
		}
		lanes[i] = append(lanes[i], m)
	}
	return lanes
}

// each runs f for 0..n−1 on at most Workers goroutines and waits for all.
func (r *Relay) each(n int, f func(i int)) {
	workers := min(r.o.Workers, n)
	if workers == 1 {
		for i := range n {
			f(i)
		}
		return
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				f(i)
			}
		})
	}
	wg.Wait()
}

// deliver handles one key's messages up to the first failure.
func (r *Relay) deliver(ctx context.Context, lane []Message) (o outcome) {
	for i := range lane {
		if ctx.Err() != nil {
			return o
		}
		cause := r.handle(ctx, lane[i])
		if cause == nil {
			o.done = append(o.done, lane[i].ID)
			continue
		}
		if ctx.Err() != nil {
			return o // stopping is nobody's failure
		}
		o.failed = true
		o.err = r.fail(context.WithoutCancel(ctx), lane[i], cause)
		return o
	}
	return o
}

// handle calls every handler that wants the message.
func (r *Relay) handle(ctx context.Context, m Message) error {
	for _, h := range r.handlers {
		if len(h.Topics) > 0 && !slices.Contains(h.Topics, m.Topic) {
			continue
		}
		if err := r.call(ctx, h, m); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
	}
	return nil
}

// call contains a panic: one broken message must not stop all others.
func (r *Relay) call(ctx context.Context, h Named, m Message) (err error) {
	ctx, cancel := context.WithTimeout(ctx, r.o.Timeout)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			r.log.Error("message handler panicked", "handler", h.Name, "message", m.ID, "topic", m.Topic,
				"panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return h.Handle(ctx, m)
}

const (
	maxReason = 500 // bytes kept of a failure
	// maxAway bounds the back-off while something is away, so that what waits
	// for it is delivered half a minute after its return at the latest. minAway is
	// where it begins: what was away for a moment is told soon after.
	maxAway = 24 * time.Second // 30 s with the jitter
	minAway = 100 * time.Millisecond
)

// fail records a failed attempt: another try after the back-off, or a dead
// letter.
func (r *Relay) fail(ctx context.Context, m Message, cause error) error {
	v := r.Judge(m, cause)
	if v.Next != Never {
		return r.queue.Retry(ctx, m.ID, v.Next, v.Reason)
	}
	if err := r.queue.Bury(ctx, m.ID, v.Reason); err != nil {
		return err
	}
	r.Bury(v.Message)
	return nil
}

// Try hands a message to every handler that wants it, once and now, and answers
// what kept it from being delivered. It is for those who have a message before
// the queue has it.
func (r *Relay) Try(ctx context.Context, m Message) error { return r.handle(ctx, m) }

// Judge counts a failure of a message and answers the message as it waits from
// now on: its attempts, its reason, and when it is tried next, which is Never
// once they are too many. What is merely away makes no dead letters: an outage
// of any length must not leave work behind that only a person can start again.
func (r *Relay) Judge(m Message, cause error) Waiting {
	m.Reason = cause.Error()
	if len(m.Reason) > maxReason {
		m.Reason = m.Reason[:maxReason]
	}
	r.failed.Add(1)
	m.Attempts++
	shortest, longest := r.o.BackoffMin, r.o.BackoffMax
	if errors.Is(cause, ErrAway) {
		shortest, longest = min(shortest, minAway), min(longest, maxAway)
	} else if m.Attempts >= r.o.MaxAttempts {
		return Waiting{Message: m, Next: Never}
	}
	wait := r.backoff(m.Attempts-1, shortest, longest)
	r.log.Warn("message failed", "message", m.ID, "key", m.Key, "topic", m.Topic,
		"attempts", m.Attempts, "retry_in", wait, "reason", m.Reason)
	return Waiting{Message: m, Next: r.now().Add(wait).UnixMilli()}
}

// Bury counts and tells of a message that has become a dead letter.
func (r *Relay) Bury(m Message) {
	r.buried.Add(1)
	r.o.Buried(m, m.Reason)
}

// backoff doubles from shortest to longest with the failures so far, and
// adds up to a quarter of itself.
func (r *Relay) backoff(failures int, shortest, longest time.Duration) time.Duration {
	wait := min(shortest, longest)
	for range failures {
		if wait *= 2; wait >= longest {
			wait = longest
			break
		}
	}
	return wait + time.Duration(r.jitter()*float64(wait)/4)
}

// Stats of a relay and its queue, for gauges and alarms.
type Stats struct {
	Delivered  uint64 // messages, since the relay was built
	Failed     uint64 // attempts
	Buried     uint64 // messages given up
	Unfinished int    // messages in the queue now, dead ones included
	Oldest     int64  // when the oldest of them happened, Unix ms; 0 = none
}

// Stats reads the counters and asks the queue for its backlog.
func (r *Relay) Stats(ctx context.Context) (Stats, error) {
	n, oldest, err := r.queue.Backlog(ctx)
	return Stats{r.delivered.Load(), r.failed.Load(), r.buried.Load(), n, oldest}, err
}
