package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"sluice/internal/lib/id"
	"sluice/internal/lib/outbox"
	"sluice/internal/lib/shard"
	"sluice/internal/order"
	"sluice/internal/stock"
)

// Sharded is a store whose orders are spread over databases, and over tables in
// each, by their user. What is written in one transaction with an order is in
// its database: its events, and the watermark of its log. Everything else is in
// the first database, which Store is.
//
// An order id carries the shard of its user, so "the orders of a user" and "the
// order of this id" ask one table of one database. What asks for neither asks all
// of them. Safe for concurrent use.
//
// Under is the first database's alone: it guards no order.
type Sharded struct {
	*Store
	dbs     []*database
	groups  []group            // all tables of orders, by database
	at      [shard.Logical]int // of each shard, its group
	version int64

	// step, in tests, is told of each step of a landing and may end it there, as
	// a crash would.
	step func(what string) error
}

// database is one of a Sharded's.
type database struct {
	*Store
	number int
	tables []*ordersTable
}

// group is the shards that are in one table: a view of their database with it.
type group struct {
	*Store
	database int
}

var (
	_ order.Store   = (*Sharded)(nil)
	_ order.Buckets = (*Sharded)(nil)
	_ outbox.Queue  = (*Sharded)(nil)
)

// maxDatabases is as many as the numbers of messages have room for, see messageOf.
const maxDatabases = 64

// OpenSharded opens the databases of an address, which is that of OpenServer or
// several of them behind each other:
//
//	mysql://user:password@h1/shop?tables=4,mysql://user:password@h2/shop?tables=4
//
// tables, 1..1,024 and 1 when it is not said, is over how many tables a database
// spreads its orders. How the shards of users are spread is decided when the store
// is opened for the first time and kept in the first database; an address that
// does not fit that is ErrMap.
func OpenSharded(ctx context.Context, address string, o Options) (s *Sharded, err error) {
	addresses, tables, err := splitAddress(address)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	var dbs []*Store
	defer func() {
		for _, db := range dbs {
			if err != nil {
				err = errors.Join(err, db.Close())
			}
		}
	}()
	for _, a := range addresses {
		db, err := OpenServer(ctx, a, o)
		if err != nil {
			return nil, err
		}
		dbs = append(dbs, db)
	}
	m, err := agreeOnMap(ctx, dbs, tables)
	if err != nil {
		return nil, err
	}
	for i, db := range dbs {
		if tables[i] == 1 {
			continue
		}
		if err := makeTables(ctx, db, tableNames(tables[i])); err != nil {
			return nil, fmt.Errorf("store: tables of orders: %w", err)
		}
	}
	return spread(dbs, tables, m), nil
}

// Single is a store of one database in the form of many.
func Single(s *Store) *Sharded {
	one := []int{1}
	return spread([]*Store{s}, one, evenMap(one))
}

func spread(dbs []*Store, tables []int, m shardMap) *Sharded {
	s := &Sharded{Store: dbs[0], version: m.Version}
	first := make([]int, len(dbs)) // group of each database
	s.shareSession(dbs)
	for i, db := range dbs {
		s.dbs = append(s.dbs, &database{db, i, tableNames(tables[i])})
		first[i] = len(s.groups)
		for _, t := range s.dbs[i].tables {
			view := *db
			view.orders = t
			s.groups = append(s.groups, group{&view, i})
		}
	}
	for i, r := range m.Ranges {
		to := shard.Logical
		if i+1 < len(m.Ranges) {
			to = m.Ranges[i+1].First
		}
		for at := r.First; at < to; at++ {
			s.at[at] = first[r.Database] + r.Table
		}
	}
	return s
}

// splitAddress takes an address apart. No error quotes it: the passwords.
func splitAddress(address string) (addresses []string, tables []int, err error) {
	for i, a := range strings.Split(address, ",mysql://") {
		if i > 0 {
			a = "mysql://" + a
		}
		u, err := url.Parse(a)
		if err != nil {
			return nil, nil, fmt.Errorf(badDatabase, i+1)
		}
		q, n := u.Query(), 1
		if q.Has("tables") {
			if n, err = strconv.Atoi(q.Get("tables")); err != nil || n < 1 || n > shard.Logical {
				return nil, nil, fmt.Errorf("tables: %q is not in 1..%d", q.Get("tables"), shard.Logical)
			}
			q.Del("tables")
			u.RawQuery = q.Encode()
			a = u.String()
		}
		addresses, tables = append(addresses, a), append(tables, n)
	}
	all := 0
	for _, n := range tables {
		all += n
	}
	if all > shard.Logical || len(tables) > maxDatabases {
		return nil, nil, fmt.Errorf("%d databases with %d tables: at most %d and %d", len(tables), all, maxDatabases, shard.Logical)
	}
	return addresses, tables, nil
}

// CheckAddress says what is wrong with an address that OpenSharded is to take. It
// asks no server. No error shows a password.
func CheckAddress(address string) error {
	addresses, _, err := splitAddress(address)
	for i := 0; err == nil && i < len(addresses); i++ {
		var p *place
		if p, err = mysqlPlace(addresses[i], Options{}); err != nil {
			return fmt.Errorf("database %d of the address: %w", i+1, err)
		}
		err = p.members.close()
	}
	return err
}

const badDatabase = "database %d of the address must be mysql://user:password@host:3306/database, with the password percent-encoded"

// lone says that there is nothing to spread: then every call is the store's own.
func (s *Sharded) lone() bool { return len(s.groups) == 1 }

// groupOf is where a shard is.
func (s *Sharded) groupOf(shard int) int { return s.at[shard] }

func (s *Sharded) groupOfUser(user stock.UserID) int { return s.groupOf(shard.Of(string(user))) }

// groupOfID is where the id of an order leads, 0 for what is none.
func (s *Sharded) groupOfID(order stock.OrderID) int {
	n, ok := rowID(order)
	if !ok {
		return 0
	}
	return s.groupOf(id.Shard(uint64(n)))
}

// following calls f with the group that an order's id leads to, and if the order
// is not there but noted to be elsewhere, with that one.
func (s *Sharded) following(ctx context.Context, id stock.OrderID, f func(g *Store) error) error {
	g := s.groups[s.groupOfID(id)].Store
	err := f(g)
	if !errors.Is(err, order.ErrNoSuchOrder) {
		return err
	}
	n, ok := rowID(id)
	if !ok {
		return err
	}
	notes, cause := g.notes(ctx, []int64{n})
	if cause != nil {
		return cause
	}
	at, noted := notes[n]
	if !noted || s.groups[s.groupOf(at)].Store == g {
		return err
	}
	return f(s.groups[s.groupOf(at)].Store)
}

// Get implements order.Store.
func (s *Sharded) Get(ctx context.Context, id stock.OrderID) (o order.Order, err error) {
	err = s.following(ctx, id, func(g *Store) error {
		o, err = g.Get(ctx, id)
		return err
	})
	return o, err
}

// Update implements order.Store.
func (s *Sharded) Update(ctx context.Context, id stock.OrderID, change func(o *order.Order) ([]outbox.Message, error)) error {
	called := false
	var err error
	cause := s.following(ctx, id, func(g *Store) error {
		err = g.Update(ctx, id, func(o *order.Order) ([]outbox.Message, error) { called = true; return change(o) })
		if called {
			return nil // the order is here, whatever change says
		}
		return err
	})
	if cause != nil {
		return cause
	}
	return err
}

// Reland puts back an order, see Store.Reland.
func (s *Sharded) Reland(ctx context.Context, l order.Landed) error {
	if err := s.noteStrays(ctx, []order.Landed{l}); err != nil {
		return err
	}
	return s.groups[s.groupOfUser(l.Order.User)].Reland(ctx, l)
}

// Ping answers for all databases.
func (s *Sharded) Ping(ctx context.Context) error {
	for _, db := range s.dbs {
		if err := db.Ping(ctx); err != nil {
			return fmt.Errorf("database %d: %w", db.number+1, err)
		}
	}
	return nil
}

// Stats are sums over all databases.
func (s *Sharded) Stats() (all Stats) {
	for _, db := range s.dbs {
		one := db.Stats()
		all.Writes += one.Writes
		all.Commits += one.Commits
		all.Retries += one.Retries
		all.Queued += one.Queued
	}
	return all
}

// Close closes all databases, see Store.Close.
func (s *Sharded) Close() error {
	var errs []error
	for _, db := range s.dbs {
		errs = append(errs, db.Close())
	}
	return errors.Join(errs...)
}

// Spread says how many logical shards each table of orders has, by database.
func (s *Sharded) Spread() [][]int {
	shares := make([][]int, len(s.dbs))
	all := make([]int, len(s.groups))
	for _, g := range s.at {
		all[g]++
	}
	for i, g := range s.groups {
		shares[g.database] = append(shares[g.database], all[i])
	}
	return shares
}
