package etcdlease

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"sluice/internal/lib/cluster"
	"sluice/internal/lib/lease"
)

// The newest version of a document is below live/doc/, all that can be read
// again below past/<name>/. Both are written by one transaction.

// Kept is how many versions of a document can be read again and rolled back to.
const Kept = 100

func (e *Etcd) documentKey(name string) string { return e.root + "live/doc/" + url.PathEscape(name) }
func (e *Etcd) bellKey(name string) string     { return e.root + "live/bell/" + url.PathEscape(name) }

// pastKey sorts as versions do.
func (e *Etcd) pastKey(name string, version int64) string {
	return fmt.Sprintf("%spast/%s/%016x", e.root, url.PathEscape(name), version)
}

// Under is the same etcd for the holder of a lease: every document is saved
// only if the grant stands in the transaction that saves it, and is
// lease.ErrLost otherwise.
func (e *Etcd) Under(g lease.Grant) *Etcd { return &Etcd{shared: e.shared, fence: &g} }

// Put saves a document as the next version after from, 0 for the first, and
// answers it as saved; Version and At of d do not matter. Errors are
// cluster.ErrInvalid, ErrChanged (the newest version is not from), and
// lease.ErrLost. After ErrAway it may have been saved: what is there now says so.
func (e *Etcd) Put(ctx context.Context, d cluster.Document, from int64) (cluster.Document, error) {
	d.Version, d.At = from+1, e.now().UTC()
	err := d.Check()
	if err == nil && from < 0 {
		err = fmt.Errorf("%w: version %d", cluster.ErrInvalid, from)
	}
	var text []byte
	if err == nil {
		text, err = json.Marshal(d)
	}
	if err != nil {
		return cluster.Document{}, fmt.Errorf("etcd: put: %w", err)
	}
	// Once: repeated after an attempt that took effect, it would be said to have failed.
	err = e.once(ctx, "put", func(ctx context.Context) error { return e.put(ctx, d, string(text)) })
	if err != nil {
		return cluster.Document{}, err
	}
	return d, nil
}

func (e *Etcd) put(ctx context.Context, d cluster.Document, text string) error {
	key, from := e.documentKey(d.Name), d.Version-1
	conditions := []clientv3.Cmp{clientv3.Compare(clientv3.Version(key), "=", from)}
	if e.fence != nil {
		s, err := e.stands(ctx, *e.fence)
		if err != nil {
			return err
		}
		conditions = append(conditions, e.unchanged(e.fence.Name, s)...)
	}
	writes := []clientv3.Op{clientv3.OpPut(key, text), clientv3.OpPut(e.pastKey(d.Name, d.Version), text)}
	if old := d.Version - Kept; old > 0 {
		writes = append(writes, clientv3.OpDelete(e.pastKey(d.Name, old)))
	}
	r, err := e.at().Txn(ctx).If(conditions...).Then(writes...).Else(clientv3.OpGet(key)).Commit()
	if err != nil || r.Succeeded {
		return err
	}
	newest := int64(0)
	if have := r.Responses[0].GetResponseRange().Kvs; len(have) > 0 {
		newest = have[0].Version
	}
	if newest == from {
		return lost(*e.fence)
	}
	return fmt.Errorf("%w: %s is at version %d, not %d", cluster.ErrChanged, d.Name, newest, from)
}

// Document is the newest version, or cluster.ErrNoSuchDocument. For one that is
// there also without etcd, see WatchDocuments.
func (e *Etcd) Document(ctx context.Context, name string) (d cluster.Document, err error) {
	err = e.repeat(ctx, "document", func(ctx context.Context) error {
		d, err = e.read(ctx, name, e.documentKey(name))
		return err
	})
	return d, err
}

func (e *Etcd) read(ctx context.Context, name, key string) (d cluster.Document, err error) {
	r, err := e.at().Get(ctx, key)
	if err != nil {
		return d, err
	}
	if len(r.Kvs) == 0 {
		return d, fmt.Errorf("%w: %s", cluster.ErrNoSuchDocument, name)
	}
	return readDocument(r.Kvs[0].Value)
}

func readDocument(text []byte) (d cluster.Document, err error) { return d, json.Unmarshal(text, &d) }

// History pages through the versions before one (0: the newest), newest first;
// limit is 1..Kept.
func (e *Etcd) History(ctx context.Context, name string, before int64, limit int) (list []cluster.Document, err error) {
	end := clientv3.GetPrefixRangeEnd(fmt.Sprintf("%spast/%s/", e.root, url.PathEscape(name)))
	if before > 0 {
		end = e.pastKey(name, before)
	}
	err = e.repeat(ctx, "history", func(ctx context.Context) error {
		list = list[:0]
		r, err := e.at().Get(ctx, e.pastKey(name, 0), clientv3.WithRange(end), clientv3.WithLimit(int64(min(max(limit, 1), Kept))),
			clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend))
		if err != nil {
			return err
		}
		for _, kv := range r.Kvs {
			d, err := readDocument(kv.Value)
			if err != nil {
				return fmt.Errorf("key %s: %w", kv.Key, err)
			}
			list = append(list, d)
		}
		return nil
	})
	return list, err
}

// Rollback saves what a document was at an earlier version as the next one
// after from. Errors are cluster.ErrNoSuchDocument and those of Put.
func (e *Etcd) Rollback(ctx context.Context, name string, to, from int64, by, note string) (cluster.Document, error) {
	var old cluster.Document
	err := e.repeat(ctx, "rollback", func(ctx context.Context) (err error) {
		old, err = e.read(ctx, fmt.Sprintf("%s, version %d", name, to), e.pastKey(name, to))
		return err
	})
	if err != nil {
		return cluster.Document{}, err
	}
	if note == "" {
		note = "rollback to version " + strconv.FormatInt(to, 10)
	}
	return e.Put(ctx, cluster.Document{Name: name, Data: old.Data, By: by, Note: note}, from)
}

// Ring wakes who listens for name in any process (Settings.Rung): something that
// is kept elsewhere has changed, and is worth a look now.
func (e *Etcd) Ring(ctx context.Context, name string) error {
	if len(name) < 1 || len(name) > cluster.MaxName {
		return fmt.Errorf("etcd: ring: %w: a bell's name has 1 to %d bytes", cluster.ErrInvalid, cluster.MaxName)
	}
	return e.repeat(ctx, "ring", func(ctx context.Context) error {
		_, err := e.at().Put(ctx, e.bellKey(name), e.now().UTC().Format(time.RFC3339Nano))
		return err
	})
}

// Settings is the documents as this process knows them, see View.
type Settings struct{ *View }

// WatchDocuments knows those in its file, until its first Step. file may be "".
func (e *Etcd) WatchDocuments(file string) Settings { return Settings{e.view("live/", file)} }

// Document is the last known version. asOf is the moment at which it was the newest.
func (s Settings) Document(name string) (d cluster.Document, asOf time.Time, found bool) {
	text, asOf, found := s.one(s.e.documentKey(name))
	if !found {
		return d, asOf, false
	}
	d, err := readDocument(text)
	if err != nil {
		s.e.log.Warn("a document cannot be read", "document", name, "error", err)
	}
	return d, asOf, err == nil
}

// Documents are all last known versions, by name.
func (s Settings) Documents() (list []cluster.Document, asOf time.Time) {
	known, asOf := s.known()
	for key, text := range known {
		if !strings.HasPrefix(key, s.e.root+"live/doc/") {
			continue
		}
		d, err := readDocument(text)
		if err != nil {
			s.e.log.Warn("a document cannot be read", "key", key, "error", err)
			continue
		}
		list = append(list, d)
	}
	slices.SortFunc(list, func(a, b cluster.Document) int { return strings.Compare(a.Name, b.Name) })
	return list, asOf
}

// Saved is ready soon after a version of a document was saved, in any process,
// for one task to wake by.
func (s Settings) Saved(name string) <-chan struct{} { return s.wake(s.e.documentKey(name)) }

// Rung is ready soon after Ring, in any process, for one task to wake by. It
// is ready too when a ring may have been missed.
func (s Settings) Rung(name string) <-chan struct{} { return s.wake(s.e.bellKey(name)) }
