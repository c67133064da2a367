package app_test

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	_ "modernc.org/sqlite" // to plant faults behind the engine's back

	"sluice/storm"
)

// vandal changes the store's file while a server runs on it.
type vandal struct {
	t  *testing.T
	db *sql.DB
}

func newVandal(t *testing.T, path string) *vandal {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return &vandal{t, db}
}

func (v *vandal) change(query string, args ...any) {
	v.t.Helper()
	r, err := v.db.ExecContext(v.t.Context(), query, args...)
	if err != nil {
		v.t.Fatal(err)
	}
	if n, err := r.RowsAffected(); err != nil || n != 1 {
		v.t.Fatalf("%s: %d rows, %v", query, n, err)
	}
}

func (v *vandal) is(query string, args ...any) bool {
	v.t.Helper()
	var one bool
	err := v.db.QueryRowContext(v.t.Context(), query, args...).Scan(&one)
	return err == nil && one
}

// bought is an order of a cup that has landed.
func (v *vandal) bought(s *server, user string) string {
	v.t.Helper()
	_, _, receipt := s.buy("cup", user, "k", 1)
	id := receipt["order"].(string)
	s.eventually("landed", func() bool { return v.is("SELECT count(*) FROM orders WHERE id = ?", id) })
	return id
}

func (s *server) repair(want int, id, kind, order, reason string) map[string]any {
	s.t.Helper()
	return s.operate(want, "POST", "/v1/activities/cup/repairs", fmt.Sprintf(`{"id":%q,"kind":%q,"order":%q,"reason":%q}`, id, kind, order, reason))
}

func (s *server) content() bool {
	s.t.Helper()
	return s.operate(200, "GET", "/v1/activities/cup/proof", "")["ok"] == true
}

// drift plants one in a new order, and sees it found and repaired.
func (v *vandal) drift(s *server, kind, user string, plant func(order string), state string) {
	v.t.Helper()
	id := v.bought(s, user)
	if r := s.repair(409, kind, kind, id, "too early"); r["code"] != "no_drift" {
		v.t.Errorf("%s of what is in order: %v", kind, r)
	}
	plant(id)
	p := s.operate(200, "GET", "/v1/activities/cup/proof", "")
	drifts, _ := p["drifts"].([]any)
	if p["ok"] != false || len(drifts) != 1 || drifts[0].(map[string]any)["kind"] != kind || drifts[0].(map[string]any)["order"] != id {
		v.t.Fatalf("%s: the auditor says %v, drifts %v", kind, p["violations"], drifts)
	}
	if r := s.repair(409, kind, kind, user, "another"); r["code"] != "no_drift" {
		v.t.Errorf("repair of another order: %v", r)
	}
	first := s.repair(200, kind, kind, id, "planted")
	again := s.repair(200, kind, kind, id, "planted")
	if first["done_at"] == nil || first["done_at"] != again["done_at"] {
		v.t.Errorf("%s: %v, and again %v", kind, first, again)
	}
	if r := s.repair(409, kind, kind, id, "another reason"); r["code"] != "conflict" {
		v.t.Errorf("%s: the same id for something else: %v", kind, r)
	}
	s.eventually(kind+" content the auditor", s.content)
	if o := s.order(user, id); o["state"] != state {
		v.t.Errorf("%s: the order is %v, want %s", kind, o["state"], state)
	}
}

// One drift of each kind is planted in the store while a storm goes on; the
// auditor finds it, an operator repairs it, and the auditor is content.
func TestRepairs(t *testing.T) {
	c := config(t.TempDir())
	s := start(t, c)
	s.sell("cup", 20, `,"hold_seconds":600,"restock":true`)
	v := newVandal(t, c.StorePath())
	stormy := s.storming()
	defer stormy()
	begun := func(orders int) {
		t.Helper()
		s.eventually("the storm blows", func() bool { return v.is("SELECT count(*) >= ? FROM orders WHERE activity != 'cup'", orders) })
	}
	begun(20)
	const cancelled = "UPDATE orders SET state = 'cancelled', reason = 'timeout', closed_at = created_at, check_at = NULL WHERE id = ?"
	v.drift(s, "resettle", "ann", func(id string) { v.change(cancelled, id) }, "cancelled")
	v.drift(s, "redrive", "bob", func(id string) {
		v.change(`INSERT INTO outbox_failed (id, msg_key, topic, at, body, attempts, next_at, reason)
			SELECT 1000000000, CAST(id AS TEXT), 'order.cancelled', created_at, CAST(json_object('order', CAST(id AS TEXT), 'reservation',
			activity || '.' || bucket || '.' || epoch || '.' || number, 'activity', activity, 'user', user, 'state', 'cancelled', 'reason', 'timeout', 'version', 2) AS BLOB),
			20, NULL, 'planted' FROM orders WHERE id = ?`, id)
		v.change(cancelled, id)
	}, "cancelled")
	v.drift(s, "refund", "cy", func(id string) {
		s.pay("cy", id, "duplicate")
		s.eventually("the second capture is given back", func() bool {
			return v.is("SELECT json_extract(CAST(money AS TEXT), '$.refunds[0].state') = 'done' FROM orders WHERE id = ?", id)
		})
		s.eventually("all books agree", s.content)
		v.change("UPDATE orders SET money = CAST(json_remove(CAST(money AS TEXT), '$.refunds') AS BLOB), refunded_minor = NULL WHERE id = ?", id)
	}, "paid")
	v.drift(s, "reland", "dee", func(id string) { v.change("DELETE FROM orders WHERE id = ?", id) }, "created")

	// What cannot be made good by an ordinary operation is refused, and stays found.
	id := v.bought(s, "eve")
	s.pay("eve", id, "pay")
	s.eventually("paid and confirmed", func() bool {
		_, _, r := s.buy("cup", "eve", "k", 1)
		return s.order("eve", id)["state"] == "paid" && r["state"] == "confirmed"
	})
	v.change("DELETE FROM orders WHERE id = ?", id)
	s.eventually("found", func() bool { return !s.content() })
	if r := s.repair(409, "lost", "reland", id, "planted"); r["code"] != "order_state" {
		t.Errorf("an order whose payment is lost: %v", r)
	}
	begun(60) // it went on meanwhile
	stormy()
	repairs := 0
	for _, e := range s.operate(200, "GET", "/v1/audit?limit=500", "")["entries"].([]any) {
		if e.(map[string]any)["action"] == "activity.repair" {
			repairs++
		}
	}
	if repairs != 4*5+1 {
		t.Errorf("%d repairs in the audit log", repairs)
	}
}

// storming keeps shoppers busy with another activity until it is told to stop.
func (s *server) storming() (stop func()) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = storm.Run(ctx, storm.Options{ // it is cut off, and so has no report
			Target: s.shopper, Ops: s.ops, OpsToken: opsToken, Data: s.data, Users: 2000, Stock: 500, Duration: time.Minute,
			Rate: 300, Connections: 8, Hold: 1, Pay: 60, Abandon: 20, Cancel: 20, Seed: 2,
		}, io.Discard)
	}()
	return sync.OnceFunc(func() { cancel(); <-ended })
}
