package sqlstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// This file is about which server of a database is written to, where its
// address names several. One is the primary and the others follow it; a
// promotion may make another one the primary at any time.
//
// Each primary has a term. The row of primary_term says which term it is and
// whose, by server_id, and is replicated like any other: whoever promotes a
// server raises the term there before it takes writes. So an old primary that
// comes back writable has an older term than what follows the new one, and a
// replica on which somebody has only switched read_only off has a term that is
// another server's. Neither is written to, or read as a primary.

// member is one server of a database.
type member struct {
	host        string
	to          driver.Connector // for writing, and for reading what must be of now
	plain       driver.Connector // for migrations
	watch, read *sql.DB          // one connection for looks; those for reading it as a replica

	// Under mu of its members:
	asking chan struct{} // closed when the question that is open has its answer; nil: none is
	said   look          // the newest answer
}

// members are the servers of a database, as the address names them.
type members struct {
	d   *dialect
	log *slog.Logger
	all []*member

	mu   sync.Mutex
	at   int   // the primary, as far as is known
	term int64 // the highest that was met anywhere: an older one is over
}

var (
	// errNotPrimary: none of the servers may be written to. It passes.
	errNotPrimary = errors.New("no server of this database is its primary")
	errSilent     = errors.New("it does not answer")
)

// How long a look waits for answers. One that comes later counts in the next
// look: so a server that hangs takes a little of each look and no more.
const (
	lookSoon = 100 * time.Millisecond // where looks follow each other
	lookWait = time.Second            // before a server counts as away
	findWait = 5 * time.Second        // when nothing is open yet
)

// standing is what a server says of itself.
type standing struct {
	readOnly bool
	server   int64  // its own id
	term     int64  // 0: nobody has begun one
	primary  int64  // id of the term's primary
	position string // of its binary log, as global transaction ids
}

// MariaDB reads what is for it and leaves out what is for MySQL 8, and the other
// way round.
const (
	lookAtServer = `SELECT IF(@@global.read_only IN ('0', 'OFF'), 0, 1), CAST(@@global.server_id AS SIGNED),
		/*M! @@global.gtid_binlog_pos */ /*!80000 @@global.gtid_executed */, `
	lookAtTerm = lookAtServer + "COALESCE(MAX(term), 0), COALESCE(MAX(server), 0) FROM primary_term"
	lookBefore = lookAtServer + "0, 0"
	// beginTerm makes the server that it runs on the primary of the first term.
	beginTerm = "INSERT INTO primary_term (id, term, server) VALUES (1, 1, @@global.server_id) ON DUPLICATE KEY UPDATE id = id"
)

// standing asks the server behind a connection.
func (c *conn) standing(ctx context.Context) (s standing, err error) {
	each := func(row []driver.Value) error {
		s = standing{readOnly: integer(row[0]) != 0, server: integer(row[1]), position: text(row[2]), term: integer(row[3]), primary: integer(row[4])}
		return nil
	}
	err = c.query(ctx, lookAtTerm, each)
	if mysqlCode(err) == 1146 { // before the first migration there is no such table
		err = c.query(ctx, lookBefore, each)
	}
	return s, err
}

// look is what a server said when it was asked, or why it did not.
type look struct {
	standing
	err  error
	at   time.Time // when it was asked: what it says is not older
	open bool      // it was asked again, and has not answered yet
}

// look asks all servers, side by side, and waits so long for them. Whoever looks
// at the same time shares the question. An answer counts for lookWait: one server
// that is late, or hangs, is no reason to know nothing of the others.
func (m *members) look(ctx context.Context, wait time.Duration) []look {
	lasts := max(wait, lookWait)
	soon, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	answered := make([]<-chan struct{}, len(m.all))
	for i, server := range m.all {
		answered[i] = m.ask(ctx, server, lasts)
	}
	for _, done := range answered {
		select {
		case <-done:
		case <-soon.Done():
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	looks := make([]look, len(m.all))
	for i, server := range m.all {
		looks[i] = server.said
		if time.Since(server.said.at) > lasts {
			looks[i] = look{err: errSilent}
		}
		looks[i].open = server.asking != nil
	}
	return looks
}

// ask asks a server, unless it is being asked, and closes answered when its
// answer is there. It is given so long, whoever waits for it.
func (m *members) ask(ctx context.Context, server *member, within time.Duration) (answered <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if server.asking != nil {
		return server.asking
	}
	done := make(chan struct{})
	server.asking = done
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), within)
	go func() {
		defer cancel()
		l := look{at: time.Now()}
		l.err = onConn(ctx, server.watch, func(c *conn) (err error) {
			l.standing, err = c.standing(ctx)
			return err
		})
		m.mu.Lock()
		server.said, server.asking = l, nil
		m.mu.Unlock()
		close(done)
	}()
	return done
}

// learn takes in what the servers said: the term first, whoever knows of it, and
// then who has it. The error says why none of them may be written to.
func (m *members) learn(looks []look) (primary int, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range looks {
		if l.err == nil {
			m.term = max(m.term, l.term)
		}
	}
	failed := []error{errNotPrimary}
	for _, i := range m.inTurn() {
		err := looks[i].err
		if err == nil {
			err = m.accept(i, looks[i].standing)
		}
		if err == nil {
			return i, nil
		}
		failed = append(failed, fmt.Errorf("%s: %w", m.all[i].host, err))
	}
	return m.at, errors.Join(failed...)
}

// inTurn are the servers, the one last known to be the primary first.
func (m *members) inTurn() []int {
	turn := []int{m.at}
	for i := range m.all {
		if i != m.at {
			turn = append(turn, i)
		}
	}
	return turn
}

// accept says why a server is not the primary; if it is, it is from now on.
func (m *members) accept(i int, s standing) error {
	switch {
	case s.readOnly:
		return errReadOnly
	case s.term < m.term:
		return fmt.Errorf("it takes writes although its term, %d, is over: %d has begun; set read_only=1 there at once", s.term, m.term)
	case s.primary != 0 && s.primary != s.server:
		return fmt.Errorf("it takes writes, and the primary of term %d is the server with server_id %d; promote it, or set read_only=1 there", s.term, s.primary)
	}
	m.term = s.term
	if i != m.at {
		m.log.Warn("another server is the primary", "host", m.all[i].host, "was", m.all[m.at].host, "term", s.term)
		m.at = i
	}
	return nil
}

// connect opens a connection to the primary, and to nobody else. Where that is
// not the one that was known, all are asked who it is: by what looks keep open, so
// that while there is none, many who want to write cost the others no logins.
func (m *members) connect(ctx context.Context) (*conn, error) {
	m.mu.Lock()
	known := m.at
	m.mu.Unlock()
	c, err := m.login(ctx, known)
	if err == nil {
		return c, nil
	}
	i, unknown := m.learn(m.look(ctx, lookWait))
	if unknown != nil {
		return nil, unknown
	}
	if i != known {
		if c, err = m.login(ctx, i); err == nil {
			return c, nil
		}
	}
	return nil, fmt.Errorf("%w: %s: %w", errNotPrimary, m.all[i].host, err)
}

// login opens a connection to a server that is the primary.
func (m *members) login(ctx context.Context, i int) (*conn, error) {
	c, err := dial(ctx, m.all[i].to, m.d)
	if err != nil {
		return nil, err
	}
	s, err := c.standing(ctx)
	if err == nil {
		m.mu.Lock()
		err = m.accept(i, s)
		m.mu.Unlock()
	}
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	c.of, c.term = m, s.term
	return c, nil
}

// over says that the term in which a connection was opened has ended: its server
// is not the primary any more.
func (m *members) over(term int64) bool {
	if m == nil {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	// A connection from before the first term began is as good as one of it.
	return max(term, 1) < m.term
}

// find asks everybody who is the primary, before anything is opened.
func (m *members) find(ctx context.Context) (*member, error) {
	i, err := m.learn(m.look(ctx, findWait))
	return m.all[i], err
}

func (m *members) close() (err error) {
	if m == nil {
		return nil
	}
	for _, server := range m.all {
		err = errors.Join(err, server.watch.Close(), server.read.Close())
	}
	return err
}
