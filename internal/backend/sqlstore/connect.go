package sqlstore

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	"modernc.org/sqlite"
)

// This file turns an address into pools of connections.

// place is a database and how to get connections to it.
type place struct {
	*dialect
	name, host       string           // for messages; without secrets
	write, read      driver.Connector // SQLite reads through connections that cannot write
	plain            driver.Connector // for migrations, which need all of database/sql
	writers, readers int
	members          *members // where the address names several servers; else nil
	maxLag           time.Duration
}

// Server pools. A connection is closed before anything between us and the
// server may think it forgotten; it stays open while idle, since opening one
// costs several exchanges.
const (
	connLifetime = 4 * time.Minute
	connIdle     = 45 * time.Second
	// sessionIdle is when the server ends a session that has said nothing: a
	// transaction whose client vanished without a word holds its locks until then.
	sessionIdle = 60 * time.Second
	lockWait    = 5 * time.Second
	dialWait    = 3 * time.Second
	// answerWait bounds every exchange with the server, so that one that hangs is
	// noticed. A commit that no replica acknowledges takes longer (the primary waits
	// for a minute or more, see leastSemiSync): whoever asked for it hears "unknown",
	// and asks again until the locks of the first are gone, and it has landed.
	answerWait = 15 * time.Second
)

// pool opens a bounded pool whose connections are *conn.
func (p *place) pool(c driver.Connector, n int) *sql.DB {
	return p.poolOf(connector{c, p.dialect, nil}, n)
}

func (p *place) poolOf(c connector, n int) *sql.DB {
	db := sql.OpenDB(c)
	db.SetMaxOpenConns(n)
	db.SetMaxIdleConns(n)
	if p.sideBySide {
		db.SetConnMaxLifetime(connLifetime)
		db.SetConnMaxIdleTime(connIdle)
	}
	return db
}

// layout is the files of the dialect's migrations. Their numbers mean the same
// in every dialect.
func (d *dialect) layout() (fs.FS, error) { return fs.Sub(migrations, "migrations/"+d.name) }

func sqlitePlace(path string, o Options) (p *place, err error) {
	busy := strconv.FormatInt(o.Busy.Milliseconds(), 10)
	p = &place{dialect: sqliteSide, name: path, writers: 1, readers: o.Readers}
	if p.write, err = sqlite.NewConnector(sqliteDSN(path, busy, false)); err != nil {
		return nil, err
	}
	p.plain = p.write
	p.read, err = sqlite.NewConnector(sqliteDSN(path, busy, true))
	return p, err
}

// sqliteDSN asks for WAL with a sync per commit: what is committed survives a
// power cut. busyMillis is how long to wait for another process that holds the
// lock.
func sqliteDSN(path string, busyMillis string, readOnly bool) string {
	v := url.Values{}
	v.Set("_txlock", "immediate")
	v.Set("_busy_timeout", busyMillis)
	v.Add("_pragma", "journal_mode(WAL)")
	v.Add("_pragma", "synchronous(FULL)")
	v.Add("_pragma", "temp_store(MEMORY)")
	if readOnly {
		v.Set("_query_only", "1")
		v.Add("_pragma", "cache_size(-16384)")
	} else {
		// 32 MB of pages: measured, landing is slower with 128 (each commit walks
		// the cache's table), and not faster with less. A commit checkpoints by
		// itself only when Checkpoint has not kept up.
		v.Add("_pragma", "cache_size(-32768)")
		v.Add("_pragma", "wal_autocheckpoint(8192)")
		v.Add("_pragma", "journal_size_limit(67108864)")
	}
	// A path is escaped as a URI, so that '?', '#' and '%' in it are letters.
	return "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + v.Encode()
}

func mysqlPlace(address string, o Options) (_ *place, err error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "mysql" || u.Host == "" || len(u.Path) < 2 || strings.ContainsAny(u.Host, ",") {
		// Not what url.Parse says: it quotes, and the password may be in it.
		return nil, errors.New("the address must be mysql://user:password@host:3306/database, with the password percent-encoded")
	}
	p := &place{dialect: mysqlSide, name: u.Redacted(), writers: o.Writers, readers: o.Readers}
	q := u.Query()
	for name, n := range map[string]*int{"readers": &p.readers, "writers": &p.writers} {
		if q.Has(name) {
			if *n, err = strconv.Atoi(q.Get(name)); err != nil || *n < 1 || *n > 1000 {
				return nil, fmt.Errorf("%s: %q is not in 1..1000", name, q.Get(name))
			}
			q.Del(name)
		}
	}
	host := net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "3306"))
	p.host = host
	replicas, maxLag, err := replicasOf(host, q)
	if err != nil {
		return nil, err
	}
	p.maxLag = maxLag
	defer func() {
		if err != nil && p.members != nil {
			_ = p.members.close()
		}
	}()
	for _, at := range append([]string{host}, replicas...) {
		// What else is in the query is the driver's: tls, timeouts, variables of the session.
		cfg, err := mysql.ParseDSN("tcp(" + at + ")/" + url.PathEscape(u.Path[1:]) + "?" + q.Encode())
		if err != nil {
			return nil, err
		}
		cfg.User = u.User.Username()
		cfg.Passwd, _ = u.User.Password()
		demand(cfg, o.Log)
		server := &member{host: at}
		if server.to, err = mysql.NewConnector(cfg); err != nil {
			return nil, err
		}
		plain := cfg.Clone()
		plain.ReadTimeout = 0                  // an index over many rows takes as long as it takes
		plain.Params["wait_timeout"] = "28800" // and who holds the lock says nothing meanwhile
		if server.plain, err = mysql.NewConnector(plain); err != nil {
			return nil, err
		}
		if len(replicas) == 0 {
			p.write, p.read, p.plain = server.to, server.to, server.plain
			return p, nil
		}
		if err := p.join(server, cfg, o.Log); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// join makes a server one of several.
func (p *place) join(server *member, cfg *mysql.Config, log *slog.Logger) error {
	if p.members == nil {
		p.members = &members{d: p.dialect, log: log}
		p.write, p.read = server.to, server.to // connections are opened by members
	}
	near := cfg.Clone()
	near.Timeout, near.ReadTimeout = min(cfg.Timeout, nearDial), min(cfg.ReadTimeout, nearWait)
	to, err := mysql.NewConnector(near)
	if err != nil {
		return err
	}
	server.watch, server.read = p.pool(to, 1), p.pool(to, p.readers)
	p.members.all = append(p.members.all, server)
	return nil
}

// replicasOf takes replicas and the bound of their lag out of an address's query.
func replicasOf(primary string, q url.Values) (replicas []string, maxLag time.Duration, err error) {
	known := map[string]bool{primary: true}
	for _, r := range q["replica"] {
		u, err := url.Parse("mysql://" + r)
		if err != nil || u.Hostname() == "" || u.User != nil || u.Path+u.RawQuery+u.Fragment != "" || strings.Contains(r, ",") {
			return nil, 0, errors.New("replica= must be host or host:3306, once for each replica; user, password and database are those of the primary")
		}
		host := net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "3306"))
		if known[host] {
			return nil, 0, fmt.Errorf("replica=%s: the address names this server twice", host)
		}
		known[host] = true
		replicas = append(replicas, host)
	}
	if len(replicas) > maxReplicas {
		return nil, 0, fmt.Errorf("%d replicas: at most %d of a database", len(replicas), maxReplicas)
	}
	maxLag = defaultMaxLag
	if q.Has("maxlag") {
		maxLag, err = time.ParseDuration(q.Get("maxlag"))
		if err != nil || maxLag < leastMaxLag || maxLag > time.Minute {
			return nil, 0, fmt.Errorf("maxlag: %q is not in %s..1m", q.Get("maxlag"), leastMaxLag)
		}
		if len(replicas) == 0 {
			return nil, 0, errors.New("maxlag= without replica=host:3306 bounds nothing; leave it out")
		}
	}
	q.Del("replica")
	q.Del("maxlag")
	return replicas, maxLag, nil
}

// demand sets what this package relies on, whatever the address says.
func demand(cfg *mysql.Config, log *slog.Logger) {
	cfg.InterpolateParams = true // see dialect.inText
	cfg.ClientFoundRows = true   // a conditional update answers whether it found its row, not whether it changed it
	cfg.ParseTime, cfg.Loc = true, time.UTC
	cfg.MultiStatements, cfg.AllowAllFiles, cfg.AllowOldPasswords = false, false, false
	cfg.RejectReadOnly = false // ours, see lost: a COMMIT must say what became of it
	cfg.CheckConnLiveness = true
	cfg.Collation = "utf8mb4_bin"
	cfg.Logger = driverLog{log}
	for wait, d := range map[*time.Duration]time.Duration{&cfg.Timeout: dialWait, &cfg.ReadTimeout: answerWait, &cfg.WriteTimeout: answerWait} {
		if *wait == 0 {
			*wait = d
		}
	}
	if cfg.Params == nil {
		cfg.Params = map[string]string{}
	}
	for name, value := range map[string]string{
		"innodb_lock_wait_timeout": seconds(lockWait),
		"wait_timeout":             seconds(sessionIdle),
	} {
		if _, set := cfg.Params[name]; !set {
			cfg.Params[name] = value
		}
	}
	cfg.Params["autocommit"] = "1"
	cfg.Params["time_zone"] = "'+00:00'"
	// What does not fit is an error, never cut short.
	cfg.Params["sql_mode"] = "'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,ERROR_FOR_DIVISION_BY_ZERO'"
}

func seconds(d time.Duration) string { return strconv.Itoa(int(d.Seconds())) }

// driverLog takes what the driver remarks on broken connections. Errors that
// matter come back to their callers.
type driverLog struct{ *slog.Logger }

// Print implements mysql.Logger.
func (l driverLog) Print(v ...any) { l.Debug("sql driver", "remark", fmt.Sprint(v...)) }

// prepare makes a new connection ready.
func (c *conn) prepare(ctx context.Context) error {
	for _, statement := range c.d.setup {
		if _, err := c.Conn.(driver.ExecerContext).ExecContext(ctx, statement, nil); err != nil {
			return errors.Join(err, c.Close())
		}
	}
	return nil
}
