package storm

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// sellOff is the tail: what was cancelled or let expire is bought by users who
// pay, until all is sold or nobody is left to buy, or the counts have not changed
// for the patience: a slow shop is not one that strands units. It returns the
// units that nobody could get hold of at its end although users kept asking.
func (r *rehearsal) sellOff(ctx context.Context) (unsold int) {
	const steady = 5   // samples in a row that must show units stranded
	const longest = 10 // times the patience
	r.selling.Store(true)
	defer r.resting.Store(true)
	limit := time.Duration(r.o.Hold)*time.Second + r.wait.tail
	ctx, stop := context.WithTimeout(ctx, longest*limit)
	defer stop()
	var wg sync.WaitGroup
	// Often enough that all units are asked for in a quarter of the time.
	rate := max(r.o.Rate, int(4*float64(r.o.Stock)/limit.Seconds()))
	wg.Go(func() {
		r.flood(ctx, newSchedule(time.Now(), min(rate, tailRate), longest*limit))
	})
	var last item // the counts, and since when they have been the same
	since := time.Now()
	var stranded [steady]int
	pace := time.NewTicker(samplePace)
	defer pace.Stop()
	for n := 0; ctx.Err() == nil; n++ {
		asking, holders := r.crowd.demand()
		stranded[n%steady] = 0
		if i, err := r.shop.count(); err == nil {
			if asking > 0 {
				stranded[n%steady] = max(i.Allocated-max(i.Confirmed, r.oracle.claimed(time.Now(), r.wait.overdue)), 0)
			}
			if i != last {
				last, since = i, time.Now()
			}
			if i.Confirmed >= i.Allocated {
				stop()
			}
		}
		if asking+holders == 0 || time.Since(since) > limit {
			stop()
		}
		select {
		case <-pace.C:
		case <-ctx.Done():
		}
	}
	wg.Wait()
	return slices.Min(stranded[:])
}

// recheck replays keys of receipts from the whole run, sold out or not, before
// and after a restart: each must get its receipt again. And it forges a little
// of every kind, lest a short rush had no luck with it.
func (r *rehearsal) recheck() {
	const most, forgeries = 2000, 48
	r.replaySome(r.oracle.known(), most, 0)
	for n := range uint64(forgeries) {
		if r.o.Forge > 0 {
			r.agenda.after(0, func() { r.forge(n, int(n)%r.o.Users) })
		}
	}
}

// replaySome sends the keys of at most about so many of the receipts again, at
// even distances. Another turn takes others.
func (r *rehearsal) replaySome(receipts []*receipt, most, turn int) {
	step := max(len(receipts)/most, 1)
	for i := turn % step; i < len(receipts); i += step {
		rc := receipts[i]
		r.rechecked.Add(1)
		r.agenda.after(0, func() { r.replay(rc, maxTries) })
	}
}

// drain waits until no errand is open any more, and until the server's books
// have come to rest. It is patient while they change; what does not come to
// rest is for the audit.
func (r *rehearsal) drain(ctx context.Context) {
	const longest = 10 // times the patience
	begun := time.Now()
	if late := time.Unix(0, r.lastMoney.Load()); late.After(begun) {
		begun = late
	}
	changed, last := begun, ""
	pace := time.NewTicker(r.wait.sample)
	defer pace.Stop()
	for {
		quiet, books := r.quiet()
		if quiet && r.agenda.open.Load() == 0 {
			return
		}
		now := time.Now()
		if books != last && now.After(changed) {
			changed, last = now, books
		}
		if now.Sub(changed) > r.wait.quiet || now.Sub(begun) > longest*r.wait.quiet {
			r.notes.add("after %s of waiting %d errands were open, or the server's books were not at rest", now.Sub(begun).Round(time.Second), r.agenda.open.Load())
			return
		}
		select {
		case <-pace.C:
		case <-ctx.Done():
			return
		}
	}
}

// quiet says that every order is landed, every end of a reservation has
// reached the ledger, all money that was taken has found its place, and the
// server's own proof agrees. books changes with everything but that.
func (r *rehearsal) quiet() (quiet bool, books string) {
	p, err := r.shop.proof()
	if err != nil || len(p.Ledger) != 1 {
		return false, ""
	}
	least, most := r.oracle.taken(time.Now())
	money := p.Payments
	r.oracle.proofSaid(p.Violations) // it may be late to agree, and never wrong to disagree
	return p.OK && atRest(p.Ledger[0], p.Orders) && money.Owed == 0 && money.Captured >= least && money.Captured <= most,
		fmt.Sprint(p.Ledger, p.Orders, money)
}
