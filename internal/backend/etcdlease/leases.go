package etcdlease

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"sluice/internal/lib/lease"
)

// A lease is one key below lease/<name>/, whose value is its holder and which
// ends with an etcd lease. Each grant has a key of its own, named after the etcd
// lease it began with, so that the key's create revision is the grant's, also
// when a holder is granted again what it holds.

// standing is how a lease stands.
type standing struct {
	grant    lease.Grant // zero: nobody holds it
	key      string
	lease    clientv3.LeaseID
	created  int64 // create revision of the key, 0 if nobody holds it
	revision int64 // of etcd, when it was read
	base
}

// base is added to create revisions to make tokens. It is the time at which
// the namespace was first used, in ms, so that tokens go on ascending when an
// etcd has been replaced by an empty one, whose revisions begin at 1.
type base struct {
	value, created int64
}

func (e *Etcd) places(name string) (all string) {
	return e.root + "lease/" + url.PathEscape(name) + "/"
}

// unchanged compares, in a write's transaction, that a lease is held by the
// grant that was seen, or by nobody if nobody was.
func (e *Etcd) unchanged(name string, s standing) []clientv3.Cmp {
	if e.careless {
		return nil
	}
	return []clientv3.Cmp{
		clientv3.Compare(clientv3.CreateRevision(e.places(name)).WithPrefix(), "=", s.created),
		clientv3.Compare(clientv3.CreateRevision(e.root+"base"), "=", s.base.created),
	}
}

// look reads a lease through a majority.
func (e *Etcd) look(ctx context.Context, name string) (standing, error) {
	for {
		r, err := e.at().Txn(ctx).Then(clientv3.OpGet(e.root+"base"), clientv3.OpGet(e.places(name), clientv3.WithPrefix())).Commit()
		if err != nil {
			return standing{}, err
		}
		bases, keys := r.Responses[0].GetResponseRange().Kvs, r.Responses[1].GetResponseRange().Kvs
		if len(bases) == 0 {
			if err := e.lay(ctx); err != nil {
				return standing{}, err
			}
			continue
		}
		s := standing{revision: r.Header.Revision, base: base{created: bases[0].CreateRevision}}
		if s.base.value, err = strconv.ParseInt(string(bases[0].Value), 10, 64); err != nil {
			return standing{}, fmt.Errorf("key %sbase: %w", e.root, err)
		}
		if len(keys) > 0 {
			k := keys[0]
			s.key, s.lease, s.created = string(k.Key), clientv3.LeaseID(k.Lease), k.CreateRevision
			s.grant = lease.Grant{Name: name, Holder: string(k.Value), Token: s.token(k.CreateRevision)}
		}
		return s, nil
	}
}

func (b base) token(revision int64) uint64 { return uint64(b.value + revision) }

// Identity names where the leases are, the same for every process that has them
// here: the namespace, and when it was first used, which changes when etcd is
// replaced by another or an empty one.
func (e *Etcd) Identity(ctx context.Context) (name string, err error) {
	err = e.repeat(ctx, "identity", func(ctx context.Context) error {
		s, err := e.look(ctx, "")
		name = fmt.Sprintf("etcd:%s@%d", strings.TrimSuffix(e.root, "/"), s.base.value)
		return err
	})
	return name, err
}

// lay writes the base, unless somebody has.
func (e *Etcd) lay(ctx context.Context) error {
	key := e.root + "base"
	_, err := e.at().Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).
		Then(clientv3.OpPut(key, strconv.FormatInt(e.now().UnixMilli(), 10))).Commit()
	return err
}

// span makes an etcd lease of at least ttl. etcd counts in seconds, and has a
// shortest one: a grant stands that much longer than was asked for, which only
// its successor has to wait for.
func (e *Etcd) span(ctx context.Context, ttl time.Duration) (id clientv3.LeaseID, seconds int64, err error) {
	asked := e.seconds(ttl)
	r, err := e.at().Grant(ctx, asked)
	if err != nil {
		return 0, 0, err
	}
	if r.TTL > asked {
		e.floor.Store(r.TTL)
	}
	return r.ID, r.TTL, nil
}

func (e *Etcd) seconds(ttl time.Duration) int64 {
	return max(int64((ttl+time.Second-1)/time.Second), e.floor.Load())
}

// drop ends an etcd lease that is of no use any more, and would end anyway.
func (e *Etcd) drop(ctx context.Context, id clientv3.LeaseID) { _, _ = e.at().Revoke(ctx, id) }

// Acquire implements lease.Leases. A lease that is held costs one read.
func (e *Etcd) Acquire(ctx context.Context, name, holder string, ttl time.Duration) (g lease.Grant, err error) {
	if err := lease.Check(name, holder, ttl); err != nil {
		return g, fmt.Errorf("etcd: acquire: %w", err)
	}
	err = e.repeat(ctx, "acquire", func(ctx context.Context) error {
		g, err = e.acquire(ctx, name, holder, ttl)
		return err
	})
	return g, err
}

func (e *Etcd) acquire(ctx context.Context, name, holder string, ttl time.Duration) (lease.Grant, error) {
	for {
		s, err := e.look(ctx, name)
		if err != nil {
			return lease.Grant{}, err
		}
		if s.created > 0 && s.grant.Holder != holder {
			return lease.Grant{}, fmt.Errorf("%w: %s by %s", lease.ErrHeld, name, s.grant.Holder)
		}
		// Somebody may have been faster. Then it is looked at again, until the
		// attempt's time is over.
		if g, taken, err := e.take(ctx, name, holder, ttl, s); err != nil || taken {
			return g, err
		}
	}
}

// take writes a grant if the lease still stands as it was seen.
func (e *Etcd) take(ctx context.Context, name, holder string, ttl time.Duration, s standing) (g lease.Grant, taken bool, err error) {
	id, _, err := e.span(ctx, ttl)
	if err != nil {
		return g, false, err
	}
	var write []clientv3.Op
	if s.created > 0 {
		write = append(write, clientv3.OpDelete(s.key))
	}
	write = append(write, clientv3.OpPut(e.places(name)+strconv.FormatInt(int64(id), 16), holder, clientv3.WithLease(id)))
	r, err := e.at().Txn(ctx).If(e.unchanged(name, s)...).Then(write...).Commit()
	switch {
	case err != nil:
		return g, false, err
	case !r.Succeeded:
		e.drop(ctx, id)
		return g, false, nil
	case s.created > 0:
		e.drop(ctx, s.lease)
	}
	return lease.Grant{Name: name, Holder: holder, Token: s.token(r.Header.Revision)}, true, nil
}

// Renew implements lease.Leases.
func (e *Etcd) Renew(ctx context.Context, g lease.Grant, ttl time.Duration) error {
	if err := lease.Check(g.Name, g.Holder, ttl); err != nil {
		return fmt.Errorf("etcd: renew: %w", err)
	}
	return e.repeat(ctx, "renew", func(ctx context.Context) error { return e.renew(ctx, g, ttl) })
}

func (e *Etcd) renew(ctx context.Context, g lease.Grant, ttl time.Duration) error {
	s, err := e.stands(ctx, g)
	if err != nil {
		return err
	}
	alive, err := e.at().KeepAliveOnce(ctx, s.lease)
	switch {
	case errors.Is(err, rpctypes.ErrLeaseNotFound):
		return lost(g)
	case err != nil || alive.TTL == e.seconds(ttl):
		return err
	}
	// An etcd lease keeps the time it was made for: for another one the key moves
	// to another lease. Its create revision stays, so it is the same grant.
	id, seconds, err := e.span(ctx, ttl)
	if err != nil {
		return err
	}
	if seconds == alive.TTL {
		e.drop(ctx, id)
		return nil
	}
	r, err := e.at().Txn(ctx).If(e.unchanged(g.Name, s)...).Then(clientv3.OpPut(s.key, g.Holder, clientv3.WithLease(id))).Commit()
	if err != nil {
		return err
	}
	if !r.Succeeded {
		e.drop(ctx, id)
		return lost(g)
	}
	e.drop(ctx, s.lease)
	return nil
}

// stands reads the lease of a grant that stands, or answers ErrLost.
func (e *Etcd) stands(ctx context.Context, g lease.Grant) (standing, error) {
	s, err := e.look(ctx, g.Name)
	if err == nil && s.grant != g {
		err = lost(g)
	}
	return s, err
}

func lost(g lease.Grant) error { return fmt.Errorf("%w: %s, token %d", lease.ErrLost, g.Name, g.Token) }

// Release implements lease.Leases.
func (e *Etcd) Release(ctx context.Context, g lease.Grant) error {
	return e.repeat(ctx, "release", func(ctx context.Context) error {
		s, err := e.stands(ctx, g)
		if errors.Is(err, lease.ErrLost) {
			return nil
		}
		if err == nil {
			_, err = e.at().Txn(ctx).If(e.unchanged(g.Name, s)...).Then(clientv3.OpDelete(s.key)).Commit()
		}
		if err == nil {
			e.drop(ctx, s.lease)
		}
		return err
	})
}

// Freed waits until nobody holds a lease: who waits for one is woken instead of
// asking again and again. Another waiter may have it by then.
func (e *Etcd) Freed(ctx context.Context, name string) error {
	for {
		var s standing
		err := e.repeat(ctx, "wait", func(ctx context.Context) (err error) {
			s, err = e.look(ctx, name)
			return err
		})
		if err != nil || s.created == 0 {
			return err
		}
		e.ended(ctx, name, s.revision)
	}
}

// lookAgain is how long a waiter believes in a watch that says nothing: the
// member that it is at may hang.
const lookAgain = 5 * time.Second

// ended waits until a key of a lease is deleted, or until it is time to look.
func (e *Etcd) ended(ctx context.Context, name string, since int64) {
	watching, cancel := context.WithTimeout(clientv3.WithRequireLeader(ctx), lookAgain)
	defer cancel()
	r := <-e.at().Watch(watching, e.places(name), clientv3.WithPrefix(), clientv3.WithRev(since+1), clientv3.WithFilterPut())
	if len(r.Events) == 0 { // it was refused, or broke off: not to be asked at full speed
		pause := time.NewTimer(repeatAfter)
		defer pause.Stop()
		select {
		case <-pause.C:
		case <-ctx.Done():
		}
	}
}
