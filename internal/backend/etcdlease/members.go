package etcdlease

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"sluice/internal/lib/cluster"
)

func (e *Etcd) memberKey(name string) string { return e.root + "member/" + url.PathEscape(name) }

// Join lists a member for ttl, cluster.MinTTL to MaxTTL, from now, in place of
// what was said of it. Saying the same again only renews. A member that says
// nothing more is off the list at most a second or two after ttl.
func (e *Etcd) Join(ctx context.Context, m cluster.Member, ttl time.Duration) error {
	err := m.Check()
	if err == nil && (ttl < cluster.MinTTL || ttl > cluster.MaxTTL) {
		err = fmt.Errorf("%w: a member is listed for %s to %s", cluster.ErrInvalid, cluster.MinTTL, cluster.MaxTTL)
	}
	var text []byte
	if err == nil {
		text, err = json.Marshal(m)
	}
	if err != nil {
		return fmt.Errorf("etcd: join: %w", err)
	}
	return e.repeat(ctx, "join", func(ctx context.Context) error { return e.join(ctx, m.Name, string(text), ttl) })
}

func (e *Etcd) join(ctx context.Context, name, text string, ttl time.Duration) error {
	key := e.memberKey(name)
	r, err := e.at().Get(ctx, key)
	if err != nil {
		return err
	}
	var before clientv3.LeaseID
	if len(r.Kvs) > 0 {
		before = clientv3.LeaseID(r.Kvs[0].Lease)
		alive, err := e.at().KeepAliveOnce(ctx, before)
		switch {
		case errors.Is(err, rpctypes.ErrLeaseNotFound):
		case err != nil:
			return err
		case alive.TTL == e.seconds(ttl) && string(r.Kvs[0].Value) == text:
			return nil
		case alive.TTL == e.seconds(ttl):
			_, err = e.at().Put(ctx, key, text, clientv3.WithLease(before))
			return err
		}
	}
	id, _, err := e.span(ctx, ttl)
	if err != nil {
		return err
	}
	if _, err = e.at().Put(ctx, key, text, clientv3.WithLease(id)); err == nil && before != 0 {
		e.drop(ctx, before)
	}
	return err
}

// Leave takes a member off the list at once.
func (e *Etcd) Leave(ctx context.Context, name string) error {
	return e.repeat(ctx, "leave", func(ctx context.Context) error {
		r, err := e.at().Delete(ctx, e.memberKey(name), clientv3.WithPrevKV())
		if err == nil && len(r.PrevKvs) > 0 {
			e.drop(ctx, clientv3.LeaseID(r.PrevKvs[0].Lease))
		}
		return err
	})
}

// Members are all that are listed now, by name. For a list that is there also
// without etcd, see WatchMembers.
func (e *Etcd) Members(ctx context.Context) (list []cluster.Member, err error) {
	err = e.repeat(ctx, "members", func(ctx context.Context) error {
		list = list[:0]
		r, err := e.at().Get(ctx, e.root+"member/", clientv3.WithPrefix())
		if err != nil {
			return err
		}
		for _, kv := range r.Kvs {
			m, err := readMember(kv.Value)
			if err != nil {
				return fmt.Errorf("key %s: %w", kv.Key, err)
			}
			list = append(list, m)
		}
		return nil
	})
	sortMembers(list)
	return list, err
}

func readMember(text []byte) (m cluster.Member, err error) { return m, json.Unmarshal(text, &m) }

func sortMembers(list []cluster.Member) {
	slices.SortFunc(list, func(a, b cluster.Member) int { return strings.Compare(a.Name, b.Name) })
}

// Directory is the members as this process knows them, see View.
type Directory struct{ *View }

// WatchMembers knows those in its file, until its first Step. file may be "".
func (e *Etcd) WatchMembers(file string) Directory { return Directory{e.view("member/", file)} }

// Members are the last known, by name, and the moment at which that was so.
func (d Directory) Members() (list []cluster.Member, asOf time.Time) {
	known, asOf := d.known()
	for key, text := range known {
		m, err := readMember(text)
		if err != nil {
			d.e.log.Warn("a member cannot be read", "key", key, "error", err)
			continue
		}
		list = append(list, m)
	}
	sortMembers(list)
	return list, asOf
}
