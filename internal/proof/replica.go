package proof

import (
	"context"
	"fmt"

	"sluice/internal/stock"
)

// replica is a second set of books that follows the log at the auditor's pace.
// Between two audits it costs only the entries in between; it shares nothing
// with the books that decide, so a fault in those cannot hide in it. It takes
// about as much memory as they do. Not safe for concurrent use.
type replica struct {
	ledger ledger
	at     stock.Cursor // every entry up to here is in books
	books  stock.Books
}

// advance brings the books to exactly mark and answers them; they are valid
// until the next call. When the log no longer reaches back to where they
// stand, or anything at all is wrong with the way, they are made anew from the
// ledger's snapshots.
func (r *replica) advance(ctx context.Context, mark stock.Cursor) (map[stock.ActivityID]*stock.Book, error) {
	if r.books != nil && r.follow(ctx, mark) == nil {
		return r.books, nil
	}
	r.books = nil
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	books, err := r.ledger.Replica(ctx, mark)
	if err != nil {
		return nil, err
	}
	r.books, r.at = books, mark
	return books, nil
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
		if err := r.books.Replay(e); err != nil {
			return err
		}
		r.at = e.Cursor
	}
	if r.at.Position != mark.Position {
		return fmt.Errorf("the log ends at %d, before %d", r.at.Position, mark.Position)
	}
	return nil
}

func after(a, b stock.Cursor) bool {
	if a.Epoch != b.Epoch {
		return a.Epoch > b.Epoch
	}
	return a.Position > b.Position
}
