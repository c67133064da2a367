package app_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/internal/app"
)

// Flag over environment over file over default.
func TestPrecedence(t *testing.T) {
	file := filepath.Join(t.TempDir(), "sluice.yaml")
	if err := os.WriteFile(file, []byte("data: from-file\nlisten: 127.0.0.1:1111\nops: 127.0.0.1:2222\nlog: json,warn\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SLUICE_CONFIG_FILE", file) // says where the file is, and is no key of it
	t.Setenv("SLUICE_LISTEN", "127.0.0.1:3333")
	t.Setenv("SLUICE_OPS", "127.0.0.1:4444")
	t.Setenv("SLUICE_JWT_KEYS", "a=one,two")
	t.Setenv("SLUICE_TRUSTED_PROXIES", "10.0.0.0/8,192.0.2.1")
	c, err := app.Load(file, map[string]any{"ops": "127.0.0.1:5555"})
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(append([]string{c.Data, c.Listen, c.Ops, c.Log, c.Role}, append(c.JWTKeys, c.Proxies...)...), " ")
	if want := "from-file 127.0.0.1:3333 127.0.0.1:5555 json,warn all a=one two 10.0.0.0/8 192.0.2.1"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// Every fault is named at once, with what to change.
func TestFaults(t *testing.T) {
	f := func(flags map[string]any, want ...string) {
		t.Helper()
		_, err := app.Load("", flags)
		if !errors.Is(err, app.ErrConfig) || strings.Contains(err.Error(), "do-not-show") {
			t.Fatalf("%v: %v", flags, err)
		}
		for _, w := range want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%v: %q does not say %q", flags, err, w)
			}
		}
	}
	f(map[string]any{"lissten": ":1"}, "lissten", "known are")
	f(map[string]any{"listen": "nowhere", "ops": "x", "data": "", "log": "xml"}, "listen:", "ops:", "data:", "log:")
	f(map[string]any{"stock": "kafka://u:do-not-show@a:6379"}, `stock: "kafka://u:xxxxx@a:6379" has no backend`, "wal://", "redis://")
	f(map[string]any{"store": "postgres://u:do-not-show@h/shop"}, "store:", "mysql://")
	f(map[string]any{"store": "postgres://u:do-not-show/@h/shop"}, "store:", "mysql://")
	f(map[string]any{"public": "shop.example", "drain": "1h"}, "public:", "drain:")
	f(map[string]any{"trusted_proxies": []string{"10.0.0.0/8", "front.example"}}, `trusted_proxies: "front.example"`)
	f(map[string]any{"role": "cook"}, "role:", "gateway, worker, console")
	f(map[string]any{"ops": "0.0.0.0:8081"}, "SLUICE_OPS_TOKEN")
	f(map[string]any{"ops": "0.0.0.0:8081", "demo": true}, "SLUICE_OPS_TOKEN")
	if _, err := app.Load("", map[string]any{"ops": "0.0.0.0:8081", "ops_token": "long enough"}); err != nil {
		t.Errorf("a token makes another address fine: %v", err)
	}
	if _, err := app.Load("no-such-file.yaml", nil); !errors.Is(err, app.ErrConfig) {
		t.Errorf("a missing file: %v", err)
	}
}

const (
	redis = "redis://:do-not-show@a:6379,b:6379?cluster=true&buckets=16"
	mysql = "mysql://u:do-not-show@h:3306/shop"
)

// Which doors go with which role, and which line to change.
func TestRolesAndDoors(t *testing.T) {
	f := func(role, stock, store, lease, payment string, want ...string) {
		t.Helper()
		_, err := app.Load("", map[string]any{"role": role, "stock": stock, "store": store, "lease": lease, "payment": payment})
		if len(want) == 0 {
			if err != nil {
				t.Errorf("%s %s %s: %v", role, stock, store, err)
			}
			return
		}
		if !errors.Is(err, app.ErrConfig) || strings.Contains(err.Error(), "do-not-show") {
			t.Errorf("%s %s %s: %v", role, stock, store, err)
			return
		}
		lines := strings.Split(err.Error(), "\n")[1:]
		if len(lines) != len(want) {
			t.Errorf("%s %s %s: %q, want %d faults", role, stock, store, err, len(want))
		}
		for i, w := range want {
			if i < len(lines) && !strings.HasPrefix(lines[i], w) {
				t.Errorf("%s %s %s: %q, want %q", role, stock, store, lines[i], w)
			}
		}
	}
	// One process: everything embedded, or its orders on a server, or all on servers.
	f("all", "wal:", "sqlite:", "", "sandbox:")
	f("all", "wal:", "sqlite:", "local:", "sandbox:")
	f("all", "wal:", mysql, "", "sandbox:")
	f("all", redis, mysql, "", "sandbox:")
	f("all", redis, mysql, "sql:", "sandbox:")
	f("all", redis, "sqlite:", "", "sandbox:", `store: "sqlite:" is this process's alone`)
	f("all", redis, mysql, "local:", "sandbox:", "lease: local:")
	// One of several.
	for _, role := range []string{"gateway", "worker", "console"} {
		f(role, redis, mysql, "", "sandbox://c:8082")
		f(role, redis, mysql, "sql:", "sandbox://c:8082")
		f(role, redis, mysql, "", "sandbox:", "payment:")
		f(role, "wal:", "sqlite:", "local:", "sandbox:", `stock: "wal:" is one process's alone`, `store: "sqlite:" is one process's alone`,
			`lease: "local:" is one process's alone`, "payment:")
		f(role, "wal:", mysql, "", "sandbox://c:8082", "stock:")
		f(role, redis, "sqlite:", "", "sandbox://c:8082", "store:")
		f(role, redis, mysql, "local:", "sandbox://c:8082", "lease:")
	}
	// Doors that are not well formed.
	f("all", "redis://a", mysql, "", "sandbox:", "stock:")
	f("all", "redis://u:do-not-show@a:6379?buckets=0", mysql, "", "sandbox:", "stock:")
	f("all", redis, "mysql://u:do-not-show@h", "", "sandbox:", "store:")
	f("all", redis, "mysql://u:do-not-show/@h/shop", "", "sandbox:", "store:")
	f("all", redis, mysql, "etcd://h:2379", "sandbox:")
	f("worker", redis, mysql, "etcds://u:p@a:2379,b:2379/shop", "sandbox://c:8082")
	f("all", redis, mysql, "etcd://u:do-not-show@h:", "sandbox:", "lease:")
	f("all", redis, mysql, "zookeeper://h:2181", "sandbox:", "lease:")
	f("all", "wal:", mysql, "etcd://h:2379", "sandbox:", "lease:")
	f("all", redis, mysql, "", "stripe://x", "payment:")
}

// What is printed is a file that loads again, without secrets.
func TestPrint(t *testing.T) {
	c := app.Default()
	c.OpsToken, c.JWTKeys = "do-not-show", []string{"a=b", "c"}
	text := c.Print()
	if strings.Contains(text, "do-not-show") {
		t.Error("the token is printed")
	}
	for _, store := range []string{"mysql://u:do-not-show@h/shop", "mysql://u:do-not-show/@h/shop"} {
		c := c
		if c.Store = store; strings.Contains(c.Print(), "do-not-show") {
			t.Error("the store's password is printed")
		}
	}
	for _, stock := range []string{redis, "redis://u:do/not-show,@do-not-show@a:6379"} {
		c := c
		if c.Stock = stock; strings.Contains(c.Print(), "not-show") || !strings.Contains(c.Print(), "a:6379") {
			t.Errorf("%s is printed as %s", stock, c.Print())
		}
	}
	file := filepath.Join(t.TempDir(), "sluice.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := app.Load(file, nil)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	again.OpsToken = c.OpsToken
	if again.Print() != text {
		t.Errorf("loads as\n%s\nwas\n%s", again.Print(), text)
	}
}

// A door's URL says where, or the data directory does.
func TestPaths(t *testing.T) {
	f := func(stock, want string) {
		t.Helper()
		c := app.Default()
		c.Data, c.Stock = "d", stock
		if got := c.StockPath(); got != want {
			t.Errorf("%s is %s, want %s", stock, got, want)
		}
	}
	f("wal:", filepath.Join("d", "stock"))
	f("wal://some/where", "some/where")
	f("wal:///abs/olute", "/abs/olute")
	f("wal:rel", "rel")
}
