package app

import (
	"context"
	"time"

	"sluice/internal/backend/sqlstore"
	"sluice/internal/gate"
	"sluice/internal/stock"
)

// listings are the store's lists in the gate's words.
type listings struct {
	store *sqlstore.Store
	bells *bells
}

// ListChanges are changes after a revision.
func (s listings) ListChanges(ctx context.Context, after int64, limit int) (gate.ListChanges, error) {
	page, err := s.store.GateListChanges(ctx, after, limit)
	return gate.ListChanges{Entries: gateEntries(page.Entries), Newest: page.Newest, Forgotten: page.Forgotten}, err
}

// ListEntries are entries that are asked for.
func (s listings) ListEntries(ctx context.Context, q gate.ListQuery, limit int) ([]gate.ListEntry, error) {
	found, err := s.store.GateListEntries(ctx, sqlstore.GateListQuery(q), limit)
	return gateEntries(found), err
}

// ChangeLists saves what change makes of the entries of subjects.
func (s listings) ChangeLists(ctx context.Context, subjects []string, change func([]gate.ListEntry, int64) ([]gate.ListEntry, error)) ([]gate.ListEntry, int64, error) {
	saved, newest, err := s.store.ChangeGateLists(ctx, subjects, func(have []sqlstore.GateListEntry, n int64) ([]sqlstore.GateListEntry, error) {
		rows, err := change(gateEntries(have), n)
		put := make([]sqlstore.GateListEntry, len(rows))
		for i, e := range rows {
			put[i] = sqlstore.GateListEntry(e)
		}
		return put, err
	})
	s.bells.saved(bellLists)
	return gateEntries(saved), newest, err
}

func gateEntries(found []sqlstore.GateListEntry) []gate.ListEntry {
	entries := make([]gate.ListEntry, len(found))
	for i, e := range found {
		entries[i] = gate.ListEntry(e)
	}
	return entries
}

// listsKept is how long an entry stays in the store after its end or its
// removal: a process that was away for longer reads all lists again.
const listsKept = 24 * time.Hour

// trimLists clears old entries away. It is one task of a fleet; two at once do no
// harm, since one waits for the other and finds what is left.
func (e *engine) trimLists(ctx context.Context) (worked bool, err error) {
	now := e.clock.Now()
	return e.store.TrimGateLists(ctx, stock.MillisOf(now.Add(-listsKept)), stock.MillisOf(now), trimSize)
}
