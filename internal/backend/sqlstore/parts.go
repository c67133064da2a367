package sqlstore

import (
	"context"
	"database/sql/driver"
	"encoding/json"
	"fmt"

	"sluice/internal/lib/outbox"
	"sluice/internal/order"
	"sluice/internal/proof"
	"sluice/internal/stock"
)

// Inspect reads one bucket for the proof, all at one moment: begun gets the
// watermark of its log as soon as that moment is fixed, visit every order as
// Snapshot has it. It answers the bucket's rules and the undelivered messages
// of its orders. An error of begun or visit ends it.
func (s *Store) Inspect(ctx context.Context, log stock.LogID, begun func(stock.Cursor) error, visit func(order.Order) error) (rules []stock.Entry, undelivered []outbox.Message, err error) {
	p, err := stock.PlaceOf(log)
	if err != nil {
		return nil, nil, fmt.Errorf("store: inspect: %w", err)
	}
	err = s.moment(ctx, "inspect", func(c *conn) error {
		row, known, err := c.one("SELECT epoch, position FROM watermarks WHERE log = ?", string(log))
		if err != nil {
			return err
		}
		at := stock.Cursor{}
		if known {
			at = cursor(log, integer(row[0]), integer(row[1]))
		}
		if err := begun(at); err != nil {
			return err
		}
		if rules, err = readRules(ctx, c, log); err != nil {
			return err
		}
		err = c.query(ctx, undeliveredOf(c.d, "o.activity = ? AND o.bucket = ?", s.orders), func(row []driver.Value) error {
			undelivered = append(undelivered, scanMessage(row))
			return nil
		}, times(undeliveredTimes, []any{string(p.Activity), int64(p.Bucket)})...)
		if err != nil {
			return err
		}
		var terms termsCache
		for epoch := int64(1); epoch <= int64(at.Epoch); epoch++ {
			err := c.query(ctx, ordersOf(snapshotColumns, ofBucket, "number", s.orders), func(row []driver.Value) error {
				o, err := scanOrder(row, &terms)
				if err != nil {
					return err
				}
				return visit(o)
			}, string(p.Activity), epoch, int64(p.Bucket), string(log))
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	return rules, undelivered, nil
}

// SavePart keeps the newest report on a bucket.
func (s *Store) SavePart(ctx context.Context, p proof.Part) error {
	doc, err := json.Marshal(p)
	if err != nil {
		return err
	}
	at := p.At.Position
	return s.writing(ctx, "save report of a bucket", func(c *conn) error {
		_, err := c.exec("REPLACE INTO proof_parts (log, epoch, position, at, part) VALUES (?, ?, ?, ?, ?)",
			string(at.Log), int64(at.Epoch), int64(at.Position), p.At.CheckedAt.UnixMilli(), doc)
		return err
	})
}

// Ground reads what the store has of an activity in buckets, all at one moment.
func (s *Store) Ground(ctx context.Context, activity stock.ActivityID) (g proof.Ground, err error) {
	err = s.moment(ctx, "reports of buckets", func(c *conn) error {
		g = proof.Ground{Parts: map[stock.LogID]proof.Part{}, Rules: map[stock.LogID][]stock.Entry{},
			Marks: map[stock.LogID]stock.Cursor{}, Retired: map[stock.LogID]bool{}}
		each := func(query string, take func(log stock.LogID, row []driver.Value) error) error {
			return c.query(ctx, query, func(row []driver.Value) error {
				// A name may contain what separates it from the number of the bucket.
				log := stock.LogID(text(row[0]))
				if p, err := stock.PlaceOf(log); err != nil || p.Activity != activity {
					return nil
				}
				return take(log, row)
			}, string(activity)+"/", string(activity)+"0") // '0' comes next after '/'
		}
		const its = " WHERE log > ? AND log < ?"
		err := each("SELECT log, epoch, position FROM watermarks"+its, func(log stock.LogID, row []driver.Value) error {
			g.Marks[log] = cursor(log, integer(row[1]), integer(row[2]))
			return nil
		})
		if err != nil {
			return err
		}
		err = each("SELECT log, part FROM proof_parts"+its, func(log stock.LogID, row []driver.Value) error {
			var p proof.Part
			if err := json.Unmarshal(blob(row[1]), &p); err != nil {
				return fmt.Errorf("report of %s: %w", log, err)
			}
			g.Parts[log] = p
			return nil
		})
		if err != nil {
			return err
		}
		err = each("SELECT log, epoch, position, doc FROM rules"+its+" ORDER BY log, epoch, position", func(log stock.LogID, row []driver.Value) error {
			var e stock.Entry
			if err := json.Unmarshal(blob(row[3]), &e); err != nil {
				return fmt.Errorf("rule of %s: %w", log, err)
			}
			e.Cursor = cursor(log, integer(row[1]), integer(row[2]))
			g.Rules[log] = append(g.Rules[log], e)
			return nil
		})
		if err != nil {
			return err
		}
		return each("SELECT log FROM retired_logs"+its, func(log stock.LogID, _ []driver.Value) error {
			g.Retired[log] = true
			return nil
		})
	})
	return g, err
}

// Ask asks something of the workers that keep buckets, and answers the Ask that
// stands: its number is the one given or a greater one, and greater than that of
// every Ask for the same that stood before.
func (s *Store) Ask(ctx context.Context, a proof.Ask) (proof.Ask, error) {
	asked := a.Number
	err := s.writing(ctx, "ask", func(c *conn) error {
		a.Number = asked
		row, known, err := c.one("SELECT number FROM proof_asks WHERE kind = ? AND name = ?"+c.d.forUpdate, string(a.Kind), a.Name)
		if err != nil {
			return err
		}
		if !known {
			_, err = c.exec("INSERT INTO proof_asks (kind, name, number) VALUES (?, ?, ?)", string(a.Kind), a.Name, a.Number)
			return raced(err)
		}
		a.Number = max(a.Number, integer(row[0])+1)
		_, err = c.exec("UPDATE proof_asks SET number = ? WHERE kind = ? AND name = ?", a.Number, string(a.Kind), a.Name)
		return err
	})
	return a, err
}

// Asks are all that stand; they are few.
func (s *Store) Asks(ctx context.Context) (all []proof.Ask, err error) {
	err = s.reading(ctx, "asks", func(c *conn) error {
		return c.query(ctx, "SELECT kind, name, number FROM proof_asks", func(row []driver.Value) error {
			all = append(all, proof.Ask{Kind: proof.AskKind(text(row[0])), Name: text(row[1]), Number: integer(row[2])})
			return nil
		})
	})
	return all, err
}

// Answered lets an Ask go, unless a newer one for the same stands.
func (s *Store) Answered(ctx context.Context, a proof.Ask) error {
	return s.writing(ctx, "answered", func(c *conn) error {
		_, err := c.exec("DELETE FROM proof_asks WHERE kind = ? AND name = ? AND number <= ?", string(a.Kind), a.Name, a.Number)
		return err
	})
}
