package sqlstore

import (
	"bytes"
	"context"
	"database/sql/driver"
	"encoding/gob"
	"fmt"

	"sluice/internal/lib/outbox"
	"sluice/internal/order"
	"sluice/internal/stock"
)

// The copy of a decided batch: what the databases after the first write, as the
// values of their statements, so that completing a batch writes the same bytes.

// maxDoc is about how many bytes of rows one row of decided_batches takes.
const maxDoc = 512 << 10

var insertDecided = insertInto("decided_batches", "log, part, epoch, position, from_epoch, from_position, doc", 7)

// savedOrder is a row of an order and those of its events.
type savedOrder struct {
	Database, Table int
	Row             []cell
	Events          [][]cell
}

// cell is a value of a statement: NULL, or one of the others as Kind says.
type cell struct {
	Kind   byte // 0 NULL, 'n', 's', 'b'
	Number int64
	Bytes  []byte
}

func cells(a args) []cell {
	all := make([]cell, len(a))
	for i, v := range a {
		switch v := v.Value.(type) {
		case nil:
		case int64:
			all[i] = cell{Kind: 'n', Number: v}
		case string:
			all[i] = cell{Kind: 's', Bytes: []byte(v)}
		case []byte:
			all[i] = cell{Kind: 'b', Bytes: v}
		default:
			panic(fmt.Sprintf("sqlstore: a %T in a row", v))
		}
	}
	return all
}

func uncells(all []cell) args {
	a := make(args, 0, len(all))
	for _, v := range all {
		switch v.Kind {
		case 'n':
			a.int(v.Number)
		case 's':
			a.text(string(v.Bytes))
		case 'b':
			a.blob(v.Bytes)
		default:
			a.add(nil)
		}
	}
	return a
}

// keep saves the copy in place of that of the batch before, which is complete:
// this one could not have begun otherwise.
func (d *divided) keep(c *conn) error {
	if _, err := c.exec("DELETE FROM decided_batches WHERE log = ?", string(d.Log)); err != nil {
		return err
	}
	var docs []args
	var some []savedOrder
	bytes := 0
	flush := func() error {
		row, err := d.decidedRow(len(docs), some)
		docs, some, bytes = append(docs, row), nil, 0
		return err
	}
	for database, p := range d.parts[1:] {
		at := 0
		for i, row := range p.rows {
			o := savedOrder{Database: database + 1, Table: p.tables[i], Row: cells(row)}
			for range p.Orders[i].Events {
				o.Events = append(o.Events, cells(p.messages[at]))
				at++
			}
			some = append(some, o)
			if bytes += o.size(); bytes >= maxDoc {
				if err := flush(); err != nil {
					return err
				}
			}
		}
	}
	if len(some) > 0 || len(docs) == 0 { // one row at least: from where to where
		if err := flush(); err != nil {
			return err
		}
	}
	return insertDecided.all(c, docs)
}

func (o *savedOrder) size() (n int) {
	for _, row := range append(o.Events, o.Row) {
		for i := range row {
			n += 16 + len(row[i].Bytes)
		}
	}
	return n
}

func (d *divided) decidedRow(part int, orders []savedOrder) (args, error) {
	var doc []byte
	if len(orders) > 0 {
		var b bytes.Buffer
		if err := gob.NewEncoder(&b).Encode(orders); err != nil {
			return nil, err
		}
		doc = b.Bytes()
	}
	a := make(args, 0, 7)
	a.text(string(d.Log))
	a.int(int64(part))
	a.int(int64(d.To.Epoch))
	a.int(int64(d.To.Position))
	a.int(int64(d.From.Epoch))
	a.int(int64(d.From.Position))
	a.optBlob(doc)
	return a, nil
}

// complete brings the databases that lag behind the first to where it stands,
// with the rows of the batch that it has decided. Anybody may do so, and more
// than one at a time: nothing is written twice.
func (s *Sharded) complete(ctx context.Context, log stock.LogID) error {
	behind := false
	at, err := s.Store.Watermark(ctx, log)
	for _, db := range s.dbs[1:] {
		if err != nil {
			return err
		}
		var its stock.Cursor
		its, err = db.Watermark(ctx, log)
		behind = behind || before(its, at)
	}
	if err != nil || !behind {
		return err
	}
	d, err := s.decided(ctx, log)
	if err != nil {
		return err
	}
	for i, db := range s.dbs[1:] {
		err := db.writing(ctx, "complete a batch", func(c *conn) error { return d.catchUp(c, i+1) })
		if err != nil {
			return err
		}
		if err := s.reached(stepApplied); err != nil {
			return err
		}
	}
	return nil
}

// catchUp is advance for a database that may have the batch already.
func (d *divided) catchUp(c *conn, i int) error {
	p := d.parts[i]
	at, err := p.step(c)
	switch {
	case err != nil:
		return err
	case samePlace(at, p.From):
		return d.advance(c, i)
	case !before(at, p.To):
		return nil
	}
	return fmt.Errorf("%w: database %d has landed log %s up to %d.%d, and the newest batch runs from %d.%d to %d.%d: the databases are not of the same time; restore all from backups of one moment",
		stock.ErrCorrupt, i+1, p.Log, at.Epoch, at.Position, p.From.Epoch, p.From.Position, p.To.Epoch, p.To.Position)
}

// decided reads the newest batch of a log from its copy, which ends where the
// first database stands.
func (s *Sharded) decided(ctx context.Context, log stock.LogID) (*divided, error) {
	b := order.Batch{Log: log}
	var saved []savedOrder
	var at stock.Cursor
	err := s.Store.moment(ctx, "decided batch", func(c *conn) error {
		marks, err := marksOf([]*conn{c}, log)
		if err != nil {
			return err
		}
		at = marks[0]
		return c.query(ctx, "SELECT epoch, position, from_epoch, from_position, doc FROM decided_batches WHERE log = ? ORDER BY part", func(row []driver.Value) error {
			b.To = cursor(log, integer(row[0]), integer(row[1]))
			b.From = cursor(log, integer(row[2]), integer(row[3]))
			doc := blob(row[4])
			if len(doc) == 0 {
				return nil
			}
			var some []savedOrder
			err := gob.NewDecoder(bytes.NewReader(doc)).Decode(&some)
			saved = append(saved, some...)
			return err
		}, string(log))
	})
	if err != nil {
		return nil, err
	}
	if !samePlace(at, b.To) {
		return nil, fmt.Errorf("%w: log %s has landed up to %d.%d in the first database and not in all others, and the copy of its newest batch ends at %d.%d: restore all databases from backups of one moment",
			stock.ErrCorrupt, log, at.Epoch, at.Position, b.To.Epoch, b.To.Position)
	}
	d := s.divide(&landing{Batch: b}, nil)
	for _, o := range saved {
		if o.Database < 1 || o.Database >= len(s.dbs) || o.Table >= len(s.dbs[o.Database].tables) || len(o.Row) < plainCount {
			return nil, fmt.Errorf("%w: the newest batch of log %s has a row for table %d of database %d", stock.ErrCorrupt, log, o.Table, o.Database+1)
		}
		l := order.Landed{Events: make([]outbox.Message, len(o.Events))} // counted only
		row := uncells(o.Row)
		l.Order.Reservation = reservationIn(row)
		var events []args
		for _, e := range o.Events {
			events = append(events, uncells(e))
		}
		d.parts[o.Database].add(l, row, events, o.Table)
	}
	return d, nil
}

// reservationIn reads what orderArgs has written.
func reservationIn(row args) stock.ID {
	return stock.ID{
		Activity: stock.ActivityID(text(row[1].Value)), Epoch: uint32(integer(row[2].Value)),
		Bucket: uint16(integer(row[3].Value)), Number: uint64(integer(row[4].Value)),
	}
}
