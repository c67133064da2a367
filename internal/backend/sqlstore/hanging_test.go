package sqlstore

import (
	"context"
	"strconv"
	"testing"
	"time"

	"sluice/internal/order"
	"sluice/internal/stock"
	"sluice/test/servers"
)

// A server that hangs, so that nothing refuses a connection to it and nothing
// answers, keeps no other one from being read.
func TestHangingReplica(t *testing.T) {
	p, third := servers.MariaDBPair(t), servers.MariaDB(t)
	onServer(t, third, servers.SQLDatabase, "")
	must(t, third.Exec(t.Context(), "SET GLOBAL read_only=1"))
	s := spreadOver(t, nil, onPair(p, servers.SQLDatabase, "&replica="+third.Addr)).Shown()
	follow(t, s.Sharded)
	read := func() bool { near, _ := s.replicas.reader(time.Time{}, false); return near != nil }
	await(t, "the healthy replica is read", read)
	third.Pause()
	defer third.Resume()
	looks, without := 0, 0
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); <-time.After(5 * time.Millisecond) {
		if looks++; !read() { // a machine that is busy may miss a look of its own
			without++
		}
	}
	if without > looks/2 {
		t.Errorf("%d times of %d the healthy replica was not to be read", without, looks)
	}
	must(t, note(s.Store, 1))
	third.Resume()
	await(t, "it answers again", func() bool {
		for _, l := range s.replicas.look(t.Context(), lookSoon) {
			if l.err != nil {
				return false
			}
		}
		return true
	})
}

// A primary that hangs costs those who look at their orders little: also those
// whose last write the replica is not known to have, and those who asked before
// anybody knew.
func TestHangingPrimary(t *testing.T) {
	p := servers.MariaDBPair(t)
	s := replicated(t, p, "")
	ctx, ids := t.Context(), idSource()
	token, err := s.Fence(ctx, "wal")
	must(t, err)
	orders := sold(ids, 0, 3)
	land(t, s.Sharded, token, 0, orders)
	must(t, p.Sync(ctx))
	within := func(what string, f func() error, want error) {
		t.Helper()
		began := time.Now()
		err := f()
		is(t, what, err, want)
		took := time.Since(began)
		t.Logf("%s after %s", what, took.Round(time.Millisecond))
		if took > answerWait/2 {
			t.Errorf("%s waited for the primary: %s", what, took)
		}
	}
	mine := orders[0].Order
	get := func(id stock.OrderID) func() error { return func() error { return second(s.Get(ctx, id)) } }
	list := func() error { return second(s.List(ctx, order.Query{User: mine.User, Limit: 5})) }
	within("before", list, nil)
	began := time.Now()
	await(t, "the replica has all of it", func() bool { near, _ := s.replicas.reader(began, false); return near != nil })
	p.Primary.Pause()
	defer p.Primary.Resume()
	s.session.pin(mine.User)
	within("by user, at once", list, nil)
	within("by id", get(orders[1].Order.ID), nil)
	within("by user", list, nil)
	within("nowhere", get(orderID(ids.For("nobody"))), stock.ErrUnknown)
	p.Primary.Resume()
	await(t, "the primary answers again", func() bool { return note(s.Store, 1) == nil })
}

// While there is no primary, those who want to write leave the replicas alone;
// when one is promoted they find it, also in a process that does not follow.
func TestPromotionIsFound(t *testing.T) {
	p := servers.MariaDBPair(t)
	s := openSpread(t, onPair(p, servers.SQLDatabase, ""))
	s.write.patience = 300 * time.Millisecond
	ctx := t.Context()
	must(t, note(s.Store, 1))
	must(t, p.Sync(ctx))
	logins := func() int {
		t.Helper()
		row, err := p.Replica.Query(ctx, "SHOW GLOBAL STATUS LIKE 'Connections'")
		must(t, err)
		n, err := strconv.Atoi(row["Value"])
		must(t, err)
		return n
	}
	p.Primary.Kill()
	before := logins()
	for i := range 5 {
		is(t, "a write", note(s.Store, int64(10+i)), stock.ErrUnknown)
	}
	if more := logins() - before; more > 4 {
		t.Errorf("%d logins at the replica by writes that it cannot take", more)
	}
	must(t, p.Promote(ctx))
	must(t, note(s.Store, 2))
	is(t, "a read", second(s.Get(context.WithoutCancel(ctx), orderID(idSource().For("nobody")))), order.ErrNoSuchOrder)
}
