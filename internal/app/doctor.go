package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"sluice/internal/backend/etcdlease"
	"sluice/internal/backend/kafkabus"
	"sluice/internal/backend/redisstock"
	"sluice/internal/backend/sqlstore"
	"sluice/internal/lib/wal"
)

// Finding is one thing the doctor looked at.
type Finding struct {
	Check  string `json:"check"`
	OK     bool   `json:"ok"`
	Seen   string `json:"seen"`
	Remedy string `json:"remedy,omitempty"` // what to do when not OK
}

// Examine looks at the machine and the configuration before a sale.
func Examine(c Config) []Finding {
	findings := []Finding{openFiles()}
	if scheme(c.Stock) == "wal" {
		findings = append(findings, syncTime(c))
	}
	if c.keeps() {
		findings = append(findings, freeSpace(c), dataHeld(c))
	}
	findings = append(findings, doorServers(c)...)
	for _, k := range []struct {
		file, key string
		least     int
	}{
		{"/proc/sys/net/core/somaxconn", "net.core.somaxconn", 4096},
		{"/proc/sys/net/ipv4/tcp_max_syn_backlog", "net.ipv4.tcp_max_syn_backlog", 1024},
	} {
		findings = append(findings, kernel(k.file, k.key, k.least))
	}
	if roles[c.Role].gateway {
		findings = append(findings, port("listen", c.Listen))
	}
	findings = append(findings, port("ops", c.Ops))
	return append(findings, Finding{Check: "processors", OK: true, Seen: strconv.Itoa(runtime.GOMAXPROCS(0))})
}

// openFiles: each shopper's connection is a file.
func openFiles() Finding {
	const least = 65_536
	var l syscall.Rlimit
	err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l)
	return Finding{
		Check: "open files", OK: err == nil && l.Max >= least, Seen: fmt.Sprintf("%d, at most %d", l.Cur, l.Max),
		Remedy: "raise the limit to at least 65536: ulimit -n, or LimitNOFILE= in the service unit",
	}
}

// doorServers: those that the doors lead to must be there.
func doorServers(c Config) (findings []Finding) {
	reach := func(door, address string) {
		f := Finding{Check: door + " " + address, OK: true, Seen: "answers",
			Remedy: "start it, or correct the line " + door + ":; a cluster may do without some of its nodes"}
		conn, err := net.DialTimeout("tcp", address, 2*time.Second)
		if err != nil {
			f.OK, f.Seen = false, err.Error()
		} else {
			_ = conn.Close()
		}
		findings = append(findings, f)
	}
	if redis, err := redisstock.ParseURL(c.Stock); c.fleet() && err == nil {
		for _, address := range redis.Addrs {
			reach("stock", address)
		}
	}
	if etcd, err := etcdlease.ParseURL(c.Lease); c.elects() && err == nil {
		for _, address := range etcd.Addrs {
			reach("lease", address)
		}
	}
	if brokers, err := kafkabus.Brokers(c.Bus); c.onKafka() && err == nil {
		for _, broker := range brokers {
			reach("bus", broker)
		}
	}
	if c.onServer() {
		findings = append(findings, storeServers(c)...)
	}
	return findings
}

// storeServers: what they promise by a commit, and what of it a fail-over keeps.
func storeServers(c Config) (findings []Finding) {
	for _, f := range sqlstore.Examine(context.Background(), c.Store) {
		findings = append(findings, Finding(f))
	}
	return findings
}

// syncTime measures what every acceptance waits for.
func syncTime(c Config) Finding {
	f := Finding{Check: "sync to disk", Remedy: "put the data directory on a local SSD; every acceptance waits for this"}
	if err := c.prepare(); err != nil {
		f.Seen = err.Error()
		return f
	}
	name := filepath.Join(c.Data, "doctor.tmp")
	file, err := wal.OS().OpenFile(name, os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o600)
	if err != nil {
		f.Seen = err.Error()
		return f
	}
	defer os.Remove(name)
	block := make([]byte, 16<<10)
	var times []time.Duration
	for range 50 {
		began := time.Now()
		_, werr := file.WriteAt(block, 0)
		if err = errors.Join(err, werr, file.Sync()); err != nil {
			break
		}
		times = append(times, time.Since(began))
	}
	if err = errors.Join(err, file.Close()); err != nil {
		f.Seen = err.Error()
		return f
	}
	slices.Sort(times)
	median := times[len(times)/2]
	f.OK, f.Seen = median < 10*time.Millisecond, fmt.Sprintf("median %s, slowest %s, of 50 writes of 16 kB", median.Round(time.Microsecond), times[len(times)-1].Round(time.Microsecond))
	return f
}

func freeSpace(c Config) Finding {
	const least = 5 << 30
	var s syscall.Statfs_t
	err := syscall.Statfs(c.Data, &s)
	free := s.Bavail * uint64(s.Bsize)
	return Finding{
		Check: "free disk space", OK: err == nil && free >= least, Seen: fmt.Sprintf("%.1f GB", float64(free)/1e9),
		Remedy: "a million orders take about 2 GB of log and database; free at least 5 GB",
	}
}

func dataHeld(c Config) Finding {
	f := Finding{Check: "data directory", Remedy: "stop the server that holds it, or give another --data"}
	unlock, err := Lock(c.Data)
	if err != nil {
		f.Seen = err.Error()
		return f
	}
	_ = unlock()
	f.OK, f.Seen = true, c.Data+" is free"
	return f
}

func kernel(file, key string, least int) Finding {
	text, err := os.ReadFile(file)
	if err != nil {
		return Finding{Check: key, OK: true, Seen: "cannot be read here"}
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return Finding{
		Check: key, OK: n >= least, Seen: strconv.Itoa(n),
		Remedy: fmt.Sprintf("sysctl -w %s=%d, so that a burst of new connections is not dropped", key, least),
	}
}

func port(key, address string) Finding {
	f := Finding{Check: key + " " + address, Remedy: "another process listens there; give another address"}
	ln, err := net.Listen("tcp", address)
	if err != nil {
		f.Seen = err.Error()
		return f
	}
	_ = ln.Close()
	f.OK, f.Seen = true, "free"
	return f
}
