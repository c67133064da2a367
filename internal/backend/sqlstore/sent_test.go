package sqlstore

import (
	"testing"

	"sluice/internal/lib/outbox"
	"sluice/internal/lib/outbox/outboxtest"
	"sluice/internal/order"
	"sluice/test/servers"
)

func TestSending(t *testing.T) {
	checkSending(t, func(t *testing.T) *Sharded { return Single(openStore(t)) })
}

func TestSendingOnServer(t *testing.T) {
	d := servers.MariaDB(t)
	checkSending(t, func(t *testing.T) *Sharded { return Single(onServer(t, d, servers.SQLDatabase, "")) })
	t.Run("there and back", func(t *testing.T) { checkThereAndBack(t, d) })
}

// A relay that was frozen notes a message as sent while another process notes so
// too, or puts it back: the second finds it where the first has put it, so it is
// always in one table.
func checkThereAndBack(t *testing.T, d *servers.Database) {
	s := onServer(t, d, servers.SQLDatabase, "")
	q := Sending{Single(s)}
	done := func(id int64) error { return q.Done(t.Context(), []int64{id}) }
	back := func(id int64) error { _, err := q.Again(t.Context(), []int64{id}); return err }
	f := func(name, from, to string, second func(id int64) error, want string) {
		t.Helper()
		empty(t, s)
		put(t, s, outbox.Message{Key: "k", Topic: "t", At: 7})
		page, err := q.Pending(t.Context(), 0, 1)
		must(t, err)
		id := page[0].ID
		if from == "outbox_sent" {
			must(t, done(id))
		}
		ended := make(chan error, 1)
		must(t, s.writing(t.Context(), "first", func(c *conn) error {
			if _, err := move(c, from, to, []int64{id}); err != nil {
				return err
			}
			go func() { ended <- second(id) }()
			for { // until it waits for this transaction
				row, err := d.Query(t.Context(), "SELECT variable_value AS n FROM information_schema.global_status WHERE variable_name = 'INNODB_ROW_LOCK_CURRENT_WAITS'")
				if err != nil || row["n"] != "0" {
					return err
				}
				select {
				case err := <-ended:
					t.Errorf("%s: did not wait: %v", name, err)
					ended <- err
					return nil
				default:
				}
			}
		}))
		must(t, <-ended)
		row, err := d.Query(t.Context(), `SELECT concat(repeat('outbox', (SELECT count(*) FROM sluice.outbox)),
			repeat('outbox_sent', (SELECT count(*) FROM sluice.outbox_sent))) AS found`)
		if must(t, err); row["found"] != want {
			t.Errorf("%s: the message is in %q, want %q", name, row["found"], want)
		}
	}
	f("sent while it is put back", "outbox_sent", "outbox", done, "outbox_sent")
	f("sent by two", "outbox", "outbox_sent", done, "outbox_sent")
	f("put back while it is noted", "outbox", "outbox_sent", back, "outbox")
	f("put back by two", "outbox_sent", "outbox", back, "outbox")
}

// A queue as any other, whose messages are undelivered to the proof until they
// have arrived.
func checkSending(t *testing.T, open func(t *testing.T) *Sharded) {
	outboxtest.Run(t, func(t *testing.T) outboxtest.Queue {
		s := open(t)
		return outboxtest.Queue{Queue: Sending{s}, Put: func(t *testing.T, messages ...outbox.Message) { t.Helper(); put(t, s.Store, messages...) }}
	})
	t.Run("undelivered", func(t *testing.T) {
		s := open(t)
		q := Sending{s}
		token, err := s.Fence(t.Context(), "wal")
		must(t, err)
		batch := order.Batch{Log: "wal", Token: token, Orders: landedOrders(0, 3)}
		batch.To = batch.Orders[2].Order.Position
		must(t, s.Land(t.Context(), batch))
		undelivered := func(want int) {
			t.Helper()
			_, messages, err := s.Snapshot(t.Context(), "flash-1", func(order.Order) error { return nil })
			must(t, err)
			if len(messages) != want {
				t.Errorf("%d undelivered, want %d", len(messages), want)
			}
		}
		waiting := func(want int) {
			t.Helper()
			page, err := q.Pending(t.Context(), 0, 10)
			must(t, err)
			if len(page) != want {
				t.Errorf("%d wait in the outbox, want %d", len(page), want)
			}
		}
		travelling := func(want ...int64) {
			t.Helper()
			ids, err := q.Sent(t.Context(), 0, 10)
			must(t, err)
			n, oldest, err := q.Travelling(t.Context())
			must(t, err)
			if equal(t, "sent", ids, want); n != len(want) || (oldest > 0) != (n > 0) {
				t.Errorf("%d travel since %d, want %d", n, oldest, len(want))
			}
		}
		undelivered(3)
		page, err := q.Pending(t.Context(), 0, 10)
		must(t, err)
		a, b, c := page[0].ID, page[1].ID, page[2].ID
		must(t, q.Retry(t.Context(), b, 0, "brokers away"))
		must(t, q.Done(t.Context(), []int64{a, b, c, c + 1}))
		must(t, q.Done(t.Context(), []int64{a})) // another relay says so too
		waiting(0)
		travelling(a, b, c)
		undelivered(3)
		must(t, q.Arrived(t.Context(), []int64{c, a}))
		travelling(b)
		undelivered(1)
		wantAgain(t, q, 1, b, c) // what has arrived is not sent again
		waiting(1)
		travelling()
		undelivered(1)
		must(t, q.Done(t.Context(), []int64{b}))
		must(t, q.Arrived(t.Context(), []int64{b}))
		undelivered(0)
	})
	t.Run("known", func(t *testing.T) {
		in := open(t).Inbox("a")
		must(t, in.Keep(t.Context(), []int64{1}, []outbox.Waiting{parked(2, "k", 0), parked(3, "k", outbox.Never)}))
		consumed, waiting, err := in.Known(t.Context(), []int64{1, 2, 3, 4})
		must(t, err)
		equal(t, "consumed", consumed, map[int64]bool{1: true})
		equal(t, "waiting", waiting, map[int64]bool{2: true, 3: true})
		must(t, in.Forget(t.Context(), []int64{3, 1, 4}))
		consumed, waiting, err = in.Known(t.Context(), []int64{1, 2, 3, 4})
		must(t, err)
		equal(t, "consumed still", consumed, map[int64]bool{1: true})
		equal(t, "waiting still", waiting, map[int64]bool{2: true})
	})
}

// wantAgain puts messages back into the outbox, of which so many are there.
func wantAgain(t *testing.T, q Sending, want int, ids ...int64) {
	t.Helper()
	n, err := q.Again(t.Context(), ids)
	must(t, err)
	if n != want {
		t.Errorf("%d of %v are sent again, want %d", n, ids, want)
	}
}

// Each database's messages have ids of their own; all are tracked, and forgotten
// in time.
func TestSendingOfShards(t *testing.T) {
	dbs := []*Store{openStore(t), openStore(t)}
	s := spread(dbs, []int{1, 1}, evenMap([]int{1, 1}))
	q := Sending{s}
	for _, db := range dbs {
		put(t, db, outbox.Message{Key: "k", Topic: "t", At: 7}, outbox.Message{Key: "l", Topic: "t", At: 8})
	}
	page, err := q.Pending(t.Context(), 0, 10)
	must(t, err)
	var all []int64
	for _, m := range page {
		all = append(all, m.ID)
	}
	must(t, q.Done(t.Context(), all))
	far := messageOf(1, 1)
	f := func(after int64, limit int, want ...int64) {
		t.Helper()
		ids, err := q.Sent(t.Context(), after, limit)
		must(t, err)
		equal(t, "sent", ids, want)
	}
	f(0, 10, 1, 2, far, far+1)
	f(0, 3, 1, 2, far)
	f(2, 3, far, far+1)
	f(far, 3, far+1)
	must(t, q.Arrived(t.Context(), []int64{1, far}))
	f(0, 10, 2, far+1)
	wantAgain(t, q, 2, 2, far+1)
	f(0, 10)
	if n, _, err := q.Backlog(t.Context()); err != nil || n != 2 {
		t.Errorf("%d sent again, %v", n, err)
	}

	// What the second database's messages left is trimmed though the first's is young.
	in := s.Inbox("a")
	must(t, in.Keep(t.Context(), []int64{1, far, 1<<62 | 5}, nil))
	must(t, dbs[0].writing(t.Context(), "age", func(c *conn) error {
		_, err := c.exec("UPDATE consumed SET at = 1 WHERE id <> 1")
		return err
	}))
	for range 2 {
		if worked, err := in.Trim(t.Context(), 2, 10); err != nil || !worked {
			t.Errorf("trim: %v, %v", worked, err)
		}
	}
	if worked, err := in.Trim(t.Context(), 2, 10); err != nil || worked {
		t.Errorf("trim of young ones: %v, %v", worked, err)
	}
	consumed, _, err := in.Known(t.Context(), []int64{1, far, 1<<62 | 5})
	must(t, err)
	equal(t, "left", consumed, map[int64]bool{1: true})
}
