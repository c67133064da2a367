package etcdlease

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Bounds of a view.
const (
	newsWithin = time.Second     // one step waits so long for a change
	signWithin = 2 * time.Second // a watch that was asked and says nothing for so long is replaced
)

// View is a part of etcd as this process knows it. It follows every change as
// it is made, and keeps what it knows while etcd is away, in a file too if it
// was given one, so that a process that starts without etcd knows what it knew.
// Step is for one goroutine, the rest for any.
type View struct {
	e      *Etcd
	prefix string
	file   string

	// Of Step alone.
	watcher  clientv3.Watcher // nil: what is there has to be read first
	watching context.Context
	cancel   context.CancelFunc
	news     clientv3.WatchChan
	member   int64     // where it watches
	revision int64     // all is known up to it
	asked    time.Time // when the watch was asked for a sign of life that it has not given; else zero

	mu    sync.Mutex
	all   map[string][]byte // key → value; replaced, never changed
	asOf  time.Time
	bells map[string][]chan struct{} // by key; "" for every one
}

func (e *Etcd) view(part, file string) *View {
	v := &View{e: e, prefix: e.root + part, file: file, all: map[string][]byte{}, bells: map[string][]chan struct{}{}}
	if err := v.load(); err != nil {
		e.log.Warn("what was known last cannot be read", "file", file, "error", err)
	}
	return v
}

// Changed is ready soon after anything has changed, for one task to wake by.
func (v *View) Changed() <-chan struct{} { return v.wake("") }

// wake makes a channel that is ready after changes of a key, "" for any.
func (v *View) wake(key string) <-chan struct{} {
	bell := make(chan struct{}, 1)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.bells[key] = append(v.bells[key], bell)
	return bell
}

func (v *View) known() (all map[string][]byte, asOf time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.all, v.asOf
}

func (v *View) one(key string) (text []byte, asOf time.Time, found bool) {
	all, asOf := v.known()
	text, found = all[key]
	return text, asOf, found
}

// Step reads what is there when it has to, and otherwise waits up to a second
// for a change; worked says that there was one. An error is that etcd is away:
// what is known stays, and the next Step tries again. Run it again at once.
func (v *View) Step(ctx context.Context) (worked bool, err error) {
	if v.watcher == nil {
		if err := v.begin(ctx); err != nil {
			return false, err
		}
		return true, nil
	}
	quiet := time.NewTimer(newsWithin)
	defer quiet.Stop()
	select {
	case r, open := <-v.news:
		return v.take(r, open)
	case <-ctx.Done():
		return false, ctx.Err()
	case <-quiet.C:
	}
	// Nothing has happened, or the watch is dead: it is asked for a sign of life.
	if v.e.current.Load() != v.member { // which has failed somebody else
		v.Close()
		return true, nil
	}
	now := v.e.now()
	if !v.asked.IsZero() && now.Sub(v.asked) > signWithin {
		v.leave()
		return false, fmt.Errorf("etcd: watch %s: %w", v.prefix, ErrAway)
	}
	if v.asked.IsZero() {
		v.asked = now
	}
	asking, cancel := context.WithTimeout(v.watching, attemptWithin)
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()
	if err := v.watcher.RequestProgress(asking); err != nil && ctx.Err() == nil {
		v.leave()
		return false, fmt.Errorf("etcd: watch %s: %w", v.prefix, away(err))
	}
	return false, nil
}

// leave ends the watch of a member that says nothing.
func (v *View) leave() {
	v.Close()
	v.e.turn(v.member)
}

// Close ends the watch. What is known stays; a Step would begin again.
func (v *View) Close() {
	if v.watcher != nil {
		v.cancel()
		_ = v.watcher.Close() // what it says is that its context has ended
		v.watcher = nil
	}
}

// begin reads all there is and watches from there on.
func (v *View) begin(ctx context.Context) error {
	var r *clientv3.GetResponse
	err := v.e.repeat(ctx, "read "+v.prefix, func(ctx context.Context) (err error) {
		v.member = v.e.current.Load()
		r, err = v.e.at().Get(ctx, v.prefix, clientv3.WithPrefix())
		return err
	})
	if err != nil {
		return err
	}
	all := make(map[string][]byte, len(r.Kvs))
	for _, kv := range r.Kvs {
		all[string(kv.Key)] = kv.Value
	}
	v.show(all, r.Header.Revision)
	// A watcher of its own, so that a connection which hangs is left behind with
	// it; and one that ends when its member has lost the others, since it would
	// otherwise be silent for as long.
	client, err := v.e.dial(v.member)
	if err != nil {
		return fmt.Errorf("etcd: watch %s: %w", v.prefix, away(err))
	}
	v.watcher = clientv3.NewWatcher(client)
	v.watching, v.cancel = context.WithCancel(clientv3.WithRequireLeader(context.WithoutCancel(ctx)))
	v.news = v.watcher.Watch(v.watching, v.prefix, clientv3.WithPrefix(), clientv3.WithRev(r.Header.Revision+1))
	return nil
}

// take shows what the watch has said.
func (v *View) take(r clientv3.WatchResponse, open bool) (worked bool, err error) {
	switch {
	case !open:
		err = ErrAway
	case r.Err() != nil:
		err = away(r.Err())
	case r.Header.Revision < v.revision:
		err = errors.New("its history is shorter than it was: it has been restored or replaced")
	}
	if err != nil {
		v.leave()
		return false, fmt.Errorf("etcd: watch %s: %w", v.prefix, err)
	}
	if len(r.Events) == 0 {
		v.show(nil, v.revision) // a sign of life
		return false, nil
	}
	before, _ := v.known()
	all := maps.Clone(before)
	for _, event := range r.Events {
		if event.Type == mvccpb.DELETE {
			delete(all, string(event.Kv.Key))
		} else {
			all[string(event.Kv.Key)] = event.Kv.Value
		}
	}
	v.show(all, r.Header.Revision)
	return true, nil
}

// show puts what is known in force, nil for what was known before, and wakes
// who waits for what has changed.
func (v *View) show(all map[string][]byte, revision int64) {
	v.mu.Lock()
	before := v.all
	v.revision, v.asked, v.asOf = revision, time.Time{}, v.e.now()
	changed := false
	if all != nil {
		v.all = all
		for key := range v.bells {
			if key != "" && string(before[key]) != string(all[key]) {
				v.ring(key)
			}
		}
		if changed = !maps.EqualFunc(before, all, func(a, b []byte) bool { return string(a) == string(b) }); changed {
			v.ring("")
		}
	}
	v.mu.Unlock()
	if !changed {
		return
	}
	if err := v.save(all); err != nil {
		v.e.log.Warn("what is known cannot be kept for a start without etcd", "file", v.file, "error", err)
	}
}

func (v *View) ring(key string) {
	for _, bell := range v.bells[key] {
		select {
		case bell <- struct{}{}:
		default: // it is ready already
		}
	}
}

// lastKnown is the file of a view.
type lastKnown struct {
	AsOf time.Time                  `json:"as_of"`
	Keys map[string]json.RawMessage `json:"keys"`
}

// save writes the file in one step, so that a crash leaves the old or the new
// one. It is not synced: after a power cut an older or no list is known, which
// is what a list that may be old is worth.
func (v *View) save(all map[string][]byte) error {
	if v.file == "" {
		return nil
	}
	_, asOf := v.known()
	keep := lastKnown{AsOf: asOf, Keys: map[string]json.RawMessage{}}
	for key, value := range all {
		if json.Valid(value) { // the times of bells are not, and are of no use later
			keep.Keys[key] = value
		}
	}
	text, err := json.Marshal(keep)
	if err != nil {
		return err
	}
	// Under a name of its own: processes may share a directory.
	temporary, err := os.CreateTemp(filepath.Dir(v.file), filepath.Base(v.file)+".*")
	if err != nil {
		return err
	}
	_, err = temporary.Write(text)
	if err = errors.Join(err, temporary.Close()); err == nil {
		err = os.Rename(temporary.Name(), v.file)
	}
	if err != nil {
		err = errors.Join(err, os.Remove(temporary.Name()))
	}
	return err
}

// load reads the file, if there is one.
func (v *View) load() error {
	if v.file == "" {
		return nil
	}
	text, err := os.ReadFile(filepath.Clean(v.file))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	var kept lastKnown
	if err == nil {
		err = json.Unmarshal(text, &kept)
	}
	if err != nil {
		return err
	}
	v.asOf = kept.AsOf
	for key, value := range kept.Keys {
		v.all[key] = value
	}
	return nil
}
