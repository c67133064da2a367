package sqlstore

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"

	"sluice/internal/lib/shard"
)

// ErrMap: the databases that an address names are not those over which the
// orders are spread. What it wraps says what to write instead.
var ErrMap = errors.New("the map of shards does not fit the store's address")

// shardMap says where each logical shard of users is. It is kept in the first
// database, so that it can be changed for all processes at one place.
type shardMap struct {
	Version int64
	Ranges  []shardRange // in order, the first from shard 0
}

// shardRange is a run of logical shards: from First up to the next range's.
type shardRange struct{ First, Database, Table int }

// evenMap spreads the shards over all tables of all databases; tables are how
// many each database has. The shares of two tables differ by one at most.
func evenMap(tables []int) shardMap {
	all := 0
	for _, n := range tables {
		all += n
	}
	m := shardMap{Version: 1}
	at := 0
	for database, n := range tables {
		for table := range n {
			m.Ranges = append(m.Ranges, shardRange{at * shard.Logical / all, database, table})
			at++
		}
	}
	return m
}

// check says what is wrong with a map for databases with so many tables each.
func (m shardMap) check(tables []int) error {
	if len(m.Ranges) == 0 || m.Ranges[0].First != 0 {
		return fmt.Errorf("%w: map %d does not begin with shard 0: restore table shard_map of the first database from a backup", ErrMap, m.Version)
	}
	need := make([]int, 0, len(tables)) // tables in each database, by the map
	for i, r := range m.Ranges {
		if r.First >= shard.Logical || r.Database < 0 || r.Table < 0 || r.Database > 9999 || r.Table >= shard.Logical || i > 0 && r.First <= m.Ranges[i-1].First {
			return fmt.Errorf("%w: map %d has a range %+v that no program writes: restore table shard_map of the first database from a backup", ErrMap, m.Version, r)
		}
		for len(need) <= r.Database {
			need = append(need, 0)
		}
		need[r.Database] = max(need[r.Database], r.Table+1)
	}
	if slices.Equal(need, tables) {
		return nil
	}
	return fmt.Errorf("%w: orders are over %s, and the address names %s: write the address as it was; moving shards to other places is not a matter of the address",
		ErrMap, counted(need), counted(tables))
}

func counted(tables []int) string {
	each := make([]string, len(tables))
	for i, n := range tables {
		each[i] = fmt.Sprint(n)
	}
	return fmt.Sprintf("%d database(s) with tables=%s", len(tables), strings.Join(each, ", "))
}

// agreeOnMap reads the map of these databases. Where there is none, and no
// orders either, it writes an even one. It refuses databases that are not all of
// one store, or not in their order.
func agreeOnMap(ctx context.Context, dbs []*Store, tables []int) (m shardMap, err error) {
	store, err := joinStore(ctx, dbs[0], "", 0)
	if err != nil {
		return m, err
	}
	err = dbs[0].writing(ctx, "map of shards", func(c *conn) error {
		if m, err = readMap(ctx, c); err != nil || len(m.Ranges) > 0 {
			return err
		}
		if len(dbs) > 1 || tables[0] > 1 {
			_, sold, err := c.one("SELECT 1 FROM watermarks LIMIT 1")
			if err != nil {
				return err
			}
			if sold {
				return fmt.Errorf("%w: the first database has orders of a store that is not spread: write its address alone, or begin with empty databases", ErrMap)
			}
		}
		m = evenMap(tables)
		for _, r := range m.Ranges {
			_, err := c.exec("INSERT INTO shard_map (version, first_shard, database_no, table_no) VALUES (?, ?, ?, ?)", m.Version, r.First, r.Database, r.Table)
			if err != nil {
				return raced(err) // another process is at the same
			}
		}
		return nil
	})
	if err == nil {
		err = m.check(tables)
	}
	for i, db := range dbs[1:] {
		if err == nil {
			_, err = joinStore(ctx, db, store, i+1)
		}
	}
	return m, err
}

func readMap(ctx context.Context, c *conn) (m shardMap, err error) {
	err = c.query(ctx, "SELECT version, first_shard, database_no, table_no FROM shard_map WHERE version = (SELECT MAX(version) FROM shard_map) ORDER BY first_shard",
		func(row []driver.Value) error {
			m.Version = integer(row[0])
			m.Ranges = append(m.Ranges, shardRange{int(integer(row[1])), int(integer(row[2])), int(integer(row[3]))})
			return nil
		})
	return m, err
}

// joinStore makes a database number i of a store, or finds that it is; the
// first one names the store.
func joinStore(ctx context.Context, db *Store, store string, i int) (string, error) {
	err := db.writing(ctx, "join the store", func(c *conn) error {
		row, member, err := c.one("SELECT store, database_no FROM shard_member WHERE id = 1")
		if err != nil {
			return err
		}
		if !member {
			name := store
			if i == 0 {
				name = uuid.NewString()
			}
			_, sold, err := c.one("SELECT 1 FROM watermarks LIMIT 1")
			if err != nil {
				return err
			}
			if sold && i > 0 {
				return fmt.Errorf("%w: database %d of the address has orders of another store: name an empty one", ErrMap, i+1)
			}
			if _, err := c.exec("INSERT INTO shard_member (id, store, database_no) VALUES (1, ?, ?)", name, i); err != nil {
				return raced(err)
			}
			store = name
			return nil
		}
		its, number := text(row[0]), int(integer(row[1]))
		if i == 0 {
			store = its
		}
		if number != i || its != store {
			return fmt.Errorf("%w: database %d of the address is number %d of store %s, not number %d of store %s: write the databases in the order in which they were named first",
				ErrMap, i+1, number+1, its, i+1, store)
		}
		return nil
	})
	return store, err
}

// tableNames are the tables of orders in a database, as many as asked for. The
// first is the one that every store has.
func tableNames(n int) []*ordersTable {
	all := []*ordersTable{plainOrders}
	for i := 1; i < n; i++ {
		all = append(all, ordersIn(fmt.Sprintf("orders_%04d", i)))
	}
	return all
}

// makeTables makes those that are not there, as copies of the first; and refuses
// one that has other columns, which a migration has left out.
func makeTables(ctx context.Context, db *Store, tables []*ordersTable) error {
	return onConn(ctx, db.write.db, func(c *conn) error {
		for _, t := range tables[1:] {
			if _, err := c.exec("CREATE TABLE IF NOT EXISTS " + t.name + " LIKE orders"); err != nil {
				return fmt.Errorf("%s: %w", t.name, err)
			}
		}
		columns := map[string]string{}
		err := c.query(ctx, "SELECT table_name, column_name, column_type FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name LIKE 'orders%' ORDER BY table_name, column_name",
			func(row []driver.Value) error {
				columns[text(row[0])] += text(row[1]) + " " + text(row[2]) + ","
				return nil
			})
		for _, t := range tables {
			if err == nil && columns[t.name] != columns[plainOrders.name] {
				err = fmt.Errorf("%s has other columns than %s: a migration has to change all tables of orders", t.name, plainOrders.name)
			}
		}
		return err
	})
}
