package proof

import (
	"context"
	"fmt"
	"iter"

	"sluice/internal/stock"
)

// history answers how the ledger came to stand as it does.
type history interface {
	// Start is the place before the first entry that Tail can still yield.
	Start() stock.Cursor
	Tail(ctx context.Context, after stock.Cursor) iter.Seq2[stock.Entry, error]
	Replica(ctx context.Context, upTo stock.Cursor) (map[stock.ActivityID]*stock.Book, error)
}

// replica is a second set of books that follows the log at the auditor's pace.
// Between two audits it costs only the entries in between; it shares nothing
// with the books that decide, so a fault in those cannot hide in it. It takes
// about as much memory as they do. Not safe for concurrent use.
//
// It begins with the oldest entry of the log, so that every acceptance is seen
// and held against the limits in force at it. Only activities whose first entry
// the log has forgotten come from the ledger's snapshots.
type replica struct {
	ledger history
	at     stock.Cursor // every entry up to here is in books
	books  stock.Books
	limits map[stock.ActivityID]*limits
	whole  bool // books has all activities, not only those whose first entry was in the log
}

// advance brings the books to exactly mark and answers them; they are valid
// until the next call. When the log no longer reaches back to where they
// stand, or anything at all is wrong with the way, they are made anew. Cut
// short by ctx, it goes on from there the next time.
func (r *replica) advance(ctx context.Context, mark stock.Cursor) (map[stock.ActivityID]*stock.Book, error) {
	fresh := r.books == nil
	for {
		if r.books == nil {
			r.begin()
		}
		err := r.follow(ctx, mark)
		if err == nil {
			err = r.complete(ctx, mark)
		}
		if err == nil {
			return r.books, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		r.books = nil
		if fresh {
			break
		}
		fresh = true
	}
	r.books, r.limits, r.at, r.whole = stock.Books{}, map[stock.ActivityID]*limits{}, mark, false
	if err := r.complete(ctx, mark); err != nil {
		r.books = nil
		return nil, err
	}
	return r.books, nil
}

// begin goes back to where the log starts.
func (r *replica) begin() {
	r.at = r.ledger.Start()
	r.books, r.limits, r.whole = stock.Books{}, map[stock.ActivityID]*limits{}, r.at.Position == 0
}

func (r *replica) follow(ctx context.Context, mark stock.Cursor) error {
	if after(r.at, mark) || r.at.Position > 0 && r.at.Epoch != mark.Epoch {
		return fmt.Errorf("a way from %d.%d to %d.%d does not exist", r.at.Epoch, r.at.Position, mark.Epoch, mark.Position)
	}
	if r.at.Position == mark.Position {
		return nil
	}
	for e, err := range r.ledger.Tail(ctx, r.at) {
		if err != nil {
			return err
		}
		if !after(e.Cursor, r.at) {
			continue // the log may repeat entries
		}
		if after(e.Cursor, mark) {
			break
		}
		if err := r.take(e); err != nil {
			return err
		}
		r.at = e.Cursor
	}
	if r.at.Position != mark.Position {
		return fmt.Errorf("the log ends at %d, before %d", r.at.Position, mark.Position)
	}
	return nil
}

func (r *replica) take(e stock.Entry) error {
	book := r.books[e.Activity]
	switch {
	case book != nil:
		r.limits[e.Activity].take(e, book)
	case e.Kind == stock.EntryOpened:
		r.limits[e.Activity] = newLimits(e.Allocation.PerUser, e.Allocation.Items)
	case !r.whole:
		return nil // its first entry is gone; complete sees to it
	}
	return r.books.Replay(e)
}

// complete adds what cannot be had from the log.
func (r *replica) complete(ctx context.Context, mark stock.Cursor) error {
	if r.whole {
		return nil
	}
	books, err := r.ledger.Replica(ctx, mark)
	if err != nil {
		return err
	}
	for activity, book := range books {
		if r.books[activity] == nil {
			r.books[activity], r.limits[activity] = book, standingLimits(book, mark.Position)
		}
	}
	r.whole = true
	return nil
}

func after(a, b stock.Cursor) bool {
	if a.Epoch != b.Epoch {
		return a.Epoch > b.Epoch
	}
	return a.Position > b.Position
}
