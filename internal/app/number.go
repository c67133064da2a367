package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"sync/atomic"
	"time"

	"sluice/internal/lib/id"
	"sluice/internal/lib/lease"
	"sluice/internal/sale"
	"sluice/internal/stock"
)

// number is this process's own part of every order id: no two live processes
// have the same. It is a lease, id/<n>.
//
// The lease is renewed, and never given back: whoever gets the number next has
// waited for its end, so that a clock which is behind by less than that cannot
// make an id again which the former holder made last.
//
// Leases and clocks can be wrong, and two processes with one number would make
// the same ids. So a process makes them in spans of time that it has cut from the
// number's row in the store, where no other's can be. For the same reason it goes
// on with a number while the leases do not answer, and may even begin with one.
type number struct {
	n     int
	kept  *lease.Keeper
	spans *id.Spans // nil before mint

	// unasked: the leases have not answered since the process began.
	unasked atomic.Bool
}

// numberTTL is for how long a process that cannot reach the store goes on
// accepting purchases, which wait in the ledger to be landed; and by how much
// the clocks of two machines may differ.
const numberTTL = 30 * time.Second

// unaskedTries bounds the search for a number without leases. Each try that
// fails found one that a process is using; a fleet uses a part of them.
const unaskedTries = 16

// openIDs takes a number and makes the source of order ids with it; unasked: it
// begins without the leases, which do not answer.
func (d *doors) openIDs(ctx context.Context, unasked bool, log *slog.Logger) (err error) {
	for range unaskedTries {
		if unasked {
			d.number = guessNumber(d.leases, d.holder)
		} else if d.number, err = takeNumber(ctx, d.leases, d.holder); err != nil {
			return err
		}
		// Marked: of an order that Redis lost nothing is left but its id.
		d.ids = id.NewMarkingSource(d.number.n, d.clock.Now)
		if unasked {
			if used, err := id.NewSpans(d.ids, d.store, numberTTL).Used(ctx, d.store.NextNumber); err != nil {
				return err
			} else if used {
				continue
			}
		}
		if err := d.number.mint(ctx, d.ids, d.store); err != nil {
			return err
		}
		// Two may have looked at the same moment: then this span begins behind the other's.
		if n := d.ids.For(d.holder); !unasked || id.Time(n).Sub(d.clock.Now()) < numberTTL/3 {
			log.Info("worker number taken", "number", d.number.n, "without_lease", unasked)
			return nil
		}
	}
	return fmt.Errorf("%d numbers were tried, and all are in use; bring the leases back", unaskedTries)
}

// guessNumber is one without a lease. If somebody has it, both make other ids. The
// first answer of the leases decides.
func guessNumber(leases lease.Leases, holder string) *number {
	n := rand.IntN(id.Workers)
	k := &number{n: n, kept: lease.NewKeeper(leases, "id/"+strconv.Itoa(n), holder, numberTTL, time.Now)}
	k.unasked.Store(true)
	return k
}

// errTaken: the lease ran out while this process could not renew it, and was
// given to another one.
var errTaken = errors.New("another process has this one's worker number; start again for a new one")

// takeNumber finds a free one.
func takeNumber(ctx context.Context, leases lease.Leases, holder string) (*number, error) {
	first := rand.IntN(id.Workers)
	for i := range id.Workers {
		n := (first + i) % id.Workers
		name := "id/" + strconv.Itoa(n)
		_, err := leases.Acquire(ctx, name, holder, numberTTL)
		if errors.Is(err, lease.ErrHeld) {
			continue
		}
		if err != nil {
			return nil, err
		}
		// Its clock is the machine's, which goes on when ours stands at its floor.
		k := lease.NewKeeper(leases, name, holder, numberTTL, time.Now)
		if _, err := k.Step(ctx); err != nil { // the same holder: it is given again
			return nil, err
		}
		_, err = k.Held()
		return &number{n: n, kept: k}, err
	}
	return nil, fmt.Errorf("all %d are taken; numbers of processes that ended are free %s later", id.Workers, numberTTL)
}

// mint gives a source of ids the spans of time that it needs, beginning with one.
func (k *number) mint(ctx context.Context, ids *id.Source, store interface {
	CutSegment(ctx context.Context, row string, atLeast, size int64) (id.Segment, error)
}) error {
	k.spans = id.NewSpans(ids, store, numberTTL)
	_, err := k.spans.Step(ctx)
	return err
}

// Step renews the lease and lengthens the span of time, each whether the other
// succeeds or not. errTaken is for good; any other failure is tried again until
// then. It may even be that the lease ran out meanwhile: it is ours again unless
// somebody came.
func (k *number) Step(ctx context.Context) (worked bool, err error) {
	_, failed := k.kept.Step(ctx)
	if failed == nil {
		k.unasked.Store(false)
		if _, err := k.kept.Held(); err != nil {
			return false, errTaken
		}
	}
	if k.spans != nil {
		worked, err = k.spans.Step(ctx)
	}
	return worked, errors.Join(failed, err)
}

// stands answers nil while nobody has denied that the number is this process's.
// Where ids are not kept apart by spans it has to be certain.
func (k *number) stands() error {
	if k.spans == nil {
		_, err := k.kept.Held()
		return err
	}
	if k.unasked.Load() {
		return nil
	}
	_, err := k.kept.Unrefuted()
	return err
}

// Admit implements sale.Gate: without its number a process makes no order id.
// One that was stopped and wakes up after its lease has nothing until it has
// asked, unless it was asking when it was stopped; without the store ids end with
// their span, whoever has the number.
func (k *number) Admit(context.Context, sale.PurchaseRequest) ([]string, error) {
	if err := k.stands(); err != nil {
		return nil, fmt.Errorf("%w: worker number %d: %w", stock.ErrNotReady, k.n, err)
	}
	return nil, nil
}
