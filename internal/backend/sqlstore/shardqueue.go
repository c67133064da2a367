package sqlstore

import (
	"context"
	"fmt"
	"slices"

	"sluice/internal/lib/outbox"
)

// The outboxes of all databases as one queue. Messages of one key are all in one
// database, so their order is that database's. Between databases the oldest goes
// first, so that none of them waits for another that is busy.

// A message's id has the number of its database above that of the row: in the
// first database the two are the same.
const messageBits = 53 - 6 // what is left to a row: numbers stay exact in any JSON reader

func messageOf(database int, row int64) int64 { return int64(database)<<messageBits | row }

func (s *Sharded) rowOf(message int64) (database int, row int64, ok bool) {
	database, row = int(message>>messageBits), message&(1<<messageBits-1)
	return database, row, message >= 0 && database < len(s.dbs)
}

// queueOf is the queue of the database that has a message.
func (s *Sharded) queueOf(message int64) (q *Store, row int64, err error) {
	database, row, ok := s.rowOf(message)
	if !ok {
		return nil, 0, fmt.Errorf("store: %w: %d", outbox.ErrNoSuchMessage, message)
	}
	return s.dbs[database].Store, row, nil
}

// numbered gives messages of a database their ids.
func (db *database) numbered(messages []outbox.Message) []outbox.Message {
	for i := range messages {
		messages[i].ID = messageOf(db.number, messages[i].ID)
	}
	return messages
}

// Pending implements outbox.Queue: in id order within each key, and otherwise
// the oldest first.
func (s *Sharded) Pending(ctx context.Context, now int64, limit int) ([]outbox.Message, error) {
	heads := make([][]outbox.Message, len(s.dbs))
	for i, db := range s.dbs {
		page, err := db.Pending(ctx, now, limit)
		if err != nil {
			return nil, err
		}
		heads[i] = db.numbered(page)
	}
	if len(heads) == 1 {
		return heads[0], nil
	}
	var page []outbox.Message
	for len(page) < limit {
		next := -1
		for i, h := range heads {
			if len(h) > 0 && (next < 0 || h[0].At < heads[next][0].At) {
				next = i
			}
		}
		if next < 0 {
			break
		}
		page, heads[next] = append(page, heads[next][0]), heads[next][1:]
	}
	return page, nil
}

// Dead implements outbox.Queue: database after database.
func (s *Sharded) Dead(ctx context.Context, after int64, limit int) (page []outbox.Message, err error) {
	from, row, ok := s.rowOf(max(after, 0))
	if !ok {
		return nil, nil
	}
	if limit < 1 || limit > maxMessages {
		return s.Store.Dead(ctx, after, limit) // which says so
	}
	for i := from; i < len(s.dbs) && len(page) < limit; i++ {
		some, err := s.dbs[i].Dead(ctx, row, limit-len(page))
		if err != nil {
			return nil, err
		}
		page, row = append(page, s.dbs[i].numbered(some)...), 0
	}
	return page, nil
}

// byDatabase splits messages into the rows of each database. Ids that no
// database gives out are left out.
func (s *Sharded) byDatabase(messages []int64) (rows [][]int64) {
	rows = make([][]int64, len(s.dbs))
	for _, id := range messages {
		if database, row, ok := s.rowOf(id); ok {
			rows[database] = append(rows[database], row)
		}
	}
	return rows
}

// Done implements outbox.Queue.
func (s *Sharded) Done(ctx context.Context, ids []int64) error {
	for i, rows := range s.byDatabase(ids) {
		if err := s.dbs[i].Done(ctx, rows); err != nil {
			return err
		}
	}
	return nil
}

// Retry implements outbox.Queue.
func (s *Sharded) Retry(ctx context.Context, id int64, at int64, reason string) error {
	q, row, err := s.queueOf(id)
	if err != nil {
		return err
	}
	return q.Retry(ctx, row, at, reason)
}

// Bury implements outbox.Queue.
func (s *Sharded) Bury(ctx context.Context, id int64, reason string) error {
	q, row, err := s.queueOf(id)
	if err != nil {
		return err
	}
	return q.Bury(ctx, row, reason)
}

// Redrive implements outbox.Queue.
func (s *Sharded) Redrive(ctx context.Context, id int64) error {
	q, row, err := s.queueOf(id)
	if err != nil {
		return err
	}
	return q.Redrive(ctx, row)
}

// Backlog implements outbox.Queue.
func (s *Sharded) Backlog(ctx context.Context) (n int, oldest int64, err error) {
	var times []int64
	for _, db := range s.dbs {
		some, at, err := db.Backlog(ctx)
		if err != nil {
			return 0, 0, err
		}
		n += some
		if some > 0 {
			times = append(times, at)
		}
	}
	if len(times) > 0 {
		oldest = slices.Min(times)
	}
	return n, oldest, nil
}
