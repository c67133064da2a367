package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"sluice/test/servers"
)

// redisPair is a primary, which syncs its file once a second, and a replica
// that follows it as Redis does: after the answer.
type redisPair struct {
	t                *servers.Scope
	socket           string // a link to the primary's, so that its users find it
	primary, replica *servers.Server
	disk             *appends
}

// swift spares a replica the pause in which Redis would wait for others.
var swift = servers.Config("repl-diskless-sync-delay 0")

func newRedisPair(t *servers.Scope) *redisPair {
	r := &redisPair{t: t, socket: filepath.Join(t.TempDir(), "redis.sock"), primary: servers.Redis(t, swift)}
	if err := errors.Join(r.point(), r.follow()); err != nil {
		t.Fatalf("%v", err)
	}
	return r
}

func socketOf(s *servers.Server) string { return filepath.Join(s.Dir, "redis.sock") }

// point leads everybody to the primary, and watches its file.
func (r *redisPair) point() error {
	r.disk = watchAppends(r.t, r.primary.Dir)
	fresh := r.socket + ".new"
	if err := os.Symlink(socketOf(r.primary), fresh); err != nil {
		return err
	}
	return os.Rename(fresh, r.socket)
}

// follow gives the primary a replica, and waits until it has all.
func (r *redisPair) follow() error {
	r.replica = servers.Redis(r.t, swift)
	host, port, _ := strings.Cut(r.primary.Addr, ":")
	if _, err := ask(r.replica, "REPLICAOF", host, port); err != nil {
		return err
	}
	const step, limit = 20 * time.Millisecond, 30 * time.Second
	for range limit / step {
		info, err := ask(r.replica, "INFO", "replication")
		if err == nil && strings.Contains(info, "master_link_status:up") {
			return nil
		}
		time.Sleep(step)
	}
	return fmt.Errorf("the replica does not follow within %v", limit)
}

// ask sends one command over a connection of its own.
func ask(s *servers.Server, command ...string) (string, error) {
	ctx, stop := context.WithTimeout(context.Background(), patience)
	defer stop()
	client, err := dialRedis(ctx, socketOf(s))
	if err != nil {
		return "", err
	}
	defer client.Close()
	return client.Do(ctx, client.B().Arbitrary(command...).Build()).ToString()
}

// kill ends the primary and starts it on its own file. What it wrote is in the
// kernel's hands and outlives its process.
func (r *redisPair) kill() error {
	r.primary.Kill()
	r.primary = servers.Redis(r.t, swift, servers.InDir(r.primary.Dir))
	r.replica.Kill()
	return r.follow()
}

// failOver ends the primary for good and promotes its replica, at once, as no
// sentinel could. What the replica had not been sent is gone.
func (r *redisPair) failOver() error {
	r.primary.Kill()
	if _, err := ask(r.replica, "REPLICAOF", "NO", "ONE"); err != nil {
		return err
	}
	r.primary = r.replica
	return errors.Join(r.point(), r.follow())
}

// powerCut ends the primary and takes from its file what was written in the
// last lost. Appends are synced once a second, at no moment that a power cut
// would mind, so all of 0 to 1 s is as likely.
func (r *redisPair) powerCut(lost time.Duration) error {
	r.primary.Kill()
	r.replica.Kill()
	if err := r.disk.cut(lost); err != nil {
		return err
	}
	r.primary = servers.Redis(r.t, swift, servers.InDir(r.primary.Dir))
	return r.follow()
}

// appends remembers how long Redis's append-only file was, so that what was
// written last can be taken from it.
type appends struct {
	glob string
	mu   sync.Mutex
	past []length
}

type length struct {
	at   time.Time
	size int64
}

func watchAppends(t *servers.Scope, dir string) *appends {
	a := &appends{glob: filepath.Join(dir, "appendonlydir", "*.incr.aof")}
	ctx, stop := context.WithCancel(context.Background())
	t.Cleanup(stop)
	go func() {
		for pause(ctx, 5*time.Millisecond) {
			if _, size, err := a.file(); err == nil {
				a.mu.Lock()
				a.past = append(a.past, length{time.Now(), size})
				a.mu.Unlock()
			}
		}
	}()
	return a
}

// file is the one that Redis appends to; it is far too short to be rewritten.
func (a *appends) file() (name string, size int64, err error) {
	found, err := filepath.Glob(a.glob)
	if err != nil || len(found) != 1 {
		return "", 0, errors.Join(err, fmt.Errorf("%d append-only files", len(found)))
	}
	info, err := os.Stat(found[0])
	if err != nil {
		return "", 0, err
	}
	return found[0], info.Size(), nil
}

// cut takes away what was written in the last lost.
func (a *appends) cut(lost time.Duration) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	name, size, err := a.file()
	if err != nil {
		return err
	}
	since := time.Now().Add(-lost)
	for _, p := range a.past {
		if p.at.After(since) {
			size = p.size
			break
		}
	}
	a.past = nil
	return os.Truncate(name, size)
}
