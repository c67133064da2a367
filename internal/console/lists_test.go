package console_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice/internal/backend/sqlstore"
	"sluice/internal/gate"
	"sluice/internal/stock"
)

// listings fits the store to the listbook, as the composition does.
type listings struct{ *sqlstore.Store }

func entriesOf(found []sqlstore.GateListEntry) []gate.ListEntry {
	entries := make([]gate.ListEntry, len(found))
	for i, e := range found {
		entries[i] = gate.ListEntry(e)
	}
	return entries
}

func (s listings) ListChanges(ctx context.Context, after int64, limit int) (gate.ListChanges, error) {
	page, err := s.GateListChanges(ctx, after, limit)
	return gate.ListChanges{Entries: entriesOf(page.Entries), Newest: page.Newest, Forgotten: page.Forgotten}, err
}

func (s listings) ListEntries(ctx context.Context, q gate.ListQuery, limit int) ([]gate.ListEntry, error) {
	found, err := s.GateListEntries(ctx, sqlstore.GateListQuery(q), limit)
	return entriesOf(found), err
}

func (s listings) ChangeLists(ctx context.Context, subjects []string, change func([]gate.ListEntry, int64) ([]gate.ListEntry, error)) ([]gate.ListEntry, int64, error) {
	saved, newest, err := s.ChangeGateLists(ctx, subjects, func(have []sqlstore.GateListEntry, listed int64) ([]sqlstore.GateListEntry, error) {
		rows, err := change(entriesOf(have), listed)
		put := make([]sqlstore.GateListEntry, len(rows))
		for i, e := range rows {
			put[i] = sqlstore.GateListEntry(e)
		}
		return put, err
	})
	return entriesOf(saved), newest, err
}

// Subjects are put on lists and taken off, found page by page and one by one, and
// what was done is in the audit log.
func TestLists(t *testing.T) {
	b := newBench(t)
	a := b.want(200, "", "GET", "/v1/lists/entries", "")
	b.equal(a, "entries.0", nil, "next", nil)
	a = b.want(200, "", "PUT", "/v1/lists/entries", `{"list":"black","kind":"user","subjects":["bob","eve"],"reason":"bots"}`)
	b.equal(a, "revision", 2, "changed", 2)
	a = b.want(200, "", "PUT", "/v1/lists/entries", `{"list":"black","kind":"user","subjects":["bob","eve"],"reason":"bots"}`)
	b.equal(a, "revision", 2, "changed", 0)
	b.want(200, "", "PUT", "/v1/lists/entries", `{"list":"grey","kind":"ip","subjects":["198.51.100.0/24","2001:DB8::/32"],"activity":"drop","until":"2025-11-11T12:00:00Z"}`)
	b.want(200, "", "PUT", "/v1/lists/entries", `{"list":"white","kind":"phone","subjects":["+8613800138000"],"reason":"partner"}`)

	a = b.want(200, "", "GET", "/v1/lists/entries?limit=3", "")
	b.equal(a, "entries.0.kind", "phone", "entries.0.subject", "+8613800138000", "entries.1.subject", "2001:db8::/32", "entries.1.activity", "drop",
		"entries.1.until", "2025-11-11T12:00:00.000Z", "entries.2.revision", 3, "next", 3)
	a = b.want(200, "", "GET", "/v1/lists/entries?limit=3&before=3", "")
	b.equal(a, "entries.0.subject", "eve", "entries.1.subject", "bob", "entries.1.reason", "bots", "entries.1.by", "ops",
		"entries.1.since", "2025-11-11T10:00:00.000Z", "entries.1.until", nil, "entries.2", nil, "next", nil)
	b.equal(b.want(200, "", "GET", "/v1/lists/entries?list=grey&kind=ip&activity=drop", ""), "entries.1.subject", "198.51.100.0/24", "entries.2", nil)
	b.equal(b.want(200, "", "GET", "/v1/lists/entries?list=grey&kind=user", ""), "entries.0", nil)

	a = b.want(200, "", "POST", "/v1/lists/standing", `{"user":"bob","phone":"+8613800138000","ip":"198.51.100.9","activity":"drop"}`)
	b.equal(a, "standing", "black", "in_force", "black", "entries.0.list", "black", "entries.0.reason", "bots", "entries.1.list", "white",
		"entries.2.subject", "198.51.100.0/24", "entries.3", nil)
	b.equal(b.want(200, "", "POST", "/v1/lists/standing", `{"ip":"::ffff:198.51.100.9","activity":"other"}`), "standing", "none", "in_force", "none", "entries.0", nil)

	b.equal(b.want(200, "", "DELETE", "/v1/lists/entries", `{"list":"black","kind":"user","subjects":["bob","nobody"],"reason":"a mistake"}`), "revision", 6, "changed", 1)
	b.equal(b.want(200, "", "POST", "/v1/lists/standing", `{"user":"bob"}`), "standing", "none", "in_force", "none")
	b.clock = b.clock.Add(2 * time.Hour)
	b.equal(b.want(200, "", "POST", "/v1/lists/standing", `{"ip":"198.51.100.9","activity":"drop"}`), "standing", "none", "in_force", "none")

	log := b.want(200, "", "GET", "/v1/audit?limit=2", "")
	b.equal(log, "entries.0.action", "lists.remove", "entries.0.subject", "lists/black", "entries.0.detail.subjects.0", "bob", "entries.0.detail.reason", "a mistake",
		"entries.1.action", "lists.put", "entries.1.detail.subjects.0", "*8000")
	if strings.Contains(string(log.raw), "+86138") {
		t.Errorf("the audit log has a phone number: %s", log.raw)
	}
}

// Of two who change one entry the later is told so.
func TestListEntriesAreNotOverwritten(t *testing.T) {
	b := newBench(t)
	put := `{"list":"black","kind":"user","subjects":["bob"],"reason":"%s","revision":%d}`
	b.want(409, "list_changed", "PUT", "/v1/lists/entries", fmt.Sprintf(put, "a", 1))
	b.want(200, "", "PUT", "/v1/lists/entries", `{"list":"black","kind":"user","subjects":["bob"]}`)
	b.equal(b.want(200, "", "PUT", "/v1/lists/entries", fmt.Sprintf(put, "a", 1)), "revision", 2)
	b.want(409, "list_changed", "PUT", "/v1/lists/entries", fmt.Sprintf(put, "b", 1))
	b.want(409, "list_changed", "DELETE", "/v1/lists/entries", fmt.Sprintf(put, "", 1))
	b.equal(b.want(200, "", "GET", "/v1/lists/entries", ""), "entries.0.reason", "a")
	b.want(200, "", "DELETE", "/v1/lists/entries", fmt.Sprintf(put, "", 2))
	b.want(409, "list_changed", "DELETE", "/v1/lists/entries", fmt.Sprintf(put, "", 2))
}

func TestListFaultsNameTheField(t *testing.T) {
	b := newBench(t)
	f := func(method, change, with, field, say string) {
		t.Helper()
		body := strings.Replace(`{"list":"black","kind":"ip","subjects":["10.0.0.1","10.0.0.2"]}`, change, with, 1)
		a := b.want(400, "invalid_request", method, "/v1/lists/entries", body)
		if detail, _ := a.at("detail").(string); a.at("field") != field || !strings.Contains(detail, say) {
			t.Errorf("%.200s: field %v, %s", body, a.at("field"), a.raw)
		}
	}
	for _, method := range []string{"PUT", "DELETE"} {
		f(method, `"black"`, `"red"`, "list", "grey")
		f(method, `"ip"`, `"card"`, "kind", "phone")
		f(method, `10.0.0.2`, `10.0.0.2/8`, "subjects[1]", "the network is 10.0.0.0/8")
		f(method, `10.0.0.2`, `10.0.0.1/32`, "subjects[1]", "twice")
		f(method, `["10.0.0.1","10.0.0.2"]`, `[]`, "subjects", "")
		f(method, `["10.0.0.1","10.0.0.2"]`, `["1"`+strings.Repeat(`,"1"`, 1000)+`]`, "subjects", "1000")
		f(method, `"kind"`, `"revision":3,"kind"`, "revision", "one subject")
		f(method, `"kind"`, `"activity":"a b","kind"`, "activity", "")
		f(method, `"kind"`, `"colour":1,"kind"`, "colour", "")
	}
	f("PUT", `"kind"`, `"until":"2025-11-11T10:00:00Z","kind"`, "until", "has passed")
	f("PUT", `"kind"`, `"until":"soon","kind"`, "until", "")
	b.equal(b.want(400, "invalid_request", "POST", "/v1/lists/standing", `{"ip":"here"}`), "field", "ip")
	b.want(400, "invalid_request", "GET", "/v1/lists/entries?list=red", "")
	b.equal(b.want(200, "", "GET", "/v1/lists/entries", ""), "entries.0", nil)
}

// A day after their time entries are cleared away, wherever lists are followed.
func TestListsAreCleared(t *testing.T) {
	b := newBench(t)
	there := gate.NewListbook(listings{b.store}, gate.NewLists(), func() time.Time { return b.clock })
	follow := func(want int) {
		t.Helper()
		for worked := true; worked; {
			var err error
			worked, err = there.Step(t.Context())
			must(t, err)
		}
		if n := there.Lists.Count(); n != want {
			t.Errorf("%d entries, want %d", n, want)
		}
	}
	b.want(200, "", "PUT", "/v1/lists/entries", `{"list":"black","kind":"user","subjects":["a","b"],"until":"2025-11-11T12:00:00Z"}`)
	b.want(200, "", "PUT", "/v1/lists/entries", `{"list":"black","kind":"user","subjects":["c","d"]}`)
	follow(4)
	b.want(200, "", "DELETE", "/v1/lists/entries", `{"list":"black","kind":"user","subjects":["c"]}`)
	b.clock = b.clock.Add(27 * time.Hour)
	late := gate.NewListbook(listings{b.store}, gate.NewLists(), func() time.Time { return b.clock })
	for range 2 { // what ended becomes what was removed; what was removed then, nothing
		_, err := b.store.TrimGateLists(t.Context(), stock.MillisOf(b.clock.Add(-24*time.Hour)), stock.MillisOf(b.clock), 100)
		must(t, err)
	}
	follow(1) // it has missed c, and read all again
	there = late
	follow(1)
}
