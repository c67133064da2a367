package kafkabus

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"
)

// Sent is what the store keeps of messages that were handed to a bus.
type Sent interface {
	// Sent are ids of messages that are kept, above one, in order.
	Sent(ctx context.Context, after int64, limit int) ([]int64, error)
	// Arrived forgets them: they were consumed.
	Arrived(ctx context.Context, ids []int64) error
	// Again puts them back to where the relay takes messages from, and answers
	// how many were there to be put back.
	Again(ctx context.Context, ids []int64) (int, error)
}

// Knows is the part of an inbox that tells what became of messages.
type Knows interface {
	Known(ctx context.Context, ids []int64) (consumed, waiting map[int64]bool, err error)
}

// Tracker lets go of what a store keeps of messages that a group has consumed.
// For that it needs no brokers. What the bus has lost it has sent again: a message
// that was acknowledged, is neither consumed nor waiting, and that the group's
// position is beyond. A topic that forgot too early, was made anew, or was
// exchanged for another one so costs time and no message.
//
// One a group works at a time; two do no harm, and neither does one that errs:
// what is sent twice is consumed once.
type Tracker struct {
	bus   func() *Bus
	group string
	sent  Sent
	inbox Knows
	now   func() time.Time
	log   *slog.Logger

	after  int64     // where the next page begins
	worked time.Time // when the last step ended

	suspects []int64         // sent, and neither consumed nor waiting when ends was taken after that
	ends     map[int32]int64 // of the partitions; by there they have been read

	unanswered error     // what the brokers were asked last and did not answer
	askAgain   time.Time // when they are asked again

	resent atomic.Uint64
}

const (
	trackPage = 1000 // messages that a step looks at
	// askWithin bounds asking the brokers, of which one that is missing must not hold
	// up what needs none; after that they are left alone for askPause.
	askWithin = 3 * time.Second
	askPause  = 10 * time.Second
	// suspectFor is the longest pause between two steps in which nobody else will
	// have tracked: what another has sent again since is not lost.
	suspectFor = 10 * time.Second
)

// NewTracker of the messages that one group consumes. bus answers nil as long as
// there is none.
func NewTracker(bus func() *Bus, group string, sent Sent, inbox Knows, now func() time.Time, log *slog.Logger) *Tracker {
	return &Tracker{bus: bus, group: group, sent: sent, inbox: inbox, now: now, log: log.With("reader", group)}
}

// Resent counts the messages that were lost and sent again.
func (t *Tracker) Resent() uint64 { return t.resent.Load() }

// Step looks at one page, and at what it suspects to be lost. worked says that
// another may be as good. After an error of the brokers the page was looked at all
// the same.
func (t *Tracker) Step(ctx context.Context) (worked bool, err error) {
	defer func() { t.worked = t.now() }()
	worked, travelling, err := t.letGo(ctx)
	if err != nil {
		return false, err
	}
	return worked, t.judge(ctx, travelling)
}

// letGo forgets what has been consumed of one page, and answers what of it is on
// its way. Pages follow each other up to the end whatever is on them: what is
// stuck hides nothing that is behind it. Only where nothing has arrived they do not
// follow at once: what is far behind in consuming has better to do than to be read
// here.
func (t *Tracker) letGo(ctx context.Context) (worked bool, travelling []int64, err error) {
	page, err := t.sent.Sent(ctx, t.after, trackPage)
	if err != nil {
		return false, nil, err
	}
	arrived, travelling, err := t.look(ctx, page)
	if err != nil {
		return false, nil, err
	}
	if len(arrived) > 0 {
		if err := t.sent.Arrived(ctx, arrived); err != nil {
			return false, nil, err
		}
	}
	if len(page) < trackPage {
		t.after = 0
		return false, travelling, nil
	}
	t.after = page[len(page)-1]
	return len(arrived) > 0 || len(travelling) == 0, travelling, nil
}

// look tells those that have been consumed from those on their way. The others
// wait in the inbox, or are dead there.
func (t *Tracker) look(ctx context.Context, ids []int64) (arrived, travelling []int64, err error) {
	consumed, waiting, err := t.inbox.Known(ctx, ids)
	for _, id := range ids {
		switch {
		case consumed[id]:
			arrived = append(arrived, id)
		case !waiting[id]:
			travelling = append(travelling, id)
		}
	}
	return arrived, travelling, err
}

// judge sends again what the group has not met though it came as far as it had
// to. Of what is on its way now it notes how far that is: the brokers had these
// messages before they were noted as sent.
func (t *Tracker) judge(ctx context.Context, travelling []int64) error {
	bus := t.bus()
	if bus == nil || t.now().Sub(t.worked) > suspectFor {
		t.suspects, t.ends = nil, nil
	}
	if bus == nil || t.ends == nil && len(travelling) == 0 && t.unanswered == nil {
		return nil
	}
	at, ends, err := t.ask(ctx, bus)
	switch {
	case err != nil:
		return err
	case t.ends == nil && len(travelling) > 0:
		t.suspects, t.ends = slices.Clone(travelling), ends
		return nil
	case !t.passed(at, ends):
		return nil
	}
	_, lost, err := t.look(ctx, t.suspects)
	if err != nil {
		return err
	}
	if len(lost) > 0 {
		n, err := t.sent.Again(ctx, lost)
		if n > 0 {
			t.resent.Add(uint64(n))
			t.log.Error("the bus has lost messages that it had acknowledged; they are sent again", "messages", n, "first", slices.Min(lost))
		}
		if err != nil {
			return err
		}
	}
	t.suspects, t.ends = nil, nil
	return nil
}

// passed says that the group is beyond where the suspects are in each partition.
func (t *Tracker) passed(at, ends map[int32]int64) bool {
	for partition, end := range t.ends {
		if at[partition] < min(end, ends[partition]) { // it may be another topic by now, and shorter
			return false
		}
	}
	return true
}

// ask for the group's position and the ends of the partitions. While the brokers
// do not answer, each call says why, and few of them ask.
func (t *Tracker) ask(ctx context.Context, bus *Bus) (at, ends map[int32]int64, err error) {
	if t.unanswered != nil && t.now().Before(t.askAgain) {
		return nil, nil, t.unanswered
	}
	within, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	at, ends, err = bus.span(within, t.group, time.Time{})
	if t.unanswered = nil; err != nil && ctx.Err() == nil {
		t.unanswered, t.askAgain = fmt.Errorf("position of %s: %w", t.group, err), t.now().Add(askPause)
		return nil, nil, t.unanswered
	}
	return at, ends, err
}
