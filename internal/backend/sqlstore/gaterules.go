package sqlstore

import (
	"context"
	"database/sql/driver"
	"fmt"

	"sluice/internal/stock"
)

// GateRules is one edition of the gate's rules. What they mean is the gate's
// business: here they are bytes with a version.
type GateRules struct {
	Version int64 // ≥ 1
	At      stock.Millis
	Actor   string // up to 64 bytes
	Note    string // up to 800 bytes
	Body    []byte
}

const newestGateRules = "SELECT version FROM gate_rules ORDER BY version DESC LIMIT 1"

// GateRulesVersion is the version saved last, 0 if none was. It is asked by
// every process several times a second, and reads one key.
func (s *Store) GateRulesVersion(ctx context.Context) (version int64, err error) {
	err = s.reading(ctx, "version of the rules", func(c *conn) error {
		version, err = gateRulesVersion(c, "")
		return err
	})
	return version, err
}

func gateRulesVersion(c *conn, ending string) (int64, error) {
	row, ok, err := c.one(newestGateRules + ending)
	if err != nil || !ok {
		return 0, err
	}
	return integer(row[0]), nil
}

// SaveGateRules adds an edition, if its version is the one after the last;
// otherwise saved is false, and nothing changed.
func (s *Store) SaveGateRules(ctx context.Context, r GateRules) (saved bool, err error) {
	err = s.writing(ctx, "save rules", func(c *conn) error {
		saved = false
		newest, err := gateRulesVersion(c, c.d.forUpdate)
		if err != nil {
			return err
		}
		if newest != r.Version-1 {
			if !c.doubt {
				return nil
			}
			saved, err = savedGateRules(c, r)
			return err
		}
		if _, err := c.exec("INSERT INTO gate_rules (version, at, actor, note, body) VALUES (?, ?, ?, ?, ?)",
			r.Version, int64(r.At), r.Actor, r.Note, r.Body); err != nil {
			return raced(err) // then another run finds the version taken
		}
		saved = true
		return nil
	})
	return saved && err == nil, err
}

// savedGateRules says whether a commit without an answer has saved an edition.
func savedGateRules(c *conn, r GateRules) (is bool, err error) {
	row, ok, err := c.one("SELECT at, actor, note, body FROM gate_rules WHERE version = ?", r.Version)
	if err != nil || !ok {
		return false, err
	}
	return integer(row[0]) == int64(r.At) && text(row[1]) == r.Actor && text(row[2]) == r.Note && string(blob(row[3])) == string(r.Body), nil
}

// GateRules pages through editions with version < before (0: the newest), newest
// first; limit is 1..500.
func (s *Store) GateRules(ctx context.Context, before int64, limit int) (page []GateRules, err error) {
	before, err = pageOf(before, limit)
	if err != nil {
		return nil, fmt.Errorf("store: rules: %w", err)
	}
	err = s.reading(ctx, "rules", func(c *conn) error {
		return c.query(ctx, "SELECT version, at, actor, note, body FROM gate_rules WHERE version < ? ORDER BY version DESC LIMIT ?",
			func(row []driver.Value) error {
				page = append(page, GateRules{
					Version: integer(row[0]), At: stock.Millis(integer(row[1])), Actor: text(row[2]), Note: text(row[3]),
					Body: append([]byte(nil), blob(row[4])...),
				})
				return nil
			}, before, limit)
	})
	return page, err
}
