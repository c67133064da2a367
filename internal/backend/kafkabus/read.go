package kafkabus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"sluice/internal/lib/outbox"
)

// Inbox is what a reader keeps in its store: which messages have been
// consumed, and, as a queue, those that wait. It is one for all processes of a
// group.
type Inbox interface {
	outbox.Queue // Done notes the messages as consumed, too
	look
}

// look is apart because an interface should be no longer than can be kept in mind.
type look interface {
	// Look answers which messages, at most 1,000, are consumed and which of
	// their keys have messages waiting.
	Look(ctx context.Context, messages []outbox.Message) (consumed map[int64]bool, waiting map[string]bool, err error)
	// Keep notes in one transaction what is consumed and what waits; what is
	// noted already stays as it is.
	Keep(ctx context.Context, consumed []int64, parked []outbox.Waiting) error
}

// ReaderOptions of a reader; zero values are the defaults.
type ReaderOptions struct {
	Batch  int           // records per step, 1..1,000; default 500
	Wait   time.Duration // of a step for records; default 100 ms
	Budget time.Duration // within it a step begins to deliver; default 20 s. With the relay's Timeout it stays below Options.Stall, or others take over
	// MaxWaiting is how many messages may wait in the inbox until nothing more
	// is taken from the bus; default 10,000. The backlog is Kafka's to keep.
	MaxWaiting int
	Workers    int // keys delivered side by side; default 32
}

func (o ReaderOptions) orDefaults() ReaderOptions {
	o.Batch = cmp.Or(max(0, min(o.Batch, 1000)), 500)
	o.Wait = cmp.Or(max(0, o.Wait), 100*time.Millisecond)
	o.Budget = cmp.Or(max(0, o.Budget), 20*time.Second)
	o.MaxWaiting = cmp.Or(max(0, o.MaxWaiting), 10_000)
	o.Workers = cmp.Or(max(0, o.Workers), 32)
	return o
}

// Reader is one process's part of a group: the group's processes share the
// messages by key. Step delivers what comes; what fails or is delayed goes to the
// inbox, from where Relay delivers it, in one process of the group at a time.
type Reader struct {
	Relay *outbox.Relay

	group  string
	inbox  Inbox
	client *kgo.Client
	now    func() time.Time
	log    *slog.Logger
	o      ReaderOptions

	crowded                 bool // the inbox was not seen empty since something was parked
	failing                 bool // the brokers did not answer, and have not since
	delivered, passed, kept atomic.Uint64
}

// NewReader joins a group, which begins with the oldest message that the bus
// still has. relay takes out of the inbox what waits there, brokers or not; its
// handlers are tried first here: a message is consumed when all that want its
// topic have returned nil, and noted so right after that. The last before a crash,
// or of a reader that stalled, are handled again: handlers are idempotent, by
// themselves or by Inbox.Apply of a store. The caller runs Step from one goroutine,
// and closes.
func (b *Bus) NewReader(group string, in Inbox, relay *outbox.Relay, now func() time.Time, o ReaderOptions) (*Reader, error) {
	r := &Reader{Relay: relay, group: group, inbox: in, now: now, log: b.o.Log.With("reader", group), o: o.orDefaults(), crowded: true}
	var err error
	r.client, err = b.client(
		kgo.ConsumeTopics(b.place.topic),
		kgo.ConsumerGroup(group),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(),
		// Between a poll and AllowRebalance nothing is taken away, and by then
		// the position is committed: there is nothing left to do, or to wait for, when
		// partitions are revoked.
		kgo.BlockRebalanceOnPoll(),
		kgo.SessionTimeout(b.o.Session),
		kgo.HeartbeatInterval(b.o.Session/6),
		kgo.RebalanceTimeout(b.o.Stall),
		kgo.FetchMaxWait(time.Second),
	)
	if err != nil {
		return nil, fmt.Errorf("reader %s: %w", group, err)
	}
	return r, nil
}

// leaveWithin bounds the farewell to brokers that do not answer. They notice by
// themselves.
const leaveWithin = 3 * time.Second

// Close leaves the group, so that others go on at once. No Step runs meanwhile.
func (r *Reader) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), leaveWithin)
	defer cancel()
	r.client.AllowRebalance()
	if err := r.client.LeaveGroupContext(ctx); err != nil {
		r.log.Warn("the group was not told that this reader has left", "error", err)
	}
	r.client.Close()
}

// Step takes one batch from the bus and delivers it: keys side by side, each in
// order. Then it notes what became of it in the inbox, and only then commits
// the position. worked says that there was something. After an error nothing is
// lost: what was not noted is read again.
func (r *Reader) Step(ctx context.Context) (worked bool, err error) {
	if full, err := r.full(ctx); err != nil || full {
		return false, err
	}
	if err := r.answered(ctx); err != nil {
		return false, err
	}
	poll, cancel := context.WithTimeout(ctx, r.o.Wait)
	fetches := r.client.PollRecords(poll, r.o.Batch)
	cancel()
	defer r.client.AllowRebalance()
	var errs []error
	fetches.EachError(func(topic string, partition int32, err error) {
		if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
			errs = append(errs, fmt.Errorf("reader %s: partition %d: %w", r.group, partition, err))
		}
	})
	records := fetches.Records()
	r.failing = len(errs) > 0
	if len(records) == 0 {
		return false, errors.Join(errs...)
	}
	settled, err := r.settle(ctx, records)
	if err != nil {
		settled = make([]bool, len(records))
		errs = append(errs, fmt.Errorf("reader %s: %w", r.group, err))
	}
	commit, rewind := positions(records, settled)
	if len(commit) > 0 {
		// Also when stopping: otherwise all this is read again.
		if err := r.commit(context.WithoutCancel(ctx), commit); err != nil {
			errs = append(errs, fmt.Errorf("reader %s: commit position: %w", r.group, err))
			// All is read again, passed over because it is noted, and committed then:
			// there may be no later record to make it good by.
			commit, rewind = positions(records, make([]bool, len(records)))
		}
	}
	if len(rewind) > 0 {
		r.client.SetOffsets(rewind)
	}
	return len(commit) > 0, errors.Join(errs...)
}

// answered asks the brokers while they are known to fail. A fetch tells of that now
// and then only, and one without records does not mean that all is well again.
func (r *Reader) answered(ctx context.Context) error {
	if !r.failing {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, pingWithin)
	defer cancel()
	if err := r.client.Ping(ctx); err != nil {
		return fmt.Errorf("reader %s: the brokers do not answer: %w", r.group, err)
	}
	r.failing = false
	return nil
}

// pingWithin bounds one question whether a broker is there.
const pingWithin = 2 * time.Second

// full says that too much waits in the inbox. It asks only while it may be so.
func (r *Reader) full(ctx context.Context) (bool, error) {
	if !r.crowded {
		return false, nil
	}
	n, _, err := r.inbox.Backlog(ctx)
	r.crowded = n > 0
	return n >= r.o.MaxWaiting, err
}

// item is a record as a message.
type item struct {
	at  int // in the batch
	m   outbox.Message
	bad error // it is none
}

// lane is what became of the messages of one key.
type lane struct {
	items    []item
	consumed []int64
	parked   []outbox.Waiting
	dead     []outbox.Message
}

// settle delivers a batch and notes what became of it. settled tells of each
// record whether the position may move beyond it.
func (r *Reader) settle(ctx context.Context, records []*kgo.Record) (settled []bool, err error) {
	messages := make([]outbox.Message, len(records))
	at := map[string]*lane{}
	var lanes []*lane
	for i, record := range records {
		m, bad := messageOf(record)
		messages[i] = m
		l := at[m.Key]
		if l == nil {
			l = &lane{}
			at[m.Key] = l
			lanes = append(lanes, l)
		}
		l.items = append(l.items, item{i, m, bad})
	}
	consumed, waiting, err := r.inbox.Look(ctx, messages)
	if err != nil {
		return nil, err
	}
	settled = make([]bool, len(records))
	until := time.Now().Add(r.o.Budget)
	slots := make(chan struct{}, r.o.Workers)
	var wg sync.WaitGroup
	for _, l := range lanes {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			r.deliver(ctx, l, consumed, waiting[l.items[0].m.Key], until, settled)
		})
	}
	wg.Wait()
	return settled, r.note(context.WithoutCancel(ctx), lanes)
}

// deliver brings one key's messages to the handlers, up to the first that
// cannot be delivered now; that one and those behind it are parked. Lanes share
// consumed, which none changes, and each writes its own places of settled.
func (r *Reader) deliver(ctx context.Context, l *lane, consumed map[int64]bool, blocked bool, until time.Time, settled []bool) {
	seen := map[int64]bool{}
	for _, it := range l.items {
		m := it.m
		switch {
		case consumed[m.ID] || seen[m.ID]:
			r.passed.Add(1)
		case it.bad != nil:
			m.Reason = it.bad.Error()
			l.parked = append(l.parked, outbox.Waiting{Message: m, Next: outbox.Never})
			l.dead = append(l.dead, m)
		case blocked:
			l.parked = append(l.parked, outbox.Waiting{Message: m, Next: m.NotBefore})
		case m.NotBefore > r.now().UnixMilli():
			l.parked = append(l.parked, outbox.Waiting{Message: m, Next: m.NotBefore})
			blocked = true
		default:
			if ctx.Err() != nil || time.Now().After(until) {
				return // the rest is read again
			}
			if err := r.Relay.Try(ctx, m); err == nil {
				l.consumed = append(l.consumed, m.ID)
			} else if ctx.Err() != nil {
				return // stopping is nobody's failure
			} else {
				w := r.Relay.Judge(m, err)
				l.parked = append(l.parked, w)
				if w.Next == outbox.Never {
					l.dead = append(l.dead, w.Message)
				}
				blocked = true
			}
		}
		seen[m.ID] = true
		settled[it.at] = true
	}
}

// note makes durable what became of a batch, and tells of dead letters.
func (r *Reader) note(ctx context.Context, lanes []*lane) error {
	var all lane
	for _, l := range lanes {
		all.consumed = append(all.consumed, l.consumed...)
		all.parked = append(all.parked, l.parked...)
		all.dead = append(all.dead, l.dead...)
	}
	if err := r.inbox.Keep(ctx, all.consumed, all.parked); err != nil {
		return err
	}
	r.crowded = r.crowded || len(all.parked) > 0
	r.delivered.Add(uint64(len(all.consumed)))
	r.kept.Add(uint64(len(all.parked)))
	for _, m := range all.dead {
		r.Relay.Bury(m)
	}
	return nil
}

type offsets = map[string]map[int32]kgo.EpochOffset

// positions are, of each partition, the position to commit, which is behind the
// last record before any that is not settled, and the one to read again from.
func positions(records []*kgo.Record, settled []bool) (commit, rewind offsets) {
	commit, rewind = offsets{}, offsets{}
	set := func(o offsets, r *kgo.Record, offset int64) {
		if o[r.Topic] == nil {
			o[r.Topic] = map[int32]kgo.EpochOffset{}
		}
		o[r.Topic][r.Partition] = kgo.EpochOffset{Epoch: r.LeaderEpoch, Offset: offset}
	}
	for i, r := range records { // ascending in each partition
		if _, stopped := rewind[r.Topic][r.Partition]; stopped {
			continue
		}
		if settled[i] {
			set(commit, r, r.Offset+1)
		} else {
			set(rewind, r, r.Offset)
		}
	}
	return commit, rewind
}

func (r *Reader) commit(ctx context.Context, to offsets) (err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	r.client.CommitOffsetsSync(ctx, to, func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, reply *kmsg.OffsetCommitResponse, failed error) {
		if err = failed; err != nil {
			return
		}
		for _, t := range reply.Topics {
			for _, p := range t.Partitions {
				err = errors.Join(err, kerr.ErrorForCode(p.ErrorCode))
			}
		}
	})
	return err
}

// ReaderStats count since the reader was made.
type ReaderStats struct {
	Delivered uint64 // messages at first try
	Passed    uint64 // messages passed over, for they were consumed
	Parked    uint64 // messages put into the inbox
}

// Stats of this process's part. What waits in the inbox is in the relay's.
func (r *Reader) Stats() ReaderStats {
	return ReaderStats{r.delivered.Load(), r.passed.Load(), r.kept.Load()}
}
