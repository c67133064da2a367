package deploy

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/internal/app"
	"sluice/internal/gate"
	"sluice/test/servers"
)

// stage runs what the file says without containers: each name:port of it is a
// port of this machine.
type stage struct {
	t     *testing.T
	f     *file
	names []string // pairs for a replacer: name:port, address
}

const (
	rootPassword = ""        // of a server that the test has made
	password     = "0a1b2c3" // of whom the scripts make
)

func newStage(t *testing.T) *stage {
	return &stage{t: t, f: read(t, map[string]string{"SQL_PASSWORD": password, "SQL_REPLICATION_PASSWORD": password})}
}

func (s *stage) here(text string) string { return strings.NewReplacer(s.names...).Replace(text) }

func (s *stage) know(name, address string) { s.names = append(s.names, name, address) }

// free is an address that was free a moment ago.
func free(t *testing.T) string {
	t.Helper()
	l, err := servers.Listen()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func listens(ctx context.Context, address string) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}

func port(address string) string { return address[strings.LastIndexByte(address, ':')+1:] }

// script runs one of ours with an environment.
func (s *stage) script(environment []string, path string, args ...string) string {
	s.t.Helper()
	cmd := exec.CommandContext(s.t.Context(), path, args...)
	cmd.Env = append(os.Environ(), environment...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Fatalf("%s: %v: %s", path, err, out)
	}
	return string(out)
}

// redis starts the six, and has the one-shot make one cluster of them, twice.
func (s *stage) redis() {
	var nodes []string
	for _, node := range s.f.of("redis") {
		bus := free(s.t)
		r := servers.Start(s.t, servers.Program{
			Name: node.name, Path: servers.Find(s.t, "redis-server"), Ready: listens,
			Args: func(addr, dir string) ([]string, error) {
				return append(node.command[1:], "--bind", "127.0.0.1", "--port", port(addr), "--dir", dir, "--cluster-port", port(bus)), nil
			},
		})
		s.know(node.name+":6379", r.Addr)
		s.know(node.networks["data"]+":6379", r.Addr+"@"+port(bus))
		nodes = append(nodes, node.networks["data"]+":6379")
	}
	once := s.f.services["redis-cluster"]
	if !slices.Equal(once.command, nodes) {
		s.t.Errorf("one cluster is made of %v, there are %v", once.command, nodes)
	}
	for range 2 {
		s.script(nil, "redis/create-cluster.sh", strings.Fields(s.here(strings.Join(once.command, " ")))...)
	}
}

// mariadb starts each server with the options of the file on an empty data
// directory, runs the script that the image would, and starts it properly.
func (s *stage) mariadb() {
	t := s.t
	empty := filepath.Join(t.TempDir(), "data")
	s.script(nil, servers.Find(t, "mariadb-install-db"), "--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db",
		"--innodb-log-file-size=16M", "--datadir="+empty)
	for _, d := range s.f.of("mariadb") { // a primary comes before its replica
		var dir string
		m := servers.Start(t, servers.Program{
			Name: d.name, Path: servers.Find(t, "mariadbd"), Ready: listens,
			Args: func(addr, into string) ([]string, error) {
				dir = into
				args := slices.Concat([]string{"--no-defaults"}, d.command[1:], []string{"--innodb-log-file-size=16M", "--innodb-buffer-pool-size=64M",
					"--bind-address=127.0.0.1", "--port=" + port(addr), "--datadir=" + into + "/data", "--tmpdir=" + into, "--socket=" + into + "/s", "--pid-file=" + into + "/pid"})
				if os.Getuid() == 0 {
					args = append(args, "--user=root")
				}
				return args, nil
			},
			Prepare: func(into string) error {
				if _, err := os.Stat(into + "/data"); err == nil {
					return nil
				}
				return os.CopyFS(into+"/data", os.DirFS(empty))
			},
		})
		s.know(d.name+":3306", m.Addr)
		// Where the client of an image finds the socket by itself.
		if err := os.WriteFile(dir+"/.my.cnf", []byte("[client]\nsocket="+dir+"/s\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		environment := []string{"HOME=" + dir}
		for name, value := range d.environment {
			if name == "MARIADB_ROOT_PASSWORD" {
				value = rootPassword
			}
			environment = append(environment, name+"="+s.here(value))
		}
		s.script(environment, "mariadb/init.sh")
		if err := m.Stop(); err != nil {
			t.Fatal(err)
		}
		if err := m.Restart(); err != nil {
			t.Fatal(err)
		}
		if d.environment["SQL_PRIMARY"] == "" {
			continue
		}
		primary, _, _ := strings.Cut(d.environment["SQL_PRIMARY"], ":")
		s.acknowledged(primary, d.name)
	}
}

// acknowledged waits until a primary's commits are acknowledged, and its users
// known, by its replica.
func (s *stage) acknowledged(primary, replica string) {
	ask := func(name, query string) string {
		host, number, _ := strings.Cut(s.here(name+":3306"), ":")
		cmd := exec.CommandContext(s.t.Context(), servers.Find(s.t, "mariadb"), "--no-defaults", "--host="+host, "--port="+number, "--user=sluice", "--batch", "--skip-column-names", "sluice", "--execute="+query)
		cmd.Env = append(os.Environ(), "MYSQL_PWD="+password)
		out, err := cmd.CombinedOutput()
		if err != nil {
			return err.Error() + string(out)
		}
		return strings.Join(strings.Fields(string(out)), " ")
	}
	s.eventually(primary+" is acknowledged by "+replica, func() string {
		if got := ask(primary, "SHOW STATUS LIKE 'Rpl_semi_sync_master_clients'") + ", " + ask(primary, "SHOW STATUS LIKE 'Rpl_semi_sync_master_status'"); got !=
			"Rpl_semi_sync_master_clients 1, Rpl_semi_sync_master_status ON" {
			return got
		}
		return ""
	})
	const settings = "SELECT @@read_only, @@log_bin, @@sync_binlog, @@innodb_flush_log_at_trx_commit, @@gtid_strict_mode, @@binlog_format"
	f := func(name, query, want string) { // a replica has its users by and by
		s.t.Helper()
		s.eventually(name+": "+query, func() string {
			if got := ask(name, query); !strings.Contains(got, want) {
				return got
			}
			return ""
		})
	}
	f(primary, settings, "0 1 1 1 1 ROW")
	f(replica, settings, "1 1 1 1 1 ROW")
	f(replica, "CREATE TABLE no (n int)", "read-only")
}

// etcd starts the three members by their command lines.
func (s *stage) etcd() {
	members := s.f.of("etcd")
	for _, m := range members {
		s.know(m.name+":2379", free(s.t))
		s.know(m.name+":2380", free(s.t))
	}
	for _, m := range members {
		servers.Start(s.t, servers.Program{
			Name: m.name, Path: servers.Find(s.t, "etcd"),
			Args: func(_, dir string) ([]string, error) {
				own := strings.NewReplacer("0.0.0.0:2379", s.here(m.name+":2379"), "0.0.0.0:2380", s.here(m.name+":2380"), "/etcd-data", dir+"/data")
				return strings.Fields(s.here(own.Replace(strings.Join(m.command[1:], " ")))), nil
			},
			Ready: func(ctx context.Context, _ string) error { return listens(ctx, s.here(m.name+":2380")) },
		})
	}
	for _, m := range members {
		s.eventually(m.name+" is healthy", func() string { return s.get("http://" + s.here(m.name+":2379") + "/health") })
	}
}

// kafka starts the three brokers by their environment, as the image makes
// settings of it. Each setting is looked up first: Kafka starts with one that it
// does not know.
func (s *stage) kafka() {
	t := s.t
	tool := func(class string, args ...string) string {
		t.Helper()
		path, args := servers.KafkaCommand(t, class, args...)
		return s.script(nil, path, args...)
	}
	known := tool("kafka.server.KafkaConfig")
	brokers := s.f.of("kafka")
	for _, b := range brokers {
		s.know(b.name+":9092", free(t))
		s.know(b.name+":9093", free(t))
	}
	for _, b := range brokers {
		dir := t.TempDir()
		var lines []string
		for name, value := range b.environment {
			own, ok := strings.CutPrefix(name, "KAFKA_")
			if !ok || own == "HEAP_OPTS" {
				continue
			}
			setting := strings.ToLower(strings.ReplaceAll(own, "_", "."))
			if !strings.Contains(known, `"brokerconfigs_`+setting+`"`) {
				t.Errorf("%s: kafka has no %s", b.name, setting)
			}
			mine := strings.NewReplacer("//:9092", "//"+b.name+":9092", "//:9093", "//"+b.name+":9093", "/var/lib/kafka", dir)
			lines = append(lines, setting+"="+s.here(mine.Replace(value)))
		}
		conf := filepath.Join(dir, "server.properties")
		if err := os.WriteFile(conf, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
			t.Fatal(err)
		}
		tool("kafka.tools.StorageTool", "format", "-t", b.environment["CLUSTER_ID"], "-c", conf)
		path, args := servers.KafkaCommand(t, "kafka.Kafka", conf)
		k := servers.Start(t, servers.Program{
			Name: b.name, Path: path,
			Args:  func(string, string) ([]string, error) { return args, nil },
			Ready: func(ctx context.Context, _ string) error { return listens(ctx, s.here(b.name+":9093")) },
		})
		t.Cleanup(k.Kill) // one that stops would wait for the others
	}
	for _, b := range brokers {
		s.eventually(b.name+" serves", func() string {
			if err := listens(t.Context(), s.here(b.name+":9092")); err != nil {
				return err.Error()
			}
			return ""
		})
	}
}

// get is "" for an answer of 2xx, and what is wrong otherwise.
func (s *stage) get(url string) string {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(url)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	if resp.StatusCode/100 != 2 {
		return fmt.Sprintf("%d %s", resp.StatusCode, text)
	}
	return ""
}

// eventually asks until nothing is wrong or half a minute has passed.
func (s *stage) eventually(what string, wrong func() string) {
	s.t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	over := time.After(30 * time.Second)
	for why := wrong(); why != ""; why = wrong() {
		select {
		case <-tick.C:
		case <-over:
			s.t.Fatalf("%s: %s", what, why)
		}
	}
}

// sluices runs the processes of ours, in the order in which they wait for one
// another.
func (s *stage) sluices() (secrets string) {
	t := s.t
	secrets = t.TempDir()
	order := s.f.of("sluice")
	slices.SortStableFunc(order, func(a, b *service) int { // those with a door to wait for first
		return len(b.depends) - len(a.depends)
	})
	for _, p := range order {
		for _, own := range []string{":8080", ":8081"} {
			s.know(p.name+own, free(t))
		}
		for _, alias := range p.aliases {
			s.know(alias+":8082", free(t))
		}
	}
	s.know("nginx:8080", free(t))
	for _, p := range order {
		own := map[string]string{
			"SLUICE_LISTEN": s.here(p.name + ":8080"), "SLUICE_OPS": s.here(p.name + ":8081"),
			"SLUICE_SECRETS": secrets, "SLUICE_DATA": t.TempDir(), "SLUICE_TRUSTED_PROXIES": "127.0.0.1", "SLUICE_DRAIN": "0s",
		}
		for name, value := range p.environment {
			if mine, ok := own[name]; ok {
				value = mine
			}
			t.Setenv(name, s.here(value))
		}
		c, err := app.Load("", nil)
		if err != nil {
			t.Fatalf("%s: %v", p.name, err)
		}
		s.run(p.name, c)
		s.eventually(p.name+" is ready", func() string { return s.get("http://" + c.Ops + "/readyz") })
		if p == order[len(order)-1] {
			s.eventually("nothing for the doctor to find", func() string { return s.examine(c) })
		}
	}
	return secrets
}

// examine lets the doctor look at the servers; the machine is another one's.
func (s *stage) examine(c app.Config) (faults string) {
	s.t.Helper()
	looked := 0
	for _, found := range app.Examine(c) {
		door, _, _ := strings.Cut(found.Check, " ")
		if !slices.Contains([]string{"stock", "store", "lease", "bus"}, door) {
			continue
		}
		if looked++; !found.OK {
			faults += fmt.Sprintf("%s: %s; %s\n", found.Check, found.Seen, found.Remedy)
		}
	}
	if looked < 10 {
		s.t.Fatalf("the doctor looked at %d servers only", looked)
	}
	return faults
}

// run has a process of ours run until the test ends.
func (s *stage) run(name string, c app.Config) {
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() {
		log := slog.New(slog.NewTextHandler(s.t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})).With("process", name)
		if err := app.Run(ctx, c, io.Discard, log, nil); err != nil {
			s.t.Errorf("%s: %v", name, err)
		}
	})
	s.t.Cleanup(func() { cancel(); all.Wait() })
}

// nginx runs on the file as it is, but for ports and places.
func (s *stage) nginx() {
	text, err := os.ReadFile("nginx/nginx.conf")
	if err != nil {
		s.t.Fatal(err)
	}
	command := list(s.f.services["nginx"].fields["entrypoint"])
	front := s.here("nginx:8080")
	servers.Start(s.t, servers.Program{
		Name: "nginx", Path: servers.Find(s.t, "nginx"),
		Args: func(_, dir string) ([]string, error) {
			conf := strings.NewReplacer("listen 8080;", "listen "+front+";", "127.0.0.1:8081", free(s.t), "/tmp/", dir+"/", "65536", "1024").Replace(string(text))
			args := slices.Clone(command[1:])
			if os.Getuid() == 0 { // its workers are to reach a directory of root's
				args[1] += " user root;"
			}
			path := filepath.Join(dir, "nginx.conf")
			return append(args, "-p", dir, "-c", path, "-e", "stderr"), os.WriteFile(path, []byte(s.here(conf)), 0o600)
		},
		Ready: func(ctx context.Context, _ string) error { return listens(ctx, front) },
	})
}

// All that the file says, said to real servers on this machine: they start, find
// each other, and sell.
func TestFleet(t *testing.T) {
	s := newStage(t)
	s.redis()
	s.mariadb()
	s.etcd()
	s.kafka()
	secrets := s.sluices()
	s.nginx()

	ops, shop := "http://"+s.here("console:8081"), "http://"+s.here("nginx:8080")
	operator := s.f.services["console"].environment["SLUICE_OPS_TOKEN"]
	s.ask(201, "POST", ops+"/v1/skus", operator, `{"id":"cup","title":"Cup","description":"","image":"","price":{"amount":9900,"currency":"CNY"}}`)
	s.ask(201, "POST", ops+"/v1/activities", operator, fmt.Sprintf(`{"id":"cup","kind":"flash","title":"Cups","opens_at":%q,"items":[{"sku":"cup","units":10,"per_user":1}]}`,
		time.Now().Add(-time.Second).UTC().Format(time.RFC3339)))
	s.ask(200, "POST", ops+"/v1/activities/cup/open", operator, "")
	key, err := gate.KeyIn(secrets)
	if err != nil {
		t.Fatal(err)
	}
	ann, err := gate.Mint(key, "ann", time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	var receipt map[string]any
	s.eventually("a purchase through the front", func() string {
		status, v := s.call("POST", shop+"/v1/activities/cup/purchases", ann, `{"sku":"cup","quantity":1}`)
		if receipt = v; status != 202 || v["state"] != "held" {
			return fmt.Sprint(status, v)
		}
		return ""
	})
	order := shop + "/v1/orders/" + receipt["order"].(string)
	var page string
	s.eventually("a page to pay on", func() string {
		status, v := s.call("POST", order+"/payments", ann, "")
		if page, _ = v["pay_url"].(string); status != 201 || page == "" {
			return fmt.Sprint(status, v)
		}
		return ""
	})
	resp, err := http.PostForm(page, url.Values{"action": {"pay"}})
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	// The provider's news come in at the front, and the event of them goes by Kafka.
	s.eventually("paid", func() string {
		if status, v := s.call("GET", order, ann, ""); v["state"] != "paid" {
			return fmt.Sprint(status, v)
		}
		return ""
	})
	s.eventually("confirmed", func() string {
		_, v := s.call("GET", ops+"/v1/activities/cup", operator, "")
		text, err := json.Marshal(v)
		if err != nil || !strings.Contains(string(text), `"confirmed":1`) {
			return string(text)
		}
		return ""
	})
	http.DefaultClient.CloseIdleConnections()
}

// call asks as a client does that buys with the key k.
func (s *stage) call(method, url, token, body string) (status int, v map[string]any) {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Idempotency-Key", "k")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	_ = json.NewDecoder(resp.Body).Decode(&v)
	return resp.StatusCode, v
}

func (s *stage) ask(want int, method, url, token, body string) map[string]any {
	s.t.Helper()
	status, v := s.call(method, url, token, body)
	if status != want {
		s.t.Fatalf("%s %s: %d %v", method, url, status, v)
	}
	return v
}
