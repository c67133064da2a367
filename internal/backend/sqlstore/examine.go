package sqlstore

import (
	"context"
	"database/sql/driver"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Finding is one thing that Examine looked at.
type Finding struct {
	Check  string
	OK     bool
	Seen   string
	Remedy string // what to do when not OK
}

// leastSemiSync is how long a primary has to wait for a replica's word, in ms.
// After it, it goes on alone, and what it then commits is lost by a fail-over.
const leastSemiSync = 60_000

// Examine looks at the servers of an address, as OpenSharded takes it, for what
// a crash or a fail-over could lose orders by. Without replicas only what makes
// a commit durable is demanded. It needs no rights beyond the store's own, and
// changes nothing. Each server has a few seconds to answer.
func Examine(ctx context.Context, address string) (found []Finding) {
	addresses, _, err := splitAddress(address)
	for i := 0; err == nil && i < len(addresses); i++ {
		var p *place
		o := Options{Log: slog.New(slog.DiscardHandler)}
		o.defaults(1)
		if p, err = mysqlPlace(addresses[i], o); err == nil {
			e := &examination{database: i + 1}
			e.all(ctx, p)
			found = append(found, e.found...)
		}
	}
	if err != nil {
		found = append(found, Finding{Check: "store", Seen: err.Error(), Remedy: "correct the line store:"})
	}
	return found
}

// examination is of one database.
type examination struct {
	database int
	found    []Finding
}

func (e *examination) all(ctx context.Context, p *place) {
	m := p.members
	if m == nil { // one server and nobody who follows it
		alone := &member{host: p.host, to: p.write, watch: p.pool(p.write, 1), read: p.pool(p.write, 1)}
		m = &members{d: p.dialect, log: slog.New(slog.DiscardHandler), all: []*member{alone}}
	}
	defer m.close()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	looks := m.look(ctx, findWait)
	for i, l := range looks {
		seen := fmt.Sprintf("term %d", l.term)
		if l.err != nil {
			seen = l.err.Error()
		}
		e.add(m.all[i].host+" answers", l.err == nil, seen, "start it, or correct the line store:")
	}
	primary, err := m.learn(looks)
	if err != nil {
		e.add("primary", false, strings.ReplaceAll(err.Error(), "\n", "; "),
			"promote one of them, as docs/OPERATIONS.md says under Replicas, or give the primary read_only=0")
		return
	}
	e.primary(ctx, m, primary)
	for i, l := range looks {
		if i != primary && l.err == nil {
			e.replica(ctx, m, i, looks[primary], l)
		}
	}
}

func (e *examination) add(check string, ok bool, seen, remedy string) {
	e.found = append(e.found, Finding{fmt.Sprintf("store %d: %s", e.database, check), ok, seen, remedy})
}

// settings are variables and counters of a server, by their names in small letters.
type settings map[string]string

func (m *members) settings(ctx context.Context, i int) (settings, error) {
	s := settings{}
	err := onConn(ctx, m.all[i].watch, func(c *conn) error {
		for _, kind := range []string{"VARIABLES", "STATUS"} {
			err := c.query(ctx, "SHOW GLOBAL "+kind, func(row []driver.Value) error {
				s[strings.ToLower(text(row[0]))] = text(row[1])
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	return s, err
}

// of is the first of these names that the server has: MariaDB, MySQL 8 and
// MySQL 8.0.26 name things differently.
func (s settings) of(names ...string) (name, value string) {
	for _, name := range names {
		if value, has := s[name]; has {
			return name, value
		}
	}
	return names[0], ""
}

// primary examines what the primary promises by a commit.
func (e *examination) primary(ctx context.Context, m *members, i int) {
	host := m.all[i].host
	s, err := m.settings(ctx, i)
	if err != nil {
		e.add(host+" answers", false, err.Error(), "look at its log")
		return
	}
	is := func(wanted []string, names ...string) {
		name, value := s.of(names...)
		e.add(fmt.Sprintf("%s %s", host, name), slices.Contains(wanted, strings.ToUpper(value)), fmt.Sprintf("%q", value),
			fmt.Sprintf("SET GLOBAL %s=%s there, and the same in its option file", name, wanted[0]))
	}
	is([]string{"1"}, "innodb_flush_log_at_trx_commit")
	if len(m.all) == 1 {
		return
	}
	is([]string{"ON", "1"}, "log_bin")
	is([]string{"1"}, "sync_binlog")
	is([]string{"ROW", "MIXED"}, "binlog_format")
	is([]string{"ON", "1"}, "gtid_strict_mode", "gtid_mode")
	is([]string{"AFTER_SYNC"}, "rpl_semi_sync_master_wait_point", "rpl_semi_sync_source_wait_point")
	_, on := s.of("rpl_semi_sync_master_enabled", "rpl_semi_sync_source_enabled")
	_, works := s.of("rpl_semi_sync_master_status", "rpl_semi_sync_source_status")
	_, clients := s.of("rpl_semi_sync_master_clients", "rpl_semi_sync_source_clients")
	n, _ := strconv.Atoi(clients)
	e.add(host+" semi-sync", on == "ON" && works == "ON" && n > 0, fmt.Sprintf("enabled %q, works %q, %d replicas acknowledge", on, works, n),
		"SET GLOBAL rpl_semi_sync_master_enabled=1 there and rpl_semi_sync_slave_enabled=1 on a replica, then STOP SLAVE and START SLAVE on it; MySQL 8 says source and replica")
	name, wait := s.of("rpl_semi_sync_master_timeout", "rpl_semi_sync_source_timeout")
	ms, _ := strconv.Atoi(wait)
	e.add(fmt.Sprintf("%s %s", host, name), ms >= leastSemiSync, wait+" ms",
		fmt.Sprintf("SET GLOBAL %s=%d or more there: past it commits wait for no replica, and a fail-over loses them", name, leastSemiSync))
}

// replica examines whether a server follows the primary, and could take over.
func (e *examination) replica(ctx context.Context, m *members, i int, primary, its look) {
	host := m.all[i].host
	e.add(host+" read_only", its.readOnly, fmt.Sprintf("%t", its.readOnly), "SET GLOBAL read_only=1 there at once: it is not the primary")
	e.add(host+" server_id", its.server != primary.server, strconv.FormatInt(its.server, 10), "give it a server_id of its own, in its option file")
	e.add(host+" term", its.term == primary.term, fmt.Sprintf("%d, the primary's is %d", its.term, primary.term), "have it follow the primary")
	began := time.Now()
	var f follower
	for f.covered.IsZero() && f.probes == nil || len(f.probes) > 0 && time.Since(began) < time.Second {
		if f.reach(ctx, m.all[i], []probe{{began, primary.position}}); !f.answers {
			break
		}
	}
	seen := "has all that the primary had, " + time.Since(began).Round(time.Millisecond).String() + " later"
	if f.covered.IsZero() {
		seen = "has not got what the primary had a second ago"
	}
	e.add(host+" follows", !f.covered.IsZero() && primary.position != "", seen, "SHOW SLAVE STATUS (MySQL 8: SHOW REPLICA STATUS) there says why; START SLAVE, or set it up anew")
	s, err := m.settings(ctx, i)
	if err != nil {
		e.add(host+" answers", false, err.Error(), "look at its log")
		return
	}
	name, threads := s.of("slave_parallel_threads", "replica_parallel_workers", "slave_parallel_workers")
	n, _ := strconv.Atoi(threads)
	e.add(host+" "+name, n > 1, threads, fmt.Sprintf(
		"STOP SLAVE, SET GLOBAL %s=4, START SLAVE there, and the same in its option file: alone it falls behind a primary that syncs in groups, and promoting it takes as long", name))
	_, on := s.of("rpl_semi_sync_slave_enabled", "rpl_semi_sync_replica_enabled")
	e.add(host+" semi-sync", on == "ON", fmt.Sprintf("enabled %q", on),
		"SET GLOBAL rpl_semi_sync_slave_enabled=1 there, then STOP SLAVE and START SLAVE; MySQL 8 says replica")
}
