package sqlstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"sluice/internal/order"
	"sluice/internal/stock"
)

// Landing over several databases. A batch has orders of many users, and so of
// many databases, and no transaction spans them. It is decided by the commit of
// the first database: that has the log's fence, its rules, its own orders, and a
// copy of the rows for all others (decided_batches). The others hold their rows
// written and uncommitted until then, and commit after it; each moves its
// own watermark of the log with its rows, empty or not.
//
// So a batch that cannot be written anywhere is written nowhere; and one that was
// decided is completed from the copy, by whoever comes next, when a crash came
// between. The log is not needed for that, which matters: a ledger on Redis may
// have lost that part of it.
//
// No database is ever more than one batch behind the first, since a batch begins
// where all of them stand.

// Steps of a landing, for tests that end one in the middle.
const (
	stepWritten = "written"  // in another database, uncommitted
	stepDecided = "decided"  // the first database has committed
	stepLanded  = "landed"   // another database has committed
	stepApplied = "complete" // another database was completed
)

func (s *Sharded) reached(step string) error {
	if s.step == nil {
		return nil
	}
	return s.step(step)
}

// Fence implements order.Store. It waits for a batch that is being landed, and
// what an earlier lander has decided is complete before it answers.
func (s *Sharded) Fence(ctx context.Context, log stock.LogID) (token uint64, err error) {
	last := len(s.dbs) - 1
	if last == 0 {
		return s.Store.Fence(ctx, log)
	}
	p := part{landing: landing{Batch: order.Batch{Log: log}}}
	err = s.dbs[last].writing(ctx, "fence", func(c *conn) (err error) {
		// Where all landers begin, and end: whoever is at it has this locked.
		if _, err = p.step(c); err == nil {
			token, err = s.Store.Fence(ctx, log)
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	return token, s.complete(ctx, log)
}

// Watermark implements order.Store: it is the least over all databases.
func (s *Sharded) Watermark(ctx context.Context, log stock.LogID) (at stock.Cursor, err error) {
	for i, db := range s.dbs {
		one, err := db.Watermark(ctx, log)
		if err != nil {
			return stock.Cursor{}, err
		}
		if i == 0 || before(one, at) {
			at = one
		}
	}
	return at, nil
}

// before compares places in one log; the zero Cursor comes first.
func before(a, b stock.Cursor) bool {
	return cmp.Or(cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.Position, b.Position)) < 0
}

// samePlace says whether two watermarks of a log are the same.
func samePlace(a, b stock.Cursor) bool { return a.Epoch == b.Epoch && a.Position == b.Position }

// Land implements order.Store.
func (s *Sharded) Land(ctx context.Context, b order.Batch) error {
	if s.lone() {
		return s.Store.Land(ctx, b)
	}
	whole, err := prepareLanding(b)
	if err != nil {
		return fmt.Errorf("store: land: %w", err)
	}
	elsewhere, err := s.landedElsewhere(ctx, &b)
	if err != nil {
		return err
	}
	if err := s.noteStrays(ctx, b.Orders); err != nil {
		return err
	}
	for again := false; ; again = true {
		l := s.divide(whole, elsewhere)
		err = l.land(ctx, len(l.parts)-1)
		s.session.landed(b.Orders, err)
		if !errors.Is(err, order.ErrWatermark) || len(s.dbs) == 1 || again {
			return err
		}
		// Perhaps a batch of before has not reached all databases.
		if cause := s.complete(ctx, b.Log); cause != nil {
			return cause
		}
		if err = s.Store.mayLand(ctx, &b); err != nil {
			return err
		}
	}
}

// mayLand says why a batch may not land, by the first database alone.
func (s *Store) mayLand(ctx context.Context, b *order.Batch) error {
	return s.reading(ctx, "land", func(c *conn) error {
		row, ok, err := c.one("SELECT token, epoch, position FROM watermarks WHERE log = ?", string(b.Log))
		if err != nil {
			return err
		}
		if !ok || uint64(integer(row[0])) != b.Token {
			return fmt.Errorf("log %s, token %d: %w", b.Log, b.Token, order.ErrFenced)
		}
		if at := cursor(b.Log, integer(row[1]), integer(row[2])); !samePlace(at, b.From) {
			return notThere(b.Log, at, b.From)
		}
		return nil
	})
}

func notThere(log stock.LogID, at, from stock.Cursor) error {
	return fmt.Errorf("log %s stands at %d.%d, batch starts at %d.%d: %w", log, at.Epoch, at.Position, from.Epoch, from.Position, order.ErrWatermark)
}

// landedElsewhere finds the orders whose reservation has landed in another place
// than theirs: with another user, that is. Only a log that is read again can
// bring one, so no more is looked at than entries which the watermark has passed.
func (s *Sharded) landedElsewhere(ctx context.Context, b *order.Batch) (skip map[int]bool, err error) {
	for i := range b.Orders {
		o := &b.Orders[i].Order
		if o.Position.Log == b.Log && before(b.From, o.Position) {
			continue
		}
		for g := range s.groups {
			if g == s.groupOfUser(o.User) {
				continue // a collision there tells
			}
			there, err := s.groups[g].has(ctx, o.Reservation)
			if err != nil {
				return nil, err
			}
			if there {
				if skip == nil {
					skip = map[int]bool{}
				}
				skip[i] = true
				break
			}
		}
	}
	return skip, nil
}

func (s *Store) has(ctx context.Context, r stock.ID) (there bool, err error) {
	err = s.reading(ctx, "land", func(c *conn) error {
		_, there, err = c.one(s.orders.byReservation, string(r.Activity), int64(r.Epoch), int64(r.Bucket), int64(r.Number))
		return err
	})
	return there, err
}

// divided is a batch by databases.
type divided struct {
	order.Batch
	s       *Sharded
	parts   []*part // of every database, empty or not
	decided bool
	err     error // what ended it, while the outer transactions unwind
}

// part is what one database gets of a batch.
type part struct {
	landing
	tables []int // of each row
}

// divide gives every database its part, in the order of the batch.
func (s *Sharded) divide(l *landing, skip map[int]bool) *divided {
	d := &divided{Batch: l.Batch, s: s}
	for range s.dbs {
		d.parts = append(d.parts, &part{landing: landing{Batch: order.Batch{Log: l.Log, Token: l.Token, From: l.From, To: l.To}}})
	}
	d.parts[0].Rules, d.parts[0].Retired = l.Rules, l.Retired
	for i, at := 0, 0; i < len(l.Orders); i++ {
		events := l.messages[at : at+len(l.Orders[i].Events)]
		at += len(events)
		if skip[i] {
			continue
		}
		g := s.groups[s.groupOfUser(l.Orders[i].Order.User)]
		d.parts[g.database].add(l.Orders[i], l.rows[i], events, s.dbs[g.database].tableNumber(g.orders))
	}
	return d
}

func (db *database) tableNumber(t *ordersTable) int {
	for i := range db.tables {
		if db.tables[i].name == t.name {
			return i
		}
	}
	panic("sqlstore: a table of another database")
}

func (p *part) add(o order.Landed, row args, events []args, table int) {
	p.Orders, p.rows, p.tables = append(p.Orders, o), append(p.rows, row), append(p.tables, table)
	p.messages = append(p.messages, events...)
}

// insert puts the rows that are not there yet into their tables, and then their
// events in the order of the batch.
func (p *part) insert(c *conn, tables []*ordersTable) error {
	var known []bool
	for t, table := range tables {
		one := landing{table: table}
		var at []int
		for i := range p.rows {
			if p.tables[i] == t {
				one.Orders, one.rows, at = append(one.Orders, p.Orders[i]), append(one.rows, p.rows[i]), append(at, i)
			}
		}
		those, err := one.insertRows(c)
		if err != nil {
			return err
		}
		for i := range those {
			if known == nil {
				known = make([]bool, len(p.rows))
			}
			known[at[i]] = those[i]
		}
	}
	return p.insertEvents(c, known)
}

// land writes the parts of databases i, i−1, … 0, each inside the transaction of
// the one before: so the first database commits first, and the others as the
// calls return. All landers lock in this order.
func (d *divided) land(ctx context.Context, i int) error {
	db := d.s.dbs[i]
	if i == 0 {
		return db.writing(ctx, "land", d.decide)
	}
	d.err = nil
	err := db.do(ctx, func(c *conn) error {
		if err := d.advance(c, i); err != nil || d.decided {
			return err // decided: its commit has failed once, and this was the other try
		}
		if err := d.s.reached(stepWritten); err != nil {
			return err
		}
		if err := d.land(ctx, i-1); err != nil {
			d.err = err
			return refusal{err} // no reason to try again here
		}
		d.decided = true
		step := stepLanded
		if i == 1 {
			step = stepDecided
		}
		return d.s.reached(step)
	})
	if d.err != nil {
		return d.err
	}
	if err != nil && d.decided {
		return fmt.Errorf("store: land: %w: decided, and database %d has not committed: %w", stock.ErrUnknown, i+1, err)
	}
	return asItIs("land", err)
}

// decide is the transaction of the first database.
func (d *divided) decide(c *conn) error {
	p := d.parts[0]
	if err := p.move(c); err == errLanded {
		return nil
	} else if err != nil {
		return err
	}
	if err := landRules(c, &p.Batch); err != nil {
		return err
	}
	if err := p.insert(c, d.s.dbs[0].tables); err != nil {
		return err
	}
	if len(d.parts) == 1 {
		return nil
	}
	return d.keep(c)
}

// advance is the transaction of another database: rows and watermark.
func (d *divided) advance(c *conn, i int) error {
	p := d.parts[i]
	at, err := p.step(c)
	if err != nil || d.decided && samePlace(at, p.To) && !samePlace(p.From, p.To) {
		return err
	}
	if !samePlace(at, p.From) {
		return notThere(p.Log, at, p.From)
	}
	if err := p.insert(c, d.s.dbs[i].tables); err != nil {
		return err
	}
	_, err = c.exec("UPDATE watermarks SET epoch = ?, position = ? WHERE log = ?", int64(p.To.Epoch), int64(p.To.Position), string(p.Log))
	return err
}

// step locks the log's watermark in a database that is not the first, and reads
// it. Its token says nothing: the first database's does.
func (p *part) step(c *conn) (stock.Cursor, error) {
	row, ok, err := c.one("SELECT epoch, position FROM watermarks WHERE log = ?"+c.d.forUpdate, string(p.Log))
	if err != nil {
		return stock.Cursor{}, err
	}
	if !ok {
		_, err := c.exec("INSERT INTO watermarks (log, token) VALUES (?, 0)", string(p.Log))
		return stock.Cursor{}, raced(err)
	}
	return cursor(p.Log, integer(row[0]), integer(row[1])), nil
}
