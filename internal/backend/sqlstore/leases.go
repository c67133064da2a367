package sqlstore

import (
	"context"
	"fmt"
	"time"

	"sluice/internal/lib/lease"
)

// Leases are rows; their clock is the database's, the same for all who ask. A
// row stays when its lease has ended, since its token must never come again.

// readLease locks a lease. A lease that runs out at this millisecond has ended.
func (s *Store) readLease(c *conn, name string) (g lease.Grant, stands, known bool, err error) {
	row, known, err := c.one("SELECT holder, token, expires_at > "+s.d.now+" FROM leases WHERE name = ?"+s.d.forUpdate, name)
	if !known {
		return g, false, false, err
	}
	return lease.Grant{Name: name, Holder: text(row[0]), Token: uint64(integer(row[1]))}, integer(row[2]) != 0, true, nil
}

// Acquire implements lease.Leases.
func (s *Store) Acquire(ctx context.Context, name, holder string, ttl time.Duration) (g lease.Grant, err error) {
	if err := lease.Check(name, holder, ttl); err != nil {
		return g, fmt.Errorf("store: acquire: %w", err)
	}
	err = s.writing(ctx, "acquire", func(c *conn) error {
		have, stands, known, err := s.readLease(c, name)
		if err != nil {
			return err
		}
		if stands && have.Holder != holder {
			return fmt.Errorf("%w: %s by %s", lease.ErrHeld, name, have.Holder)
		}
		g = lease.Grant{Name: name, Holder: holder, Token: have.Token + 1}
		if !known {
			_, err = c.exec("INSERT INTO leases (name, holder, token, expires_at) VALUES (?, ?, 1, "+s.d.now+" + ?)",
				name, holder, ttl.Milliseconds())
			return raced(err)
		}
		_, err = c.exec("UPDATE leases SET holder = ?, token = ?, expires_at = "+s.d.now+" + ? WHERE name = ?",
			holder, int64(g.Token), ttl.Milliseconds(), name)
		return err
	})
	if err != nil {
		return lease.Grant{}, err
	}
	return g, nil
}

// Renew implements lease.Leases.
func (s *Store) Renew(ctx context.Context, g lease.Grant, ttl time.Duration) error {
	if err := lease.Check(g.Name, g.Holder, ttl); err != nil {
		return fmt.Errorf("store: renew: %w", err)
	}
	return s.writing(ctx, "renew", func(c *conn) error {
		if err := s.stands(c, g); err != nil {
			return err
		}
		_, err := c.exec("UPDATE leases SET expires_at = "+s.d.now+" + ? WHERE name = ?", ttl.Milliseconds(), g.Name)
		return err
	})
}

// stands locks the lease of a grant that stands, or answers ErrLost: whoever
// wants the lease waits for the end of this transaction.
func (s *Store) stands(c *conn, g lease.Grant) error {
	have, stands, _, err := s.readLease(c, g.Name)
	if err == nil && (!stands || have != g) {
		err = fmt.Errorf("%w: %s, token %d", lease.ErrLost, g.Name, g.Token)
	}
	return err
}

// Release implements lease.Leases.
func (s *Store) Release(ctx context.Context, g lease.Grant) error {
	return s.writing(ctx, "release", func(c *conn) error {
		_, err := c.exec("UPDATE leases SET expires_at = 0 WHERE name = ? AND holder = ? AND token = ?",
			g.Name, g.Holder, int64(g.Token))
		return err
	})
}

// Under is the store for the holder of a lease: the same store, of which every
// write is made only if the grant stands in the write's own transaction, and is
// lease.ErrLost otherwise. Writes under one grant follow each other. What was
// begun under a grant has to be ended under it: take a new view with each
// grant, not one that follows the keeper. Close only the store itself.
func (s *Store) Under(g lease.Grant) *Store {
	under := *s
	under.lease = &g
	return &under
}

// do runs f as one durable transaction, see writer.do.
func (s *Store) do(ctx context.Context, f func(c *conn) error) error {
	if s.lease == nil {
		return s.write.do(ctx, f)
	}
	return s.write.do(ctx, func(c *conn) error {
		if err := s.stands(c, *s.lease); err != nil {
			return err
		}
		return f(c)
	})
}
