package app

import (
	"net"
	"os"
	"time"

	"sluice/internal/lib/cluster"
	"sluice/internal/lib/run"
)

// memberTTL is how long others take a process that died for alive.
const memberTTL = 10 * time.Second

// announce lists this process among those of the fleet from when it serves, and
// takes it off the list before it stops doing so: it is added last, and parts
// stop in reverse.
func (e *engine) announce(g *run.Group, c Config, at Addresses) {
	host, _ := os.Hostname()
	m := cluster.Member{Name: e.holder, Role: c.Role, Addresses: map[string]string{}, Metadata: map[string]string{"host": host}}
	for what, listens := range map[string]net.Addr{"shopper": at.Shopper, "ops": at.Ops, "pay": at.Pay} {
		if listens != nil {
			m.Addresses[what] = seenFrom(host, listens)
		}
	}
	p := cluster.NewPresence(e.etcd, m, memberTTL, e.fleet.ready, time.Now)
	g.Add("membership", nil, p.Leave, workerDeadline)
	g.Task(e.log, steady(e.log, run.Task{Name: "membership", Step: p.Step, Idle: time.Second}), workerDeadline)
}

// seenFrom is where others find a listener: one on all addresses is at its host's.
func seenFrom(host string, listens net.Addr) string {
	if tcp, ok := listens.(*net.TCPAddr); ok && tcp.IP.IsUnspecified() {
		_, port, _ := net.SplitHostPort(tcp.String())
		return net.JoinHostPort(host, port)
	}
	return listens.String()
}
