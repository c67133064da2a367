package sqlstore

import (
	"context"
	"database/sql/driver"
	"encoding/json"
	"fmt"

	"sluice/internal/proof"
	"sluice/internal/sale"
	"sluice/internal/stock"
)

// An activity lives until its final proof is written. The mark for that stands
// in its row, where an index finds the living ones, which are few, among all
// that ever were.

// SaveProof keeps the final proof of an activity, in place of an earlier one.
func (s *Store) SaveProof(ctx context.Context, r proof.Report) error {
	doc, err := json.Marshal(r)
	if err != nil {
		return err
	}
	at := r.Position
	return s.writing(ctx, "save proof", func(c *conn) error {
		_, err := c.exec("REPLACE INTO proofs (activity, log, epoch, position, at, report) VALUES (?, ?, ?, ?, ?, ?)",
			string(r.Activity), string(at.Log), int64(at.Epoch), int64(at.Position), r.CheckedAt.UnixMilli(), doc)
		if err == nil {
			_, err = c.exec("UPDATE activities SET proved = 1 WHERE id = ?", string(r.Activity))
		}
		return err
	})
}

// Proof reads the final proof of an activity, if there is one.
func (s *Store) Proof(ctx context.Context, activity stock.ActivityID) (r proof.Report, ok bool, err error) {
	err = s.reading(ctx, "proof", func(c *conn) error {
		var row []driver.Value
		if row, ok, err = c.one("SELECT report FROM proofs WHERE activity = ?", string(activity)); err != nil || !ok {
			return err
		}
		return json.Unmarshal(blob(row[0]), &r)
	})
	return r, ok, err
}

// Proved lists all activities that have a final proof.
func (s *Store) Proved(ctx context.Context) (ids []stock.ActivityID, err error) {
	err = s.reading(ctx, "proved activities", func(c *conn) error {
		return c.query(ctx, "SELECT activity FROM proofs", func(row []driver.Value) error {
			ids = append(ids, stock.ActivityID(text(row[0])))
			return nil
		})
	})
	return ids, err
}

// Subjects lists what the auditor looks after: the activities that live, and
// those that were proved since.
func (s *Store) Subjects(ctx context.Context, since stock.Millis) (all []proof.Subject, err error) {
	err = s.reading(ctx, "subjects of the proof", func(c *conn) error {
		err := c.query(ctx, "SELECT id, state FROM activities WHERE proved = 0", func(row []driver.Value) error {
			all = append(all, proof.Subject{
				Activity: stock.ActivityID(text(row[0])), Closed: sale.State(text(row[1])) == sale.Closed,
			})
			return nil
		})
		if err != nil {
			return err
		}
		return c.query(ctx, "SELECT activity FROM proofs WHERE at >= ?", func(row []driver.Value) error {
			all = append(all, proof.Subject{Activity: stock.ActivityID(text(row[0])), Closed: true, Proved: true})
			return nil
		}, int64(since))
	})
	return all, err
}

// Select implements sale.Store.
func (s *Store) Select(ctx context.Context, q sale.Query) (found []sale.Activity, err error) {
	query, values := "SELECT doc FROM activities WHERE id > ? ORDER BY id", []any{string(q.After)}
	switch {
	case q.ID != "":
		query, values = "SELECT doc FROM activities WHERE id = ?", []any{string(q.ID)}
	case q.Living:
		query, values = "SELECT doc FROM activities WHERE proved = 0 AND id > ? ORDER BY id", []any{string(q.After)}
	}
	if q.Limit > 0 {
		query, values = query+" LIMIT ?", append(values, q.Limit)
	}
	err = s.reading(ctx, "select activities", func(c *conn) error {
		return c.query(ctx, query, func(row []driver.Value) error {
			var a sale.Activity
			if err := json.Unmarshal(blob(row[0]), &a); err != nil {
				return fmt.Errorf("after %d: %w", len(found), err)
			}
			found = append(found, a)
			return nil
		}, values...)
	})
	return found, err
}
