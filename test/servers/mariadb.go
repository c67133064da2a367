package servers

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
)

// The ordinary user of a Database. It may do everything in databases whose
// names begin with "sluice", and nothing else: in particular it cannot write
// where the server is read-only, as root can.
const (
	SQLUser     = "sluice"
	SQLPassword = "sluice"
	SQLDatabase = "sluice" // there from the start, empty
)

// mariadbUsers completes a template. FLUSH PRIVILEGES first, because the
// bootstrap mode that reads this starts without them.
const mariadbUsers = `
FLUSH PRIVILEGES;
CREATE DATABASE ` + SQLDatabase + `;
CREATE USER '` + SQLUser + `'@'127.0.0.1' IDENTIFIED BY '` + SQLPassword + `';
GRANT ALL ON ` + "`sluice%`" + `.* TO '` + SQLUser + `'@'127.0.0.1';
CREATE USER 'replicator'@'127.0.0.1' IDENTIFIED BY 'replicator';
GRANT REPLICATION SLAVE ON *.* TO 'replicator'@'127.0.0.1';
`

// mariadbFrame is the configuration but for a server's place, role and the
// test's own lines. Durable as in production, small so that many fit on one
// machine. The log size is part of the template.
const mariadbFrame = `[mariadbd]
bind-address=127.0.0.1
skip-networking=0
skip-name-resolve
datadir=data
socket=mariadb.sock
pid-file=mariadb.pid
character-set-server=utf8mb4
innodb-flush-log-at-trx-commit=1
sync-binlog=1
log-bin=binlog
relay-log=relay
log-slave-updates
binlog-format=ROW
binlog-row-image=FULL
binlog-row-metadata=FULL
gtid-strict-mode=1
innodb-buffer-pool-size=64M
innodb-log-file-size=16M
performance-schema=off
max-connections=500
`

const (
	mariadbConf = "my.cnf"
	sqlWithin   = 10 * time.Second // for one administrative statement
)

// Database is a MariaDB server with a user, an empty database and a binary log.
type Database struct {
	*Server
	frame, own string // its configuration: before its role, and the test's lines
}

// MariaDB starts a mariadbd whose commits are durable (InnoDB and binary log
// synced). A Config line is one of its option file: Config("lock-wait-timeout=5").
func MariaDB(t TB, opts ...Option) *Database {
	t.Helper()
	return mariadb(t, 1, "", opts)
}

func mariadb(t TB, id int, role string, opts []Option) *Database {
	t.Helper()
	o, d := gather(opts), &Database{}
	path, template := Find(t, "mariadbd"), mariadbTemplate(t)
	d.Server = Start(t, Program{
		Name: "mariadbd",
		Path: path,
		Keep: []string{mariadbConf},
		Args: func(addr, dir string) ([]string, error) {
			_, port, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			d.frame = fmt.Sprintf("%sport=%s\nserver-id=%d\n", mariadbFrame, port, id)
			d.own = strings.Join(o.config, "\n")
			file := filepath.Join(dir, mariadbConf)
			// The data directory by its full name: the server works inside of it. Its
			// own place for temporary tables: a mariadbd that starts takes away all
			// that it finds in the common one, and others that use them crash.
			args := []string{"--defaults-file=" + file, "--datadir=" + filepath.Join(dir, "data"), "--tmpdir=" + filepath.Join(dir, "tmp")}
			if os.Getuid() == 0 {
				args = append(args, "--user=root") // it refuses to be root by accident
			}
			return args, d.writeConf(file, role)
		},
		Prepare: func(dir string) error {
			if err := os.MkdirAll(filepath.Join(dir, "tmp"), 0o700); err != nil {
				return err
			}
			data := filepath.Join(dir, "data")
			if _, err := os.Stat(data); err == nil {
				return nil
			}
			return copyFiles(data, template, func(string) bool { return false })
		},
		Ready: func(ctx context.Context, addr string) error {
			return (&Database{Server: &Server{Addr: addr}}).Exec(ctx, "DO 1")
		},
	}, opts...)
	return d
}

// writeConf is for the next start. The last line of a name counts, so a test's
// own win.
func (d *Database) writeConf(file, role string) error {
	return os.WriteFile(file, []byte(d.frame+role+d.own+"\n"), 0o600)
}

// DSN is the address of a database in the form of go-sql-driver/mysql, for the
// ordinary user and without parameters: append "?…".
func (d *Database) DSN(database string) string {
	return fmt.Sprintf("%s:%s@tcp(%s)/%s", SQLUser, SQLPassword, d.Addr, database)
}

// URL is the address of a database as mysql://user:password@host:port/name.
func (d *Database) URL(database string) string {
	return fmt.Sprintf("mysql://%s:%s@%s/%s", SQLUser, SQLPassword, d.Addr, database)
}

// Create makes an empty database that the ordinary user owns. The name begins
// with "sluice"; one that is there already is emptied.
func (d *Database) Create(ctx context.Context, name string) error {
	return d.Exec(ctx, "DROP DATABASE IF EXISTS `"+name+"`", "CREATE DATABASE `"+name+"`")
}

// Exec runs statements as root, in order, on a connection of its own, within
// 10 s altogether. root may write where the server is read-only.
func (d *Database) Exec(ctx context.Context, statements ...string) error {
	return d.root(ctx, func(ctx context.Context, conn *sql.Conn) error {
		for _, s := range statements {
			if _, err := conn.ExecContext(ctx, s); err != nil {
				return fmt.Errorf("%s: %w", s, err)
			}
		}
		return nil
	})
}

// Query answers the first row of a query as text by column name, asked as
// root within 10 s; sql.ErrNoRows if there is none. NULL reads as "".
func (d *Database) Query(ctx context.Context, query string, args ...any) (row map[string]string, err error) {
	err = d.root(ctx, func(ctx context.Context, conn *sql.Conn) error {
		rows, err := conn.QueryContext(ctx, query, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		names, err := rows.Columns()
		if err != nil {
			return err
		}
		if !rows.Next() {
			if err := rows.Err(); err != nil {
				return err
			}
			return sql.ErrNoRows
		}
		values, into := make([]sql.NullString, len(names)), make([]any, len(names))
		for i := range values {
			into[i] = &values[i]
		}
		if err := rows.Scan(into...); err != nil {
			return err
		}
		row = make(map[string]string, len(names))
		for i, name := range names {
			row[name] = values[i].String
		}
		return nil
	})
	return row, err
}

// root does work on one connection of the administrator, which has no password.
func (d *Database) root(ctx context.Context, work func(context.Context, *sql.Conn) error) error {
	ctx, cancel := context.WithTimeout(ctx, sqlWithin)
	defer cancel()
	config := mysql.NewConfig()
	config.User, config.Net, config.Addr = "root", "tcp", d.Addr
	config.InterpolateParams = true
	config.Logger = &mysql.NopLogger{} // a server that is not up yet is no news
	connector, err := mysql.NewConnector(config)
	if err != nil {
		return err
	}
	db := sql.OpenDB(connector)
	defer db.Close()
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	return work(ctx, conn)
}

// mariadbTemplate is a data directory with system tables and users, made once
// per version of the server and of this file and kept in the user's cache:
// making one takes most of a second, copying one does not.
func mariadbTemplate(t TB) string {
	t.Helper()
	server, install := Find(t, "mariadbd"), Find(t, "mariadb-install-db")
	info, err := os.Stat(server)
	if err != nil {
		t.Fatalf("servers: %v", err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	key := sha256.Sum256(fmt.Append(nil, server, info.Size(), info.ModTime(), mariadbFrame, mariadbUsers))
	template := filepath.Join(cache, "sluice", fmt.Sprintf("mariadb-%x", key[:8]))
	if _, err := os.Stat(template); err == nil {
		return template
	}
	if err := os.MkdirAll(filepath.Dir(template), 0o700); err != nil {
		t.Fatalf("servers: %v", err)
	}
	draft, err := os.MkdirTemp(filepath.Dir(template), "draft-")
	if err != nil {
		t.Fatalf("servers: %v", err)
	}
	defer os.RemoveAll(draft) // nothing is left of it after the rename
	if err := fillTemplate(server, install, draft); err != nil {
		t.Fatalf("servers: %v", err)
	}
	// Two test binaries may make it at the same time: the first one's stays.
	if err := os.Rename(draft, template); err != nil {
		if _, missing := os.Stat(template); missing != nil {
			t.Fatalf("servers: %v", err)
		}
	}
	return template
}

func fillTemplate(server, install, dir string) error {
	small := []string{"--no-defaults", "--datadir=" + dir, "--tmpdir=" + dir, "--innodb-log-file-size=16M", "--innodb-buffer-pool-size=16M"}
	if os.Getuid() == 0 {
		small = append(small, "--user=root")
	}
	run := func(path, stdin string, args ...string) error {
		cmd := exec.Command(path, append(small[:len(small):len(small)], args...)...)
		cmd.Stdin = strings.NewReader(stdin)
		if said, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w; it said:\n%s", filepath.Base(path), err, said)
		}
		return nil
	}
	err := run(install, "", "--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve")
	if err != nil {
		return err
	}
	return run(server, mariadbUsers, "--bootstrap")
}
