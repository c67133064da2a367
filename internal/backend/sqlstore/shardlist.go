package sqlstore

import (
	"cmp"
	"context"
	"fmt"
	"sync"

	"sluice/internal/order"
	"sluice/internal/stock"
)

// A page of orders out of many tables. Each table gives a small page of its own,
// and another when that is used up: what is held at a time is the page asked
// for and a few rows of each table, however many they have.

// scatterWide is how many tables are read side by side.
const scatterWide = 8

// List implements order.Store. Orders of one user are in one table; any other
// query asks all of them.
func (s *Sharded) List(ctx context.Context, q order.Query) ([]order.Order, error) {
	if s.lone() {
		return s.Store.List(ctx, q)
	}
	if q.User != "" {
		return s.groups[s.groupOfUser(q.User)].List(ctx, q)
	}
	if q.Limit < 1 || q.Limit > order.MaxPage {
		return s.Store.List(ctx, q) // which refuses it
	}
	if _, ok := rowID(q.Before); q.Before != "" && !ok {
		return s.Store.List(ctx, q)
	}
	runs := make([]*run, len(s.groups))
	for i, g := range s.groups {
		runs[i] = &run{group: g, query: q}
	}
	if err := fill(ctx, runs, q.Limit/len(runs)+2); err != nil {
		return nil, err
	}
	less := newest
	if q.DueBy > 0 {
		less = soonest
	}
	page := make([]order.Order, 0, min(q.Limit, 64))
	for len(page) < q.Limit {
		var next *run
		for _, r := range runs {
			if len(r.page) > 0 && (next == nil || less(&r.page[0], &next.page[0]) < 0) {
				next = r
			}
		}
		if next == nil {
			break
		}
		page = append(page, next.page[0])
		next.last, next.page = &page[len(page)-1], next.page[1:]
		if len(next.page) > 0 || next.done {
			continue
		}
		if err := next.fill(ctx, q.Limit-len(page)); err != nil {
			return nil, err
		}
	}
	return page, nil
}

// newest and soonest are the orders of pages, see order.Store.

func newest(a, b *order.Order) int { return cmp.Compare(number(b.ID), number(a.ID)) }

func soonest(a, b *order.Order) int {
	return cmp.Or(cmp.Compare(a.CheckAt, b.CheckAt), cmp.Compare(number(a.ID), number(b.ID)))
}

func number(id stock.OrderID) int64 {
	n, _ := rowID(id)
	return n
}

// run is what one table has yet to give.
type run struct {
	group group
	query order.Query
	page  []order.Order
	last  *order.Order // the last one taken
	taken int          // by queries that cannot begin behind last
	done  bool         // page is the end of it
}

// fill reads the next few orders of a run. Queries by id begin behind the last
// one; those by time have no such place, and are asked again for more.
func (r *run) fill(ctx context.Context, n int) error {
	q, skip := r.query, 0
	q.Limit = min(max(n, 1), order.MaxPage)
	if r.last != nil && q.DueBy == 0 {
		q.Before = r.last.ID
	} else if r.last != nil {
		skip = r.taken
		q.Limit = min(skip+q.Limit, order.MaxPage)
	}
	page, err := r.group.List(ctx, q)
	if err != nil {
		return err
	}
	r.done = len(page) < q.Limit || q.Limit == order.MaxPage
	r.taken = len(page)
	for skip > 0 && len(page) > 0 && soonest(&page[0], r.last) <= 0 {
		page = page[1:]
	}
	r.page = page
	return nil
}

// fill begins all runs, a bounded number side by side.
func fill(ctx context.Context, runs []*run, n int) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan *run)
	var all sync.WaitGroup
	for range min(scatterWide, len(runs)) {
		all.Go(func() {
			for r := range next {
				if err := r.fill(ctx, n); err != nil {
					cancel(err)
				}
			}
		})
	}
	for _, r := range runs {
		if ctx.Err() != nil {
			break
		}
		next <- r
	}
	close(next)
	all.Wait()
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("store: list orders: %w", err)
	}
	return nil
}
