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
	c, err := app.Load(file, map[string]any{"ops": "127.0.0.1:5555"})
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(append([]string{c.Data, c.Listen, c.Ops, c.Log, c.Role}, c.JWTKeys...), " ")
	if want := "from-file 127.0.0.1:3333 127.0.0.1:5555 json,warn all a=one two"; got != want {
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
	f(map[string]any{"stock": "redis://a:6379"}, `stock: "redis://a:6379" has no backend`, "wal://")
	f(map[string]any{"store": "postgres://u:do-not-show@h/shop"}, "store:", "mysql://")
	f(map[string]any{"store": "postgres://u:do-not-show/@h/shop"}, "store:", "mysql://")
	f(map[string]any{"role": "gateway"}, "role: all")
	f(map[string]any{"ops": "0.0.0.0:8081"}, "SLUICE_OPS_TOKEN")
	f(map[string]any{"ops": "0.0.0.0:8081", "demo": true}, "SLUICE_OPS_TOKEN")
	if _, err := app.Load("", map[string]any{"ops": "0.0.0.0:8081", "ops_token": "long enough"}); err != nil {
		t.Errorf("a token makes another address fine: %v", err)
	}
	if _, err := app.Load("no-such-file.yaml", nil); !errors.Is(err, app.ErrConfig) {
		t.Errorf("a missing file: %v", err)
	}
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
