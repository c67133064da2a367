package sqlstore

import (
	"bytes"
	"context"
	"database/sql/driver"
	"encoding/json"
	"fmt"

	"sluice/internal/sale"
	"sluice/internal/stock"
)

// CreateActivity implements sale.Store. The revision is kept as it is given.
func (s *Store) CreateActivity(ctx context.Context, a sale.Activity) error {
	doc, err := json.Marshal(a)
	if err != nil {
		return err
	}
	return s.writing(ctx, "create activity", func(c *conn) error {
		_, err := c.exec("INSERT INTO activities (id, state, revision, doc) VALUES (?, ?, ?, ?)",
			string(a.ID), string(a.State), a.Revision, doc)
		if !duplicate(err) {
			return err
		}
		if c.doubt {
			row, _, err := c.one("SELECT doc FROM activities WHERE id = ?", string(a.ID))
			if err != nil || row != nil && bytes.Equal(blob(row[0]), doc) {
				return err // it was this one
			}
		}
		return fmt.Errorf("%w: %s", sale.ErrExists, a.ID)
	})
}

// UpdateActivity implements sale.Store. An error from change changes nothing
// and is returned as it is.
func (s *Store) UpdateActivity(ctx context.Context, id stock.ActivityID, change func(*sale.Activity) error) (a sale.Activity, err error) {
	var saved []byte // by an earlier run of this, and the revision that it found
	var revision int
	err = s.do(ctx, func(c *conn) error {
		a = sale.Activity{}
		row, ok, err := c.one("SELECT doc FROM activities WHERE id = ?"+c.d.forUpdate, string(id))
		if err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("%w: %.64q", sale.ErrNoSuchActivity, string(id))
		}
		if err := json.Unmarshal(blob(row[0]), &a); err != nil {
			return fmt.Errorf("activity %s: %w", id, err)
		}
		if c.doubt && saved != nil && a.Revision > revision {
			if bytes.Equal(blob(row[0]), saved) {
				return nil // the commit without an answer took effect
			}
			return fmt.Errorf("%w: activity %s was changed again meanwhile", stock.ErrUnknown, id)
		}
		revision = a.Revision
		if err := change(&a); err != nil {
			return refusal{err}
		}
		a.ID, a.Revision = id, revision+1
		if saved, err = json.Marshal(a); err != nil {
			return err
		}
		changed, err := c.exec("UPDATE activities SET state = ?, revision = ?, doc = ? WHERE id = ? AND revision = ?",
			string(a.State), a.Revision, saved, string(id), revision)
		if err == nil && changed != 1 {
			err = fmt.Errorf("%w: activity %s is no longer at revision %d", errRaced, id, revision)
		}
		return err
	})
	if err != nil {
		return sale.Activity{}, asItIs("update activity", err)
	}
	return a, nil
}

// Activities implements sale.Store.
func (s *Store) Activities(ctx context.Context) (all []sale.Activity, err error) {
	err = s.reading(ctx, "activities", func(c *conn) error {
		return c.query(ctx, "SELECT doc FROM activities ORDER BY id", func(row []driver.Value) error {
			var a sale.Activity
			err := json.Unmarshal(blob(row[0]), &a)
			all = append(all, a)
			return err
		})
	})
	return all, err
}

// SaveAdjustment implements sale.Store. Content is everything but the time:
// who repeats a request repeats it later.
func (s *Store) SaveAdjustment(ctx context.Context, a stock.Adjustment) (is sale.Adjusted, err error) {
	doc, err := json.Marshal(a)
	if err != nil {
		return sale.Adjusted{}, err
	}
	err = s.writing(ctx, "save adjustment", func(c *conn) error {
		is = sale.Adjusted{}
		row, known, err := c.one("SELECT doc, finished, refusal FROM adjustments WHERE activity = ? AND id = ?"+c.d.forUpdate,
			string(a.Activity), a.ID)
		if err != nil {
			return err
		}
		if !known {
			_, err := c.exec("INSERT INTO adjustments (activity, id, doc) VALUES (?, ?, ?)", string(a.Activity), a.ID, doc)
			return raced(err)
		}
		var recorded stock.Adjustment
		if err := json.Unmarshal(blob(row[0]), &recorded); err != nil {
			return fmt.Errorf("adjustment %s: %w", a.ID, err)
		}
		recorded.At = a.At
		same, err := json.Marshal(recorded)
		if err != nil {
			return err
		}
		if !bytes.Equal(same, doc) {
			return fmt.Errorf("%w: adjustment %s of %s", stock.ErrConflict, a.ID, a.Activity)
		}
		is = sale.Adjusted{Finished: integer(row[1]) != 0, Refusal: text(row[2])}
		return nil
	})
	return is, err
}

// FinishAdjustment implements sale.Store. The first answer stands.
func (s *Store) FinishAdjustment(ctx context.Context, activity stock.ActivityID, id string, refusal string) error {
	return s.writing(ctx, "finish adjustment", func(c *conn) error {
		_, err := c.exec("UPDATE adjustments SET finished = 1, refusal = ? WHERE activity = ? AND id = ? AND finished = 0",
			refusal, string(activity), id)
		return err
	})
}

// OpenAdjustments implements sale.Store.
func (s *Store) OpenAdjustments(ctx context.Context) (open []stock.Adjustment, err error) {
	err = s.reading(ctx, "open adjustments", func(c *conn) error {
		return c.query(ctx, "SELECT doc FROM adjustments WHERE finished = 0 ORDER BY seq", func(row []driver.Value) error {
			var a stock.Adjustment
			err := json.Unmarshal(blob(row[0]), &a)
			open = append(open, a)
			return err
		})
	})
	return open, err
}
