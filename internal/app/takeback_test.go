package app

import (
	"database/sql"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"

	"sluice/internal/backend/sqlstore"
	"sluice/internal/lib/outbox"
)

// A fleet that leaves Kafka takes along what was on the way, and what waited or was
// dead in the inbox: there it would block its key for ever once the fleet is back.
func TestTakeBack(t *testing.T) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(t.TempDir(), "shop.db")
	one, err := sqlstore.Open(t.Context(), path, sqlstore.Options{})
	must(err)
	t.Cleanup(func() { _ = one.Close() })
	raw, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(5000)")
	must(err)
	t.Cleanup(func() { _ = raw.Close() })
	_, err = raw.Exec(`INSERT INTO outbox_sent (id, msg_key, topic, at, body) VALUES
		(1, 'consumed', 't', 7, '{}'), (2, 'waiting', 't', 7, '{}'), (3, 'dead', 't', 7, '{}'), (4, 'dead', 't', 7, '{}'), (5, 'travelling', 't', 7, '{}')`)
	must(err)
	store := sqlstore.Single(one)
	parked := func(id int64, key string, next int64) outbox.Waiting {
		return outbox.Waiting{Message: outbox.Message{ID: id, Key: key, Topic: "t", Body: []byte("{}")}, Next: next}
	}
	inbox := store.Inbox(busReader)
	must(inbox.Keep(t.Context(), []int64{1}, []outbox.Waiting{parked(2, "waiting", 0), parked(3, "dead", outbox.Never), parked(4, "dead", 0)}))
	for worked := true; worked; {
		worked, err = takeBack(t.Context(), store, slog.New(slog.DiscardHandler))
		must(err)
	}
	var ids []int64
	page, err := store.Pending(t.Context(), 0, 10)
	must(err)
	for _, m := range page {
		ids = append(ids, m.ID)
	}
	if !slices.Equal(ids, []int64{2, 3, 4, 5}) {
		t.Errorf("in the outbox: %v", ids)
	}
	if n, _, err := (sqlstore.Sending{Sharded: store}).Travelling(t.Context()); n != 0 || err != nil {
		t.Errorf("%d are still on the way, %v", n, err)
	}

	// On Kafka again: nothing of before is in the way, or comes twice.
	_, waiting, err := inbox.Look(t.Context(), []outbox.Message{{ID: 9, Key: "dead"}, {ID: 10, Key: "waiting"}})
	if n, _, failed := inbox.Backlog(t.Context()); n != 0 || len(waiting) != 0 || err != nil || failed != nil {
		t.Errorf("%d in the inbox, keys %v, %v, %v", n, waiting, err, failed)
	}
}
