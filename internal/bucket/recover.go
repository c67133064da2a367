package bucket

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sluice/internal/order"
	"sluice/internal/stock"
)

// silentFor is how long an engine that cannot be asked is asked again before its
// bucket is rebuilt all the same.
const silentFor = 10 * time.Second

// head asks the engine for the bucket's newest entry. One that cannot be asked
// has said nothing about the bucket, which gateways may reach and which may have
// lost nothing. So it is asked again, like anything that fails, but with an end:
// what fails for silentFor may be what the bucket has become, and go on until
// it is rebuilt. If nobody can reach the engine, that goes on until it is back.
func (t *tenure) head(ctx context.Context, epoch uint32) (stock.Cursor, error) {
	at, err := t.Engine.Head(ctx, t.place, epoch)
	switch {
	case err == nil:
		t.silent = time.Time{}
	case errors.Is(err, stock.ErrNotReady), ctx.Err() != nil:
	case t.silent.IsZero():
		t.silent = t.Now()
	case t.Now().Sub(t.silent) >= silentFor:
		err = fmt.Errorf("%w: it could not be asked for %v: %w", stock.ErrNotReady, silentFor, err)
	}
	return at, err
}

// lost says that the log itself is at fault: what follows in it is not the work
// of this bucket's engine, or is gone. Any other failure passes.
func lost(err error) bool {
	return errors.Is(err, stock.ErrCorrupt) || errors.Is(err, stock.ErrTruncated)
}

// recover rebuilds a bucket: nothing is accepted from here on; what survives in
// the log lands, as far as it is whole; the store enters a new epoch; the engine
// gets what the store keeps, and accepts in that epoch. To open a new bucket is
// the same with nothing to recover.
//
// The store goes first. A keeper that lost its place learns it there, before it
// could overwrite what its successor has in the engine.
func (t *tenure) recover(ctx context.Context, fresh bool) error {
	if fresh {
		t.state = Opening
	}
	if err := t.Engine.Fence(ctx, t.place, t.token); err != nil {
		return fmt.Errorf("fence %s: %w", t.log, err)
	}
	kept, batch, err := t.last(ctx, fresh)
	if err != nil {
		return err
	}
	batch.Log, batch.Token = t.log, t.token
	if err := t.Store.Land(ctx, batch); err != nil {
		return fmt.Errorf("enter epoch %d of %s: %w", batch.To.Epoch, t.log, err)
	}
	book, err := restore(batch.To.Epoch, kept)
	if err != nil {
		return fmt.Errorf("restore %s: %w", t.log, err)
	}
	if err := t.Engine.Restore(ctx, t.place, t.token, book); err != nil {
		return fmt.Errorf("restore %s: %w", t.log, err)
	}
	if err := t.Engine.Activate(ctx, t.place, t.token, batch.To.Epoch); err != nil {
		return fmt.Errorf("activate epoch %d of %s: %w", batch.To.Epoch, t.log, err)
	}
	t.land(book, batch.To)
	t.begin(kept.Rules)
	if !fresh {
		t.recovered()
	}
	t.why = ""
	return nil
}

// last is what the store keeps once everything has landed that ever will of the
// epochs before, and the batch that ends them.
func (t *tenure) last(ctx context.Context, fresh bool) (order.Kept, order.Batch, error) {
	if fresh {
		opened := t.opened()
		return order.Kept{Rules: []stock.Entry{opened}}, order.Batch{To: opened.Cursor, Rules: []stock.Entry{opened}}, nil
	}
	kept, err := t.survivors(ctx)
	if err != nil {
		return kept, order.Batch{}, err
	}
	// Above every epoch that was ever seen, also where the store went back:
	// no reservation gets a number that another one had.
	next := max(kept.Watermark.Epoch, t.newest) + 1
	return kept, order.Batch{From: kept.Watermark, To: stock.Cursor{Log: t.log, Epoch: next}}, nil
}

// opened is the entry that opens the bucket with its share.
func (t *tenure) opened() stock.Entry {
	a := t.allocation.Share(t.place.Bucket)
	a.Epoch = max(a.Epoch, 1)
	return stock.Entry{Cursor: stock.Cursor{Log: t.log, Epoch: a.Epoch}, Activity: a.Activity, Bucket: a.Bucket,
		Sequence: 1, Kind: stock.EntryOpened, Allocation: &a}
}

// survivors lands what the fenced log still has after the watermark, and answers
// what the store keeps then. Where the log has a gap or an entry that cannot be,
// it ends: what comes after was never promised to anybody.
func (t *tenure) survivors(ctx context.Context) (order.Kept, error) {
	for {
		kept, err := t.Buckets.Kept(ctx, t.log)
		if err != nil {
			return kept, err
		}
		if err := t.use(kept); err != nil {
			return kept, err
		}
		worked := true
		for worked && err == nil {
			worked, err = t.lander.Step(ctx)
		}
		if t.judged == 0 && (err == nil || lost(err)) {
			if err != nil {
				t.Logger.Warn("the rest of the log is lost", "log", t.log, "landed", kept.Watermark.Position, "why", err)
			}
			return kept, nil
		}
		if err != nil && (!lost(err) || t.lander.Landed() == kept.Watermark) {
			return kept, fmt.Errorf("land the rest of %s: %w", t.log, err)
		}
	}
}

// Recovery is one rebuilding of a bucket.
type Recovery struct {
	Why   string
	At    time.Time     // when it was found to be needed, or the engine to be silent
	Took  time.Duration // from then until the bucket accepted again
	Epoch uint32        // in which it accepts since
}

// maxRecoveries bounds those remembered of a bucket; all are counted.
const maxRecoveries = 16

func (t *tenure) recovered() {
	r := Recovery{Why: t.why, At: t.since, Took: t.Now().Sub(t.since), Epoch: t.epoch}
	t.total.recoveries++
	t.total.times = append(t.total.times, r)
	if n := len(t.total.times); n > maxRecoveries {
		t.total.times = append(t.total.times[:0:0], t.total.times[n-maxRecoveries:]...)
	}
	c := t.book.Counts()
	t.Logger.Warn("bucket rebuilt", "log", t.log, "epoch", t.epoch, "took", r.Took, "why", r.Why, "phase", c.Phase)
}
