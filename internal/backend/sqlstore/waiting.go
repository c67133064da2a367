package sqlstore

import (
	"bytes"
	"context"
	"database/sql/driver"
	"encoding/json"
	"fmt"

	"sluice/internal/gate/waiting"
	"sluice/internal/stock"
)

// Waiting are the store's waiting rooms. Make one and share it: those who join
// at once through the same one share a transaction.
type Waiting struct {
	s     *Store
	joins joins
}

var _ waiting.Line = (*Waiting)(nil)

// Waiting answers the store's waiting rooms.
func (s *Store) Waiting() *Waiting { return &Waiting{s: s} }

const (
	// dropSize bounds the places that one transaction forgets.
	dropSize = 2000
	// maxEntries bounds a page of entries.
	maxEntries = 10_000
)

const readRoom = `SELECT seed, opened_at, revision, progress,
	(SELECT max(number) FROM waiting_places WHERE activity = ?) FROM waiting_rooms WHERE activity = ?`

func waitingRoom(c *conn, activity, ending string) (r waiting.Room, err error) {
	row, ok, err := c.one(readRoom+ending, activity, activity)
	if err != nil {
		return r, err
	}
	if !ok {
		return r, waiting.ErrNoRoom
	}
	r = waiting.Room{Activity: activity, OpenedAt: waiting.Millis(integer(row[1])), Revision: integer(row[2])}
	copy(r.Seed[:], blob(row[0]))
	if row[4] != nil {
		r.Joined = int(integer(row[4])) + 1
	}
	if err := json.Unmarshal(blob(row[3]), &r.Progress); err != nil {
		return r, fmt.Errorf("progress of the waiting room of %q: %w", activity, err)
	}
	return r, nil
}

// Open implements waiting.Line.
func (w *Waiting) Open(ctx context.Context, activity string, seed waiting.Seed, at waiting.Millis) (r waiting.Room, err error) {
	none, err := json.Marshal(waiting.Progress{})
	if err != nil {
		return r, err
	}
	err = w.s.writing(ctx, "open a waiting room", func(c *conn) error {
		if r, err = waitingRoom(c, activity, c.d.forUpdate); err != waiting.ErrNoRoom {
			return err
		}
		if _, err := c.exec("INSERT INTO waiting_rooms (activity, seed, opened_at, revision, progress) VALUES (?, ?, ?, 0, ?)",
			activity, seed[:], int64(at), none); err != nil {
			return raced(err)
		}
		r, err = waitingRoom(c, activity, "")
		return err
	})
	return r, err
}

// Room implements waiting.Line.
func (w *Waiting) Room(ctx context.Context, activity string) (r waiting.Room, err error) {
	err = w.s.reading(ctx, "waiting room", func(c *conn) error {
		r, err = waitingRoom(c, activity, "")
		return err
	})
	return r, err
}

// Find implements waiting.Line.
func (w *Waiting) Find(ctx context.Context, activity, user string) (number int, entry waiting.EntryID, err error) {
	err = w.s.reading(ctx, "place in a waiting room", func(c *conn) error {
		have, err := placesOf(c, activity, []*join{{user: user}})
		if err != nil {
			return err
		}
		p, has := have[user]
		if !has {
			return waiting.ErrNotWaiting
		}
		number, entry = p.number, p.entry
		return nil
	})
	return number, entry, err
}

// Advance implements waiting.Line.
func (w *Waiting) Advance(ctx context.Context, activity string, revision int64, next waiting.Progress) (r waiting.Room, err error) {
	doc, err := json.Marshal(next)
	if err != nil {
		return r, fmt.Errorf("store: progress of a waiting room: %w", err)
	}
	err = w.s.writing(ctx, "advance a waiting room", func(c *conn) error {
		moved, err := c.exec("UPDATE waiting_rooms SET revision = revision + 1, progress = ? WHERE activity = ? AND revision = ?", doc, activity, revision)
		if err != nil {
			return err
		}
		if r, err = waitingRoom(c, activity, c.d.forUpdate); err != nil || moved == 1 {
			return err
		}
		if c.doubt && r.Revision == revision+1 {
			// Whoever wrote it wrote just this: there is nothing to tell apart.
			if stands, err := json.Marshal(r.Progress); err != nil || bytes.Equal(stands, doc) {
				return err
			}
		}
		return waiting.ErrMoved
	})
	return r, err
}

// Entries implements waiting.Line.
func (w *Waiting) Entries(ctx context.Context, activity string, from, limit int) (page []waiting.EntryID, err error) {
	if from < 0 || limit < 1 || limit > maxEntries {
		return nil, fmt.Errorf("store: %w: entries from %d, limit %d is not in 1..%d", stock.ErrInvalid, from, limit, maxEntries)
	}
	err = w.s.reading(ctx, "entries of a waiting room", func(c *conn) error {
		return c.query(ctx, "SELECT entry FROM waiting_places WHERE activity = ? AND number >= ? ORDER BY number LIMIT ?", func(row []driver.Value) error {
			var e waiting.EntryID
			copy(e[:], blob(row[0]))
			page = append(page, e)
			return nil
		}, activity, from, limit)
	})
	return page, err
}

// Drop implements waiting.Line. A room of a million takes its time, and none of
// its transactions much: the lowest numbers go first, so that the room goes on
// where it was if this is cut short.
func (w *Waiting) Drop(ctx context.Context, activity string) error {
	for more := true; more; {
		err := w.s.writing(ctx, "drop a waiting room", func(c *conn) error {
			more = false
			if _, err := waitingRoom(c, activity, c.d.forUpdate); err != nil && err != waiting.ErrNoRoom {
				return err
			}
			row, _, err := c.one("SELECT (SELECT min(number) FROM waiting_places WHERE activity = ?), (SELECT max(number) FROM waiting_places WHERE activity = ?)",
				activity, activity)
			if err != nil {
				return err
			}
			lowest, highest := integer(row[0]), integer(row[1])
			if more = highest-lowest >= dropSize; more {
				_, err = c.exec("DELETE FROM waiting_places WHERE activity = ? AND number < ?", activity, lowest+dropSize)
				return err
			}
			if _, err = c.exec("DELETE FROM waiting_places WHERE activity = ?", activity); err == nil {
				_, err = c.exec("DELETE FROM waiting_rooms WHERE activity = ?", activity)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}
