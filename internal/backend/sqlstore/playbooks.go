package sqlstore

import (
	"context"
	"database/sql/driver"
	"fmt"

	"sluice/internal/stock"
)

// PlaybookChange is one change of the gate's playbooks. What they mean is the
// gate's business: here they are bytes with a version.
type PlaybookChange struct {
	Version int64 // ≥ 1
	At      stock.Millis
	Actor   string // up to 64 bytes
	Action  string // up to 32 bytes
	Subject string // up to 64 bytes
	Note    string // up to 800 bytes
	Body    []byte // what it was about
}

const shelfVersion = "SELECT version FROM playbook_shelf WHERE id = 1"

// PlaybooksVersion is the version of the last change, 0 if there was none. It is
// asked by every process several times a second, and reads one key.
func (s *Store) PlaybooksVersion(ctx context.Context) (version int64, err error) {
	err = s.reading(ctx, "version of the playbooks", func(c *conn) error {
		version, err = playbooksVersion(c, "")
		return err
	})
	return version, err
}

func playbooksVersion(c *conn, ending string) (int64, error) {
	row, ok, err := c.one(shelfVersion + ending)
	if err != nil || !ok {
		return 0, err
	}
	return integer(row[0]), nil
}

// PlaybookShelf is what the last change has left, and its version: nil and 0 if
// there was none.
func (s *Store) PlaybookShelf(ctx context.Context) (version int64, shelf []byte, err error) {
	err = s.reading(ctx, "playbooks", func(c *conn) error {
		version, shelf = 0, nil
		row, ok, err := c.one("SELECT version, body FROM playbook_shelf WHERE id = 1")
		if err == nil && ok {
			version, shelf = integer(row[0]), append([]byte(nil), blob(row[1])...)
		}
		return err
	})
	return version, shelf, err
}

// SavePlaybooks adds a change and replaces the shelf by what it leaves, if its
// version is the one after the last; otherwise saved is false, and nothing
// changed.
func (s *Store) SavePlaybooks(ctx context.Context, p PlaybookChange, shelf []byte) (saved bool, err error) {
	err = s.writing(ctx, "save playbooks", func(c *conn) error {
		saved = false
		newest, err := playbooksVersion(c, c.d.forUpdate)
		if err != nil {
			return err
		}
		if newest != p.Version-1 {
			if c.doubt {
				saved, err = savedPlaybooks(c, p)
			}
			return err
		}
		if _, err := c.exec("INSERT INTO playbook_changes (version, at, actor, action, subject, note, body) VALUES (?, ?, ?, ?, ?, ?, ?)",
			p.Version, int64(p.At), p.Actor, p.Action, p.Subject, p.Note, p.Body); err != nil {
			return raced(err) // then another run finds the version taken
		}
		if newest == 0 {
			_, err = c.exec("INSERT INTO playbook_shelf (id, version, body) VALUES (1, ?, ?)", p.Version, shelf)
			err = raced(err)
		} else {
			_, err = c.exec("UPDATE playbook_shelf SET version = ?, body = ? WHERE id = 1", p.Version, shelf)
		}
		saved = err == nil
		return err
	})
	return saved && err == nil, err
}

// savedPlaybooks says whether a commit without an answer has saved a change.
func savedPlaybooks(c *conn, p PlaybookChange) (is bool, err error) {
	row, ok, err := c.one("SELECT at, actor, action, subject, note, body FROM playbook_changes WHERE version = ?", p.Version)
	if err != nil || !ok {
		return false, err
	}
	return integer(row[0]) == int64(p.At) && text(row[1]) == p.Actor && text(row[2]) == p.Action &&
		text(row[3]) == p.Subject && text(row[4]) == p.Note && string(blob(row[5])) == string(p.Body), nil
}

// PlaybookChanges pages through changes with version < before (0: the newest),
// newest first; limit is 1..500.
func (s *Store) PlaybookChanges(ctx context.Context, before int64, limit int) (page []PlaybookChange, err error) {
	before, err = pageOf(before, limit)
	if err != nil {
		return nil, fmt.Errorf("store: changes of playbooks: %w", err)
	}
	err = s.reading(ctx, "changes of playbooks", func(c *conn) error {
		return c.query(ctx, "SELECT version, at, actor, action, subject, note, body FROM playbook_changes WHERE version < ? ORDER BY version DESC LIMIT ?",
			func(row []driver.Value) error {
				page = append(page, PlaybookChange{
					Version: integer(row[0]), At: stock.Millis(integer(row[1])), Actor: text(row[2]), Action: text(row[3]),
					Subject: text(row[4]), Note: text(row[5]), Body: append([]byte(nil), blob(row[6])...),
				})
				return nil
			}, before, limit)
	})
	return page, err
}
