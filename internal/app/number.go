package app

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
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
// number's row in the store, where no other's can be.
type number struct {
	n     int
	kept  *lease.Keeper
	spans *id.Spans // nil before mint
}

// numberTTL is for how long a process that cannot reach the store goes on
// accepting purchases, which wait in the ledger to be landed; and by how much
// the clocks of two machines may differ.
const numberTTL = 30 * time.Second

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

// Step renews the lease and lengthens the span of time. errTaken is for good;
// any other failure is tried again until then. It may even be that the lease ran
// out meanwhile: then nothing was accepted, and it is ours again unless somebody
// came.
func (k *number) Step(ctx context.Context) (worked bool, err error) {
	if _, err = k.kept.Step(ctx); err != nil {
		return false, err
	}
	if _, err := k.kept.Held(); err != nil {
		return false, errTaken
	}
	if k.spans == nil {
		return false, nil
	}
	return k.spans.Step(ctx)
}

// Admit implements sale.Gate: without its number a process makes no order id.
// A process that was stopped and wakes up after its lease has another's ids to
// fear, so it is the clock that is asked here, and not what was known last.
func (k *number) Admit(context.Context, sale.PurchaseRequest) ([]string, error) {
	if _, err := k.kept.Held(); err != nil {
		return nil, fmt.Errorf("%w: worker number %d: %w", stock.ErrNotReady, k.n, err)
	}
	return nil, nil
}
