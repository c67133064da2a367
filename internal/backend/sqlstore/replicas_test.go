package sqlstore

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/internal/lib/outbox"
	"sluice/internal/order"
	"sluice/internal/order/ordertest"
	"sluice/internal/sale"
	"sluice/internal/stock"
	"sluice/test/servers"
)

// onPair is the address of a database on a pair: the second server is the replica.
func onPair(p *servers.DatabasePair, name, params string) string {
	return p.Primary.URL(name) + "?replica=" + p.Replica.Addr + params
}

// replicated opens an empty store on a pair and has it look at its replicas.
func replicated(t *testing.T, p *servers.DatabasePair, params string) *Shown {
	t.Helper()
	s := spreadOver(t, nil, onPair(p, servers.SQLDatabase, params)).Shown()
	follow(t, s.Sharded)
	return s
}

// follow looks often until the test ends, and waits until a replica is read.
func follow(t *testing.T, s *Sharded) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan struct{})
	go func() {
		defer close(over)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			_, _ = s.FollowReplicas(ctx)
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-over })
	await(t, "a replica is read", func() bool { return reading(s) })
}

// reading says whether every database has a replica that is read.
func reading(s *Sharded) bool {
	servers, _ := s.Replicas()
	n := 0
	for _, r := range servers {
		if r.Read {
			n++
		}
	}
	return n == len(s.dbs)
}

func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func pay(o *order.Order) ([]outbox.Message, error) {
	o.State = order.Paid
	return nil, nil
}

// What an address may say of its servers.
func TestReplicaAddress(t *testing.T) {
	const h1 = "mysql://u:geheim@h1/shop?tables=2"
	f := func(address string, want []string, fault string) {
		t.Helper()
		err := CheckAddress(address)
		if fault == "" && err != nil || fault != "" && (err == nil || !strings.Contains(err.Error(), fault)) {
			t.Errorf("%s: %v, want %q", address, err, fault)
		}
		if err != nil && strings.Contains(err.Error(), "geheim") {
			t.Errorf("the password is told: %v", err)
		}
		addresses, _, split := splitAddress(address)
		if err != nil || split != nil {
			return
		}
		var hosts []string
		for _, a := range addresses {
			p, err := mysqlPlace(a, Options{})
			must(t, err)
			defer p.members.close()
			if p.members == nil {
				hosts = append(hosts, p.host)
				continue
			}
			for _, server := range p.members.all {
				hosts = append(hosts, server.host)
			}
		}
		if !slices.Equal(hosts, want) {
			t.Errorf("%s: %v", address, hosts)
		}
	}
	f("mysql://u:geheim@h1/shop?readers=0", nil, "readers")
	f(h1+",mysql://u:geheim@h2/shop?writers=many", nil, "database 2")
	f(h1, []string{"h1:3306"}, "")
	f(h1+"&replica=h2&replica=h3:3307&maxlag=500ms", []string{"h1:3306", "h2:3306", "h3:3307"}, "")
	f(h1+"&replica=h2,mysql://u@h3/shop?replica=[::1]:4000", []string{"h1:3306", "h2:3306", "h3:3306", "[::1]:4000"}, "")
	f(h1+"&replica=h1:3306", nil, "twice")
	f(h1+"&replica=h2&replica=h2:3306", nil, "twice")
	f(h1+"&replica=u:p@h2", nil, "must be host")
	f(h1+"&replica=h2/shop", nil, "must be host")
	f(h1+"&replica=h2,h3", nil, "must be host")
	f(h1+"&replica=", nil, "must be host")
	f(h1+"&replica=h2&maxlag=1h", nil, "maxlag")
	f(h1+"&replica=h2&maxlag=10ms", nil, "maxlag")
	f(h1+"&maxlag=1s", nil, "bounds nothing")
	many := h1
	for i := range maxReplicas + 1 {
		many += fmt.Sprintf("&replica=r%d", i)
	}
	f(many, nil, "at most 8")
	for _, bad := range []string{"&replica=h1", "&replica=u@h2"} {
		if _, err := OpenServer(t.Context(), h1[:len(h1)-9]+"?"+bad[1:], Options{}); err == nil || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s: opened, or told the password: %v", bad, err)
		}
	}
}

// Everything that a store of orders promises holds where a replica answers what
// it may, over two databases with one each.
func TestReplicatedOrders(t *testing.T) {
	p := servers.MariaDBPair(t)
	var urls []string
	for _, u := range schemas(t, p.Primary, 2, "") {
		name := u[strings.LastIndexByte(u, '/')+1:]
		urls = append(urls, onPair(p, name, "&tables=2"))
	}
	var sum ReplicaReads
	ordertest.Run(t, func(t *testing.T) order.Store {
		s := spreadOver(t, scattered, urls...).Shown()
		follow(t, s.Sharded)
		t.Cleanup(func() {
			_, reads := s.Replicas()
			sum.Replica += reads.Replica
			sum.Primary += reads.Primary
		})
		return s
	})
	t.Logf("%+v", sum)
	if sum.Replica == 0 {
		t.Error("no read was a replica's")
	}
}

// stale makes the replica fall behind, in both ways in which one does.
var stale = map[string]struct{ begin, end []string }{
	"stopped": {[]string{"STOP SLAVE SQL_THREAD"}, []string{"START SLAVE SQL_THREAD"}},
	"delayed": {[]string{"STOP SLAVE", "CHANGE MASTER TO MASTER_DELAY=600", "START SLAVE"}, []string{"STOP SLAVE", "CHANGE MASTER TO MASTER_DELAY=0", "START SLAVE"}},
}

// A process sees what it wrote, and never goes back behind what it has shown,
// with a replica that is far behind and not left out for it.
func TestOwnWritesAreSeen(t *testing.T) {
	p := servers.MariaDBPair(t)
	for name, fall := range stale {
		t.Run(name, func(t *testing.T) {
			mine := replicated(t, p, "&maxlag=1m")
			theirs := openSpread(t, onPair(p, servers.SQLDatabase, "")).Shown()
			ctx, ids := t.Context(), idSource()
			token, err := mine.Fence(ctx, "wal")
			must(t, err)
			orders := sold(ids, 0, 40)
			first := orders[0].Order
			_, _ = mine.Get(ctx, first.ID) // from here on it is remembered what was written
			land(t, mine.Sharded, token, 0, orders[:20])
			must(t, p.Sync(ctx))
			await(t, "the replica is known to have them", func() bool {
				mine.session.mu.Lock()
				defer mine.session.mu.Unlock()
				return len(mine.session.pins) == 0
			})
			must(t, p.Replica.Exec(ctx, fall.begin...))
			defer func() { must(t, p.Replica.Exec(context.WithoutCancel(ctx), fall.end...)) }()
			state := func(what string, s order.Store, id stock.OrderID, want order.State) {
				t.Helper()
				o, err := s.Get(ctx, id)
				if err != nil || o.State != want {
					t.Errorf("%s: %q, %v, want %q", what, o.State, err, want)
				}
			}
			has := func(what string, q order.Query, want order.State) {
				t.Helper()
				q.Limit = 50
				page, err := mine.List(ctx, q)
				must(t, err)
				if !slices.ContainsFunc(page, func(o order.Order) bool { return o.ID == first.ID && o.State == want }) {
					t.Errorf("%s: no %s that is %s among %d", what, first.ID, want, len(page))
				}
			}
			must(t, mine.Update(ctx, first.ID, pay))
			state("by id", mine, first.ID, order.Paid)
			has("by user", order.Query{User: first.User}, order.Paid)
			has("by state", order.Query{State: order.Paid}, order.Paid)
			has("by reservation", order.Query{Reservation: &first.Reservation}, order.Paid)
			must(t, mine.SaveNotification(ctx, 7, first.User, "t", []byte("{}"), 1))
			page, err := mine.Notifications(ctx, first.User, 0, 9)
			if err != nil || len(page) != 1 {
				t.Errorf("notifications: %v, %v", page, err)
			}

			// Without what this process remembers, the replica is asked, and is behind.
			var near *Sharded // one look of a busy machine may leave it out for a moment
			await(t, "the replica is read", func() bool { near, _ = mine.over(mine.dbs, time.Time{}, false); return near != nil })
			state("on the replica", near, first.ID, order.Created)
			// Nothing was written about another one's order: the replica answers.
			await(t, "the replica is asked for an order that it may show", func() bool {
				_, before := mine.Replicas()
				state("another's", mine, orders[1].Order.ID, order.Created)
				_, after := mine.Replicas()
				return after.Replica > before.Replica
			})

			// Another process lands and pays. This one hears of it by its mirror.
			late := orders[30].Order
			land(t, theirs.Sharded, token, 20, orders[20:])
			state("landed elsewhere", mine, late.ID, order.Created)
			must(t, theirs.Update(ctx, orders[1].Order.ID, pay))
			mine.Told(orders[1].Order.Reservation)
			state("paid elsewhere, and told", mine, orders[1].Order.ID, order.Paid)
			// Shown once, it stays so, in whichever way it is asked for.
			must(t, theirs.Update(ctx, orders[2].Order.ID, pay))
			state("by the primary", mine.OfPrimary(), orders[2].Order.ID, order.Paid)
			state("afterwards", mine, orders[2].Order.ID, order.Paid)
			first = orders[2].Order
			has("afterwards, by user", order.Query{User: first.User}, order.Paid)
			is(t, "no such order", second(mine.Get(ctx, orderID(ids.For("nobody")))), order.ErrNoSuchOrder)
		})
	}
}

func second[T any](_ T, err error) error { return err }

// A replica that is too far behind is left out, and read again when it is not;
// one that has died is left out within the call that finds it dead.
func TestReplicaLeftOut(t *testing.T) {
	p := servers.MariaDBPair(t)
	s := replicated(t, p, "&maxlag=500ms")
	ctx := t.Context()
	token, err := s.Fence(ctx, "wal")
	must(t, err)
	orders := sold(idSource(), 0, 3)
	land(t, s.Sharded, token, 0, orders)
	must(t, p.Replica.Exec(ctx, stale["stopped"].begin...))
	must(t, note(s.Store, 1)) // there is something that it has not got
	began := time.Now()
	await(t, "left out", func() bool { return !reading(s.Sharded) })
	t.Logf("left out after %s", time.Since(began).Round(time.Millisecond))
	if _, err := s.Get(ctx, orders[0].Order.ID); err != nil {
		t.Error(err)
	}
	servers, _ := s.Replicas()
	if servers[1].Behind < 500*time.Millisecond || !servers[0].Primary {
		t.Errorf("%+v", servers)
	}
	must(t, p.Replica.Exec(ctx, stale["stopped"].end...))
	await(t, "read again", func() bool { return reading(s.Sharded) })

	p.Replica.Kill()
	for _, o := range orders {
		if _, err := s.Get(ctx, o.Order.ID); err != nil {
			t.Errorf("with a dead replica: %v", err)
		}
	}
	await(t, "left out", func() bool { return !reading(s.Sharded) })
	must(t, p.Replica.Restart())
	await(t, "read again", func() bool { return reading(s.Sharded) })
}

// No decision reads a replica: with one that is believed to have everything, and
// has the tables of a store in which nothing ever happened, all promises hold.
// And what is only shown is read there, or this would show nothing.
func TestPoisonedReplica(t *testing.T) {
	d, poison := servers.MariaDB(t), servers.MariaDB(t)
	onServer(t, poison, servers.SQLDatabase, "")
	must(t, poison.Exec(t.Context(), "SET GLOBAL read_only=1"))
	believed := func(t *testing.T) *Shown {
		s := spreadOver(t, nil, d.URL(servers.SQLDatabase)+"?replica="+poison.Addr).Shown()
		r := s.replicas
		r.of[1] = follower{answers: true, in: true, covered: time.Now().Add(time.Hour)}
		r.choose()
		r.floor = time.Time{}
		return s
	}
	ordertest.Run(t, func(t *testing.T) order.Store { return believed(t).OfPrimary() })
	for name, f := range map[string]func(*testing.T, *Store){
		"activities":   checkActivities,
		"adjustments":  checkAdjustments,
		"products":     checkProducts,
		"proofs":       checkProofs,
		"parts":        checkParts,
		"repairs":      checkRepairs,
		"gate rules":   checkGateRules,
		"one moment":   checkSnapshotIsOneMoment,
		"fields":       checkSnapshotFields,
		"under leases": checkUnder,
	} {
		t.Run(name, func(t *testing.T) { f(t, believed(t).Store) })
	}
	s := believed(t)
	ctx := t.Context()
	token, err := s.Fence(ctx, "wal")
	must(t, err)
	landed := sold(idSource(), 0, 1)
	land(t, s.Sharded, token, 0, landed)
	must(t, s.CreateActivity(ctx, sale.Activity{ID: "flash", State: sale.Open}))
	living, err := s.Select(ctx, sale.Query{Living: true})
	if err != nil || len(living) != 1 {
		t.Errorf("allocations would be made from %v, %v", living, err)
	}
	page, err := s.List(ctx, order.Query{User: landed[0].Order.User, Limit: 9})
	if err != nil || len(page) != 0 {
		t.Errorf("the poisoned replica was not asked: %v, %v", page, err)
	}
}

// With the primary away what replicas have is shown, and what they do not have
// is not said to be nowhere.
func TestReadsWithoutPrimary(t *testing.T) {
	p := servers.MariaDBPair(t)
	s := replicated(t, p, "")
	s.write.patience = 100 * time.Millisecond
	ctx, ids := t.Context(), idSource()
	token, err := s.Fence(ctx, "wal")
	must(t, err)
	orders := sold(ids, 0, 10)
	land(t, s.Sharded, token, 0, orders)
	must(t, s.SaveNotification(ctx, 1, orders[0].Order.User, "t", nil, 1))
	must(t, p.Sync(ctx))
	show := func(when string) {
		t.Helper()
		for _, l := range orders {
			if o, err := s.Get(ctx, l.Order.ID); err != nil || o.User != l.Order.User {
				t.Errorf("%s: get: %v", when, err)
			}
		}
		for _, q := range []order.Query{{User: orders[0].Order.User, Limit: 9}, {State: order.Created, Limit: 9}, {Reservation: &orders[3].Order.Reservation, Limit: 1}} {
			if page, err := s.List(ctx, q); err != nil || len(page) == 0 {
				t.Errorf("%s: list %+v: %d, %v", when, q, len(page), err)
			}
		}
		if page, err := s.Notifications(ctx, orders[0].Order.User, 0, 9); err != nil || len(page) != 1 {
			t.Errorf("%s: notifications: %d, %v", when, len(page), err)
		}
	}
	show("before")
	p.Primary.Kill()
	show("at once") // before a look has found it dead
	await(t, "found dead", func() bool {
		s.replicas.mu.Lock()
		defer s.replicas.mu.Unlock()
		return !s.replicas.away.IsZero()
	})
	<-time.After(2 * s.replicas.maxLag) // past what can be proved
	show("while it is away")
	is(t, "no such order", second(s.Get(ctx, orderID(ids.For("nobody")))), stock.ErrUnknown)
	is(t, "a write", note(s.Store, 2), stock.ErrUnknown)
	is(t, "what is due", second(s.List(ctx, order.Query{DueBy: 1 << 50, Limit: 1})), stock.ErrUnknown)
	must(t, p.Primary.Restart())
	await(t, "written again", func() bool { return note(s.Store, 2) == nil })
	show("afterwards")
}

// The primary dies under traffic, its replica is promoted, and then it comes
// back and takes writes as if nothing had happened. Nobody gives it any, nobody
// reads it, and whatever was acknowledged is there.
func TestSplitBrain(t *testing.T) {
	p := servers.MariaDBPair(t)
	ctx := t.Context()
	s := replicated(t, p, "")
	must(t, p.Primary.Exec(ctx, "SET GLOBAL rpl_semi_sync_master_timeout=600000"))
	must(t, p.Sync(ctx))
	address := onPair(p, servers.SQLDatabase, "")
	position := func(d *servers.Database) string {
		t.Helper()
		row, err := d.Query(ctx, "SELECT @@GLOBAL.gtid_binlog_pos AS position")
		must(t, err)
		return row["position"]
	}
	var old *servers.Database
	var stood string
	runTraffic(t, s.Store, func(tr *traffic) {
		await(t, "traffic", func() bool { return tr.landed.Load() > 50 || t.Failed() })
		old = p.Primary
		old.Kill()
		must(t, p.Promote(ctx))
		began := time.Now()
		must(t, old.Restart()) // with semi-sync, which gives up after a second
		stood = position(old)
		landed := tr.landed.Load()
		await(t, "landing goes on", func() bool { return tr.landed.Load() > landed })
		t.Logf("landing went on within %s of the old primary's return", time.Since(began))
	})
	row, err := old.Query(ctx, "SELECT @@GLOBAL.read_only AS read_only")
	must(t, err)
	if row["read_only"] != "0" || position(old) != stood {
		t.Errorf("the old primary: read_only %s, at %s, and came back at %s", row["read_only"], position(old), stood)
	}
	if primary, _ := s.Replicas(); !primary[1].Primary || primary[0].Read {
		t.Errorf("%+v", primary)
	}
	// A process that starts now, with the address as it always was.
	fresh := openSpread(t, address).Shown()
	must(t, note(fresh.Store, 99))
	if position(old) != stood {
		t.Error("a process that has just started wrote to the old primary")
	}
	if fresh.replicas.at != 1 {
		t.Error("it does not know the new primary")
	}
}

// A connection to a primary whose term is over is not used again, and what was
// begun on one is not committed.
func TestOldConnections(t *testing.T) {
	p := servers.MariaDBPair(t, servers.Config("rpl-semi-sync-master-timeout=100"))
	s := replicated(t, p, "")
	ctx := t.Context()
	must(t, note(s.Store, 1))
	must(t, p.Sync(ctx))
	runs := 0
	err := s.writing(ctx, "notice", func(c *conn) error {
		if runs++; runs == 1 {
			must(t, p.Promote(ctx)) // the old one goes on, and takes writes
			await(t, "the new term is known", func() bool { return s.replicas.highest() == 2 })
		}
		_, err := c.exec("INSERT INTO notifications (id, user, topic, at, body) VALUES (2, 'u', 't', 1, '{}')")
		return err
	})
	must(t, err)
	if runs < 2 {
		t.Error("committed on the connection on which it began")
	}
	for i := range 20 {
		must(t, note(s.Store, int64(3+i)))
	}
	has := func(d *servers.Database) string {
		t.Helper()
		row, err := d.Query(ctx, "SELECT count(*) AS n FROM sluice.notifications")
		must(t, err)
		return row["n"]
	}
	if old, now := has(p.Replica), has(p.Primary); old != "1" || now != "22" {
		t.Errorf("the old primary has %s, the new one %s", old, now)
	}
}

// A replica that takes writes because somebody made it, and not because it was
// promoted, is given none, also when there is nobody else.
func TestWritableReplica(t *testing.T) {
	p := servers.MariaDBPair(t)
	s := replicated(t, p, "")
	s.write.patience = 200 * time.Millisecond
	ctx := t.Context()
	must(t, note(s.Store, 1))
	must(t, p.Sync(ctx))
	must(t, p.Replica.Exec(ctx, "SET GLOBAL read_only=0"))
	must(t, note(s.Store, 2))
	p.Primary.Kill()
	err := note(s.Store, 3)
	is(t, "a write", err, stock.ErrUnknown)
	is(t, "a write", err, errNotPrimary)
	if _, err := OpenSharded(ctx, onPair(p, servers.SQLDatabase, ""), Options{}); err == nil || !strings.Contains(err.Error(), "promote it") {
		t.Errorf("a store was opened on it: %v", err)
	}
	must(t, p.Promote(ctx)) // now it is meant
	await(t, "written", func() bool { return note(s.Store, 3) == nil })
}

// The doctor finds what a fail-over could lose orders by.
func TestExamine(t *testing.T) {
	p := servers.MariaDBPair(t)
	address := onPair(p, servers.SQLDatabase, "")
	ctx := t.Context()
	openSpread(t, address)
	must(t, p.Sync(ctx))
	faults := func(address string) (list []string) {
		t.Helper()
		for _, f := range Examine(ctx, address) {
			if !f.OK {
				if f.Remedy == "" || strings.Contains(f.Seen, servers.SQLPassword+"@") {
					t.Errorf("%+v", f)
				}
				list = append(list, f.Check)
			}
		}
		return list
	}
	must(t, p.Primary.Exec(ctx, "SET GLOBAL rpl_semi_sync_master_timeout=600000"))
	await(t, "nothing to find", func() bool { return len(faults(address)) == 0 })
	f := func(on *servers.Database, spoil, repair, want string) {
		t.Helper()
		must(t, on.Exec(ctx, strings.Split(spoil, ";")...))
		found := strings.Join(faults(address), "; ")
		if !strings.Contains(found, want) {
			t.Errorf("%s: found %q", spoil, found)
		}
		must(t, on.Exec(ctx, strings.Split(repair, ";")...))
	}
	f(p.Primary, "SET GLOBAL sync_binlog=0", "SET GLOBAL sync_binlog=1", "sync_binlog")
	f(p.Primary, "SET GLOBAL innodb_flush_log_at_trx_commit=2", "SET GLOBAL innodb_flush_log_at_trx_commit=1", "innodb_flush_log_at_trx_commit")
	f(p.Primary, "SET GLOBAL gtid_strict_mode=0", "SET GLOBAL gtid_strict_mode=1", "gtid_strict_mode")
	f(p.Primary, "SET GLOBAL rpl_semi_sync_master_enabled=0", "SET GLOBAL rpl_semi_sync_master_enabled=1", "semi-sync")
	f(p.Primary, "SET GLOBAL rpl_semi_sync_master_wait_point='AFTER_COMMIT'", "SET GLOBAL rpl_semi_sync_master_wait_point='AFTER_SYNC'", "wait_point")
	f(p.Primary, "SET GLOBAL rpl_semi_sync_master_timeout=1000", "SET GLOBAL rpl_semi_sync_master_timeout=600000", "timeout")
	f(p.Replica, "SET GLOBAL read_only=0", "SET GLOBAL read_only=1", "read_only")
	f(p.Replica, "STOP SLAVE;SET GLOBAL rpl_semi_sync_slave_enabled=0;START SLAVE",
		"STOP SLAVE;SET GLOBAL rpl_semi_sync_slave_enabled=1;START SLAVE", "semi-sync")
	f(p.Replica, "STOP SLAVE;SET GLOBAL slave_parallel_threads=0;START SLAVE", "STOP SLAVE;SET GLOBAL slave_parallel_threads=4;START SLAVE",
		"slave_parallel_threads")
	await(t, "nothing to find again", func() bool { return len(faults(address)) == 0 })
	must(t, p.Replica.Exec(ctx, "STOP SLAVE SQL_THREAD"))
	must(t, p.Primary.Exec(ctx, "CREATE DATABASE sluice_news"))
	if found := strings.Join(faults(address), "; "); !strings.Contains(found, "follows") {
		t.Errorf("a replica that stands still: found %q", found)
	}
	p.Replica.Kill()
	if found := strings.Join(faults(address), "; "); !strings.Contains(found, "answers") {
		t.Errorf("a replica that is dead: found %q", found)
	}
	// Where no replica is named nothing is demanded of one.
	plain, _, _ := strings.Cut(address, "?")
	if found := faults(plain); len(found) != 0 {
		t.Errorf("without replicas: %v", found)
	}
}

// What a session remembers, and of whom: news of one reservation keep no lists of
// others from the replicas, and what was read elsewhere does not turn unread.
func TestSession(t *testing.T) {
	now := time.Now()
	s := &session{now: func() time.Time { return now }, pins: map[any]pin{}}
	f := func(what string, about any, want time.Time) {
		t.Helper()
		if got := s.since(about); !got.Equal(want) {
			t.Errorf("%s: since %s, want %s", what, got, want)
		}
	}
	pass := func() time.Time { now = now.Add(time.Second); return now }
	id := stock.ID{Activity: "a", Number: 1}
	s.told(id)
	s.pin(stock.UserID("ann"))
	if len(s.pins) != 0 {
		t.Error("something is remembered for nobody who reads")
	}
	began := pass()
	s.keep()
	pass()
	s.keep()
	f("what was before", stock.UserID("ann"), began)
	f("all", nil, began)
	told := pass()
	s.told(id)
	f("told", id, told)
	f("all, when told", nil, began)
	page := []Notification{{ID: 9}, {ID: 8, ReadAt: 5}}
	noted := pass()
	s.noteNotices("ann", page)
	f("shown", stock.UserID("ann"), noted)
	pass()
	s.noteNotices("ann", page)
	f("shown again", stock.UserID("ann"), noted)
	page[0].ReadAt = 7
	noted = pass()
	s.noteNotices("ann", page)
	f("read elsewhere", stock.UserID("ann"), noted)
	f("all, when shown", nil, noted)
}
