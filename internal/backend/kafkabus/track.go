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
	// Again puts them back to where the relay takes messages from.
	Again(ctx context.Context, ids []int64) error
}

// Knows is the part of an inbox that tells what became of messages.
type Knows interface {
	Known(ctx context.Context, ids []int64) (consumed, waiting map[int64]bool, err error)
}

// Tracker lets go of what a store keeps of messages that a group has consumed.
// What the bus has lost it has sent again: a message that was acknowledged, is
// neither consumed nor waiting, and that the group's position is beyond. A
// topic that forgot too early, was made anew, or was exchanged for another one
// so costs time and no message.
//
// One a group works at a time; two do no harm, and neither does one that errs:
// what is sent twice is consumed once.
type Tracker struct {
	bus   *Bus
	group string
	sent  Sent
	inbox Knows
	log   *slog.Logger

	after int64 // where the next page begins

	suspects []int64         // sent, and neither consumed nor waiting when ends was taken after that
	ends     map[int32]int64 // of the partitions; by there they have been read

	resent atomic.Uint64
}

// trackPage is how many messages a step looks at.
const trackPage = 1000

// NewTracker of the messages that one group consumes.
func (b *Bus) NewTracker(group string, sent Sent, inbox Knows) *Tracker {
	return &Tracker{bus: b, group: group, sent: sent, inbox: inbox, log: b.o.Log.With("reader", group)}
}

// Resent counts the messages that were lost and sent again.
func (t *Tracker) Resent() uint64 { return t.resent.Load() }

// Step looks at one page. worked says that another may be as good.
func (t *Tracker) Step(ctx context.Context) (worked bool, err error) {
	if err := t.judge(ctx); err != nil {
		return false, err
	}
	page, err := t.sent.Sent(ctx, t.after, trackPage)
	if err != nil || len(page) == 0 {
		t.after = 0
		return false, err
	}
	arrived, travelling, err := t.look(ctx, page)
	if err != nil {
		return false, err
	}
	if len(arrived) > 0 {
		if err := t.sent.Arrived(ctx, arrived); err != nil {
			return false, err
		}
	}
	if t.ends == nil && len(travelling) > 0 {
		if err := t.suspect(ctx, travelling); err != nil {
			return false, err
		}
	}
	if full := len(page) == trackPage; full && (len(arrived) > 0 || len(travelling) == 0) {
		t.after = page[len(page)-1]
		return true, nil
	}
	// The end, or where consuming is: what is further on is not consumed either.
	t.after = 0
	return false, nil
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

// suspect notes up to where the group has to come to have met these messages: the
// brokers had them before they were noted as sent.
func (t *Tracker) suspect(ctx context.Context, travelling []int64) error {
	_, ends, err := t.bus.span(ctx, "", time.Time{})
	if err != nil {
		return fmt.Errorf("end of the topic: %w", err)
	}
	t.suspects, t.ends = slices.Clone(travelling), ends
	return nil
}

// judge sends again what the group has not met though it came that far.
func (t *Tracker) judge(ctx context.Context) error {
	if t.ends == nil {
		return nil
	}
	at, ends, err := t.bus.span(ctx, t.group, time.Time{})
	if err != nil {
		return fmt.Errorf("position of %s: %w", t.group, err)
	}
	for partition, end := range t.ends {
		if at[partition] < min(end, ends[partition]) { // it may be another topic by now, and shorter
			return nil
		}
	}
	_, lost, err := t.look(ctx, t.suspects)
	if err != nil {
		return err
	}
	if len(lost) > 0 {
		if err := t.sent.Again(ctx, lost); err != nil {
			return err
		}
		t.resent.Add(uint64(len(lost)))
		t.log.Error("the bus has lost messages that it had acknowledged; they are sent again", "messages", len(lost), "first", slices.Min(lost))
	}
	t.suspects, t.ends = nil, nil
	return nil
}
