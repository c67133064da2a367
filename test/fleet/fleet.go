// Package fleet starts a whole fleet on this machine, without containers: the
// real Redis and MariaDB, perhaps several of the latter, etcd and Kafka, several
// sluice processes of each role, and nginx in front of the gateways. Tests, the
// fault runs and the demo use it.
//
// Invariants: every process is a child of this one and ends with it; what each
// was told is in a file in its own directory; a process that is started again
// has its addresses and its directory.
//
// It refuses to know what a sale is: who buys and who judges is the caller's.
package fleet

import (
	"context"
	_ "embed"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"sluice/internal/gate"
	"sluice/test/servers"
)

// Options of a fleet; zero values are the smallest one that is a fleet.
type Options struct {
	Binary   string // sluice; "": it is built
	Gateways int    // default 2
	Workers  int    // default 1
	Buckets  int    // of an activity, default 4
	Cluster  bool   // six nodes of a Redis Cluster instead of one Redis
	Shards   int    // MariaDB servers over which the orders are spread, default 1
	Replica  bool   // each of them has a semi-synchronous replica
	Reads    bool   // and the processes know it: they read there, and follow it when it is promoted
	Etcd     int    // members of the etcd that has the leases, 1 or 3; 0: the store has them
	Kafka    int    // brokers of the Kafka that carries events, 1 or 3; 0: the store's outbox does
	Demo     bool   // the example catalogue and its sale; anybody gets a shopper's token
	Log      string // of each process, default "text,info"
	// Wire is called when the engines run and nothing else does. It may put
	// other addresses into Stock and Store, such as those of proxies.
	Wire func(*Fleet)
	// Route is asked for the ledger's and the store's URL of each process, by its
	// name ("gateway-1"), for one that has a network of its own; nil: Stock and
	// Store for all.
	Route func(f *Fleet, process string) (stock, store string)
}

// Fleet is a running one. Every part can be killed, stopped, paused and started
// again through its own methods.
type Fleet struct {
	Root  string // its directory; the key that signs shoppers' tokens is in Root/secrets
	Stock string // the URL by which the processes know the ledger
	Store string // and the store, with its passwords
	Lease string // "": in the store
	Bus   string // "": in the store

	Redis   *servers.Server       // nil with a cluster
	Cluster *servers.RedisCluster // nil without
	SQL     *servers.Database     // the first shard's, the one that was started as primary
	Pair    *servers.DatabasePair // the first shard's; nil without replicas
	Shards  []Shard               // all of them, the first included
	Etcd    *servers.EtcdCluster  // nil without
	Kafka   *servers.KafkaCluster // nil without

	Gateways []*Process
	Workers  []*Process
	Console  *Process
	Front    *servers.Server // nginx
	public   string          // host:port of Front that was known before it started
	pay      string          // host:port of the sandbox provider
	o        Options
}

// OpsToken is what the ops API takes, and every process's profiles.
const OpsToken = "demo"

// Process is one sluice process.
type Process struct {
	*servers.Server
	Role string
	Ops  string // base URL of its ops port: health and metrics, of the console the ops API
}

//go:embed front.conf
var frontConf string

// Start starts everything, and ends it with the test. It returns when each
// process is ready.
func Start(t servers.TB, o Options) *Fleet {
	t.Helper()
	for _, d := range []struct {
		n     *int
		value int
	}{{&o.Gateways, 2}, {&o.Workers, 1}, {&o.Buckets, 4}, {&o.Shards, 1}} {
		if *d.n == 0 {
			*d.n = d.value
		}
	}
	if o.Log == "" {
		o.Log = "text,info"
	}
	f := &Fleet{Root: t.TempDir(), o: o}
	if f.o.Binary == "" {
		f.o.Binary = Build(t, f.Root)
	}
	ports := f.ports(t, 2)
	f.public, f.pay = ports[0], ports[1]
	f.engines(t)
	if o.Wire != nil {
		o.Wire(f)
	}
	// The worker first, since it opens what is on sale; the front last, since it
	// asks the gateways at once.
	for i := range o.Workers {
		f.Workers = append(f.Workers, f.process(t, "worker", i+1))
	}
	f.Console = f.process(t, "console", 1)
	for i := range o.Gateways {
		f.Gateways = append(f.Gateways, f.process(t, "gateway", i+1))
	}
	f.front(t)
	return f
}

// process starts one sluice of a role.
func (f *Fleet) process(t servers.TB, role string, number int) *Process {
	t.Helper()
	p := &Process{Role: role}
	name := fmt.Sprintf("%s-%d", role, number)
	dir := filepath.Join(f.Root, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatalf("fleet: %v", err)
	}
	ops := f.ports(t, 1)[0]
	stock, store := f.Stock, f.Store
	if f.o.Route != nil {
		stock, store = f.o.Route(f, name)
	}
	p.Server = servers.Start(t, servers.Program{
		Name: name,
		Path: f.o.Binary,
		Keep: []string{configFile},
		// What is secret does not stand in a file that somebody may show around.
		Env: []string{"SLUICE_STORE=" + store, "SLUICE_OPS_TOKEN=" + OpsToken},
		Args: func(addr, dir string) ([]string, error) {
			listen := addr
			if role != "gateway" { // its address is that of its ops port
				listen, ops = "127.0.0.1:0", addr
			}
			file := filepath.Join(dir, configFile)
			return []string{"serve", "--config", file}, os.WriteFile(file, []byte(f.config(role, dir, listen, ops, stock)), 0o600)
		},
		Ready: func(ctx context.Context, _ string) error { return Ready(ctx, "http://"+ops) },
	}, servers.InDir(dir))
	p.Ops = "http://" + ops
	return p
}

const configFile = "sluice.yaml"

func (f *Fleet) config(role, dir, listen, ops, stock string) string {
	lines := []string{
		"role: " + role,
		"data: " + filepath.Join(dir, "data"),
		"secrets: " + filepath.Join(f.Root, "secrets"),
		"listen: " + listen,
		"ops: " + ops,
		"public: http://" + f.public,
		fmt.Sprintf("stock: %q", stock),
		"payment: sandbox://" + f.pay,
		fmt.Sprintf("gateways: %d", f.o.Gateways),
		"log: " + f.o.Log,
	}
	if f.Lease != "" {
		lines = append(lines, fmt.Sprintf("lease: %q", f.Lease))
	}
	if f.Bus != "" {
		lines = append(lines, fmt.Sprintf("bus: %q", f.Bus))
	}
	if f.o.Demo && role != "worker" {
		lines = append(lines, "demo: true")
	}
	return strings.Join(lines, "\n") + "\n"
}

// Ready answers nil if the process with this ops port can do its work.
func Ready(ctx context.Context, ops string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, ops+"/readyz", nil)
	if err != nil {
		return err
	}
	client := http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s/readyz answered %s", ops, answer.Status)
	}
	return nil
}

// Hire starts one more worker beside those that there are.
func (f *Fleet) Hire(t servers.TB) *Process {
	t.Helper()
	f.Workers = append(f.Workers, f.process(t, "worker", len(f.Workers)+1))
	return f.Workers[len(f.Workers)-1]
}

// front starts nginx before the gateways.
func (f *Fleet) front(t servers.TB) {
	t.Helper()
	var list []string
	for _, g := range f.Gateways {
		list = append(list, "server "+g.Addr+" max_fails=0;")
	}
	f.Front = servers.Nginx(t, strings.NewReplacer("{{gateways}}", strings.Join(list, "\n\t"), "{{public}}", f.public).Replace(frontConf))
}

// URL is where shoppers come in.
func (f *Fleet) URL() string { return "http://" + f.public }

// Processes are all sluice processes.
func (f *Fleet) Processes() []*Process {
	return append(append(append([]*Process{}, f.Workers...), f.Console), f.Gateways...)
}

// Token is a shopper's, valid for an hour.
func (f *Fleet) Token(user string) (string, error) {
	key, err := gate.ReadKey(f.Root)
	if err != nil {
		return "", err
	}
	return gate.Mint(key, user, time.Now(), time.Hour)
}

// Build compiles sluice into dir.
func Build(t servers.TB, dir string) (binary string) {
	t.Helper()
	module, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		t.Fatalf("fleet: %v", err)
	}
	binary = filepath.Join(dir, "sluice")
	build := exec.Command("go", "build", "-o", binary, "./cmd/sluice")
	build.Dir = filepath.Dir(strings.TrimSpace(string(module)))
	if said, err := build.CombinedOutput(); err != nil {
		t.Fatalf("fleet: build: %v\n%s", err, said)
	}
	return binary
}

// ports answers free addresses. All are taken before any is let go, so that no
// two are the same.
func (f *Fleet) ports(t servers.TB, n int) (addrs []string) {
	t.Helper()
	for range n {
		l, err := servers.Listen()
		if err != nil {
			t.Fatalf("fleet: %v", err)
		}
		defer l.Close()
		addrs = append(addrs, l.Addr().String())
	}
	return addrs
}
