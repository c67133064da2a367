package sqlstore

import (
	"context"
	"database/sql/driver"
	"fmt"
	"math"
	"strings"

	"sluice/internal/stock"
)

// GateListEntry is one entry of the gate's lists. What it means is the gate's
// business. Of the same list, kind, subject and activity there is one; all
// texts but the reason are up to 64 bytes, list and kind 8, the reason 800.
type GateListEntry struct {
	List     string
	Kind     string
	Subject  string
	Activity string
	Reason   string
	By       string
	Since    stock.Millis
	Until    stock.Millis // 0: no end; of one that was removed: when
	Revision int64
	Removed  bool
}

// GateListChanges are changes after a revision, in the order of their revisions.
type GateListChanges struct {
	Entries   []GateListEntry
	Newest    int64 // revision of all
	Forgotten int64 // the greatest revision of a removed entry that is there no more
}

// GateListQuery is which entries are asked for. Empty fields leave all.
type GateListQuery struct {
	List, Kind string
	Activities []string // any of these
	Subjects   []string // any of these
	Before     int64    // revisions below this one
}

const (
	listColumns = "subject, kind, list, activity, reason, actor, since, ends_at, revision, removed"
	maxListPage = 10_000
)

// putListEntry takes the place of the entry that is there. Revisions are given
// under a lock, so no other row can be in its way.
var putListEntry = insertion{
	head: "REPLACE INTO gate_lists (" + listColumns + ") VALUES ", marks: placeholders(10),
	one: "REPLACE INTO gate_lists (" + listColumns + ") VALUES " + placeholders(10),
}

func (e *GateListEntry) args() args {
	a := make(args, 0, 10)
	for _, s := range []string{e.Subject, e.Kind, e.List, e.Activity, e.Reason, e.By} {
		a.text(s)
	}
	removed := int64(0)
	if e.Removed {
		removed = 1
	}
	for _, n := range []int64{int64(e.Since), int64(e.Until), e.Revision, removed} {
		a.int(n)
	}
	return a
}

func scanListEntry(r []driver.Value) GateListEntry {
	return GateListEntry{
		Subject: text(r[0]), Kind: text(r[1]), List: text(r[2]), Activity: text(r[3]), Reason: text(r[4]), By: text(r[5]),
		Since: stock.Millis(integer(r[6])), Until: stock.Millis(integer(r[7])), Revision: integer(r[8]), Removed: integer(r[9]) != 0,
	}
}

// key is what there is one entry of.
func (e *GateListEntry) key() [4]string { return [4]string{e.Subject, e.Kind, e.List, e.Activity} }

// listsState is the one row that every change of lists locks first. So revisions
// ascend in the order of commits, and who has read up to one has missed none
// below it.
type listsState struct{ revision, forgotten, listed int64 }

func readListsState(c *conn, ending string) (s listsState, known bool, err error) {
	row, known, err := c.one("SELECT revision, forgotten, listed FROM gate_lists_state WHERE id = 1" + ending)
	if known {
		s = listsState{integer(row[0]), integer(row[1]), integer(row[2])}
	}
	return s, known, err
}

func lockListsState(c *conn) (listsState, error) {
	s, known, err := readListsState(c, c.d.forUpdate)
	if err == nil && !known {
		_, err = c.exec("INSERT INTO gate_lists_state (id, revision, forgotten, listed) VALUES (1, 0, 0, 0)")
		err = raced(err) // then another run finds it
	}
	return s, err
}

func (s listsState) save(c *conn) error {
	_, err := c.exec("UPDATE gate_lists_state SET revision = ?, forgotten = ?, listed = ? WHERE id = 1", s.revision, s.forgotten, s.listed)
	return err
}

// GateListChanges are at most limit (1..10,000) changes with revisions > after.
// Where there are none, which is nearly always, it reads one row.
func (s *Store) GateListChanges(ctx context.Context, after int64, limit int) (page GateListChanges, err error) {
	if limit < 1 || limit > maxListPage {
		return page, fmt.Errorf("store: lists: %w: limit %d is not in 1..%d", stock.ErrInvalid, limit, maxListPage)
	}
	err = s.reading(ctx, "changes of lists", func(c *conn) error {
		state, _, err := readListsState(c, "")
		if err == nil && state.revision != after {
			err = c.query(ctx, "SELECT "+listColumns+" FROM gate_lists WHERE revision > ? ORDER BY revision LIMIT ?", func(row []driver.Value) error {
				page.Entries = append(page.Entries, scanListEntry(row))
				return nil
			}, after, limit)
			if err == nil {
				// Afterwards: what has been forgotten before the page was read is told.
				state, _, err = readListsState(c, "")
			}
		}
		page.Newest, page.Forgotten = state.revision, state.forgotten
		return err
	})
	return page, err
}

// GateListEntries are at most limit (1..10,000) entries that are not removed, the
// one changed last first.
func (s *Store) GateListEntries(ctx context.Context, q GateListQuery, limit int) (page []GateListEntry, err error) {
	if limit < 1 || limit > maxListPage {
		return nil, fmt.Errorf("store: lists: %w: limit %d is not in 1..%d", stock.ErrInvalid, limit, maxListPage)
	}
	if q.Before <= 0 {
		q.Before = math.MaxInt64
	}
	err = s.reading(ctx, "lists", func(c *conn) error {
		query, values := q.text(c.d)
		return c.query(ctx, query+" LIMIT ?", func(row []driver.Value) error {
			page = append(page, scanListEntry(row))
			return nil
		}, append(values, limit)...)
	})
	return page, err
}

// text is the query of a page.
func (q *GateListQuery) text(d *dialect) (query string, values []any) {
	// The sum keeps the planner from walking along revisions where the subjects
	// lead to few rows.
	revision := "revision"
	if len(q.Subjects) > 0 {
		revision = "revision + 0"
	}
	var b strings.Builder
	b.WriteString("SELECT " + listColumns + " FROM gate_lists WHERE removed = 0 AND " + revision + " < ?")
	values = append(values, q.Before)
	for _, f := range []struct{ column, value string }{{"list", q.List}, {"kind", q.Kind}} {
		if f.value != "" {
			b.WriteString(" AND " + f.column + " = ?")
			values = append(values, f.value)
		}
	}
	for _, f := range []struct {
		column string
		any    []string
	}{{"activity", q.Activities}, {"subject", q.Subjects}} {
		if len(f.any) > 0 {
			list, of := d.textList(f.any)
			b.WriteString(" AND " + f.column + " IN " + list)
			values = append(values, of...)
		}
	}
	b.WriteString(" ORDER BY " + revision + " DESC")
	return b.String(), values
}

// ChangeGateLists calls change with all entries of subjects (at most 1,000),
// removed ones too, and the number of all that are not; saves what it answers,
// each in place of the one with its key, with the next revisions; and answers
// that, and the newest revision. An error from change changes nothing and is
// returned as it is. change may be called again.
func (s *Store) ChangeGateLists(ctx context.Context, subjects []string, change func(have []GateListEntry, listed int64) ([]GateListEntry, error)) (saved []GateListEntry, newest int64, err error) {
	err = s.do(ctx, func(c *conn) error {
		state, err := lockListsState(c)
		if err != nil {
			return err
		}
		have, err := gateListsOf(ctx, c, subjects)
		if err != nil {
			return err
		}
		if c.doubt && len(saved) > 0 && state.revision >= saved[0].Revision {
			if done, err := savedListEntries(saved, have); done || err != nil {
				newest = state.revision
				return err
			}
		}
		if saved, err = change(have, state.listed); err != nil {
			return refusal{err}
		}
		was := map[[4]string]bool{}
		for i := range have {
			was[have[i].key()] = !have[i].Removed
		}
		err = state.put(c, saved, was)
		newest = state.revision
		return err
	})
	if err != nil {
		return nil, 0, asItIs("change lists", err)
	}
	return saved, newest, nil
}

// put writes entries with the next revisions; listed says which of them are there
// and not removed.
func (s *listsState) put(c *conn, entries []GateListEntry, listed map[[4]string]bool) error {
	if len(entries) == 0 {
		return nil
	}
	rows := make([]args, len(entries))
	for i := range entries {
		e := &entries[i]
		s.revision++
		e.Revision = s.revision
		if listed[e.key()] {
			s.listed--
		}
		if !e.Removed {
			s.listed++
		}
		rows[i] = e.args()
	}
	if err := putListEntry.all(c, rows); err != nil {
		return err
	}
	return s.save(c)
}

func gateListsOf(ctx context.Context, c *conn, subjects []string) (all []GateListEntry, err error) {
	if len(subjects) == 0 {
		return nil, nil
	}
	list, values := c.d.textList(subjects)
	err = c.query(context.WithoutCancel(ctx), "SELECT "+listColumns+" FROM gate_lists WHERE subject IN "+list+c.d.forUpdate, func(row []driver.Value) error {
		all = append(all, scanListEntry(row))
		return nil
	}, values...)
	return all, err
}

// savedListEntries says whether a commit without an answer has saved entries,
// whose revisions somebody has. Only if each of them has been changed since can
// nobody tell.
func savedListEntries(saved, have []GateListEntry) (done bool, err error) {
	there := map[[4]string]GateListEntry{}
	for _, e := range have {
		there[e.key()] = e
	}
	for i := range saved {
		is := there[saved[i].key()]
		if is == saved[i] {
			return true, nil
		}
		if is.Revision >= saved[0].Revision {
			err = fmt.Errorf("%w: entries of lists were changed again meanwhile", stock.ErrUnknown)
		}
	}
	return false, err
}

// TrimGateLists clears away what was over before a time: entries whose end was
// then are removed, now, and those that were removed then are forgotten. At most
// limit (1..10,000) of both a call; worked says that there was one. A step that
// finds nothing does not write.
func (s *Store) TrimGateLists(ctx context.Context, before, now stock.Millis, limit int) (worked bool, err error) {
	if limit < 1 || limit > maxListPage {
		return false, fmt.Errorf("store: trim lists: %w: limit %d is not in 1..%d", stock.ErrInvalid, limit, maxListPage)
	}
	const over = " FROM gate_lists WHERE ends_at > 0 AND ends_at < ? ORDER BY ends_at LIMIT ?"
	err = s.reading(ctx, "oldest of lists", func(c *conn) error {
		_, worked, err = c.one("SELECT revision"+over, int64(before), 1)
		return err
	})
	if err != nil || !worked {
		return false, err
	}
	err = s.writing(ctx, "trim lists", func(c *conn) error {
		state, err := lockListsState(c)
		if err != nil {
			return err
		}
		var ended []GateListEntry
		var removed []int64
		err = c.query(context.Background(), "SELECT "+listColumns+over, func(row []driver.Value) error {
			if e := scanListEntry(row); e.Removed {
				removed = append(removed, e.Revision)
				state.forgotten = max(state.forgotten, e.Revision)
			} else {
				e.Removed, e.Until = true, now
				ended = append(ended, e)
			}
			return nil
		}, int64(before), limit)
		if err != nil {
			return err
		}
		if len(removed) > 0 {
			list, values := c.d.idList(removed)
			if _, err := c.exec("DELETE FROM gate_lists WHERE revision IN "+list, values...); err != nil {
				return err
			}
			if err := state.save(c); err != nil {
				return err
			}
		}
		listed := map[[4]string]bool{}
		for i := range ended {
			listed[ended[i].key()] = true
		}
		return state.put(c, ended, listed)
	})
	return err == nil, err
}
