package app

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"sluice/internal/backend/etcdlease"
	"sluice/internal/lib/cluster"
	"sluice/internal/lib/run"
)

// memberTTL is how long others take a process that died for alive.
const memberTTL = 10 * time.Second

// heardWithin is how old the newest sign of life of etcd may be for the list of
// members to be its own; a watch gives one each second.
const heardWithin = 5 * time.Second

// hearPause is between two steps of a view, which wait for a second each.
const hearPause = time.Millisecond

// crew is the processes of the fleet as this one knows them, also while etcd is
// away: and from its file, when it starts then.
type crew struct {
	known    etcdlease.Directory
	gateways int // for how many limits of scope fleet are divided
	log      *slog.Logger

	mu   sync.Mutex
	roll cluster.Roll
	many bool // there are more gateways than that
}

// openEtcd connects to where the leases are.
func (d *doors) openEtcd(ctx context.Context, c Config, log *slog.Logger) (err error) {
	if d.etcd, err = etcdlease.Open(ctx, c.Lease, etcdlease.Options{Log: log}); err != nil {
		return err
	}
	d.leases, d.bells = d.etcd, newBells(d.etcd)
	d.crew = &crew{known: d.etcd.WatchMembers(c.path("", "members.json")), gateways: c.Gateways, log: log}
	d.crew.note()
	return nil
}

// before says that this process has known a fleet there in an earlier life.
func (w *crew) before() bool {
	_, asOf := w.known.Members() // the last one there has taken itself off the list
	return !asOf.IsZero()
}

// step follows the list.
func (w *crew) step(ctx context.Context) (worked bool, err error) {
	worked, err = w.known.Step(ctx)
	w.note()
	return worked, err
}

// note takes up who is there. Of limits that gateways share each gets its part by
// how many of them there may be: with more, the parts are more than the whole.
func (w *crew) note() {
	list, asOf := w.known.Members()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.roll.Note(list, asOf)
	gateways := 0
	for _, m := range list {
		if roles[m.Role].gateway {
			gateways++
		}
	}
	if many := gateways > w.gateways; many != w.many {
		if w.many = many; many {
			w.log.Warn("there are more gateways than the configuration says: limits of scope fleet let more through than they tell; raise gateways: in all of them",
				"there", gateways, "gateways", w.gateways)
		}
	}
}

// members answers who is there, and who has gone lately, by name; the moment at
// which that was so; and whether etcd says so, or did last.
func (w *crew) members() (list []cluster.Seen, asOf time.Time, fresh bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	list, asOf = w.roll.Members()
	return list, asOf, time.Since(asOf) < heardWithin
}

// announce lists this process among those of the fleet from when it serves, and
// takes it off the list before it stops doing so: it is added last, and parts
// stop in reverse.
func (e *engine) announce(g *run.Group, c Config, at Addresses) {
	host, _ := os.Hostname()
	m := cluster.Member{Name: e.holder, Role: c.Role, Addresses: map[string]string{}, Metadata: map[string]string{"host": host, "version": Version}}
	for what, listens := range map[string]net.Addr{"shopper": at.Shopper, "ops": at.Ops, "pay": at.Pay} {
		if listens != nil {
			m.Addresses[what] = seenFrom(host, listens)
		}
	}
	p := cluster.NewPresence(e.etcd, m, memberTTL, e.fleet.ready, time.Now)
	g.Add("membership", nil, func(ctx context.Context) error { return e.unlessAway(p.Leave(ctx)) }, workerDeadline)
	g.Task(e.log, steady(e.log, run.Task{Name: "membership", Step: p.Step, Idle: time.Second}), workerDeadline)
}

// unlessAway is for what is given back at the end: without etcd it runs out by
// itself, and a process that stops then has stopped well.
func (e *engine) unlessAway(err error) error {
	if errors.Is(err, etcdlease.ErrAway) {
		e.log.Warn("left to run out", "error", err)
		return nil
	}
	return err
}

// seenFrom is where others find a listener: one on all addresses is at its host's.
func seenFrom(host string, listens net.Addr) string {
	if tcp, ok := listens.(*net.TCPAddr); ok && tcp.IP.IsUnspecified() {
		_, port, _ := net.SplitHostPort(tcp.String())
		return net.JoinHostPort(host, port)
	}
	return listens.String()
}
