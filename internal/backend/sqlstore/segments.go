package sqlstore

import (
	"context"
	"fmt"
	"math"

	"sluice/internal/lib/id"
	"sluice/internal/stock"
)

// NextNumber is from where the next segment of a row would be cut; 0 of a row
// that nobody has asked for. It changes nothing.
func (s *Store) NextNumber(ctx context.Context, row string) (next int64, err error) {
	err = s.reading(ctx, "next number", func(c *conn) error {
		have, known, err := c.one("SELECT next_number FROM segments WHERE name = ?", row)
		if err == nil && known {
			next = integer(have[0])
		}
		return err
	})
	return next, err
}

// CutSegment gives the next size (1..id.MaxSegment) numbers of a row
// (1..id.MaxRow bytes) to whoever asks, from atLeast on if that is ahead: a row
// begins at max(atLeast, 1) when it is first asked for. It is durable when it
// returns, and no number is ever in two segments: a commit whose answer is not
// heard is followed by another cut, and what the first one took is used by
// nobody. A row that would pass the largest int64 is stock.ErrInvalid.
func (s *Store) CutSegment(ctx context.Context, row string, atLeast, size int64) (cut id.Segment, err error) {
	if len(row) < 1 || len(row) > id.MaxRow || size < 1 || size > id.MaxSegment {
		return cut, fmt.Errorf("store: cut segment: %w: %d of %.80q", stock.ErrInvalid, size, row)
	}
	err = s.writing(ctx, "cut segment", func(c *conn) error {
		have, known, err := c.one("SELECT next_number FROM segments WHERE name = ?"+s.d.forUpdate, row)
		if err != nil {
			return err
		}
		first := max(atLeast, 1)
		if known {
			first = max(first, integer(have[0]))
		}
		if first > math.MaxInt64-size {
			return fmt.Errorf("%w: %d more numbers of %q, of which %d are gone", stock.ErrInvalid, size, row, first-1)
		}
		cut = id.Segment{First: first, End: first + size}
		if !known {
			_, err = c.exec("INSERT INTO segments (name, next_number) VALUES (?, ?)", row, cut.End)
			return raced(err)
		}
		_, err = c.exec("UPDATE segments SET next_number = ? WHERE name = ?", cut.End, row)
		return err
	})
	if err != nil {
		return id.Segment{}, err
	}
	return cut, nil
}
