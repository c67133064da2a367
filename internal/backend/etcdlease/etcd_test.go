package etcdlease

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"sluice/test/servers"
)

// TestMain lets more tests wait side by side than there are processors: they
// wait for seconds that etcd counts.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	m.Run()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// open is a client of these addresses, in a namespace of the test's own.
func open(t *testing.T, addrs ...string) *Etcd {
	t.Helper()
	namespace := strings.NewReplacer("/", "-", "_", "-", ",", "").Replace(t.Name())
	e, err := Open(t.Context(), "etcd://"+strings.Join(addrs, ",")+"/"+namespace, Options{})
	must(t, err)
	t.Cleanup(e.Close)
	return e
}

// eventually asks again, up to 30 s, until the answer is yes.
func eventually(t *testing.T, what string, ask func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	for time.Since(began) < 30*time.Second {
		if ask() {
			return time.Since(began)
		}
		<-ticker.C
	}
	t.Fatalf("not within 30 s: %s", what)
	return 0
}

// steps runs a view as its task does, until the test ends.
func steps(t *testing.T, v *View) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			if _, err := v.Step(ctx); err != nil && ctx.Err() == nil {
				t.Log(err)
				select {
				case <-time.After(50 * time.Millisecond):
				case <-ctx.Done():
				}
			}
		}
		v.Close()
	}()
	t.Cleanup(func() { cancel(); <-done })
}

func TestParseURL(t *testing.T) {
	f := func(door string, want Config) {
		t.Helper()
		if got, err := ParseURL(door); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", door, got, err)
		}
	}
	f("etcd://a", Config{Addrs: []string{"a:2379"}, Namespace: "sluice"})
	f("etcd://a:1,b:2", Config{Addrs: []string{"a:1", "b:2"}, Namespace: "sluice"})
	f("etcd://[::1]:1/", Config{Addrs: []string{"[::1]:1"}, Namespace: "sluice"})
	f("etcds://u:p%40x@a,b/shop", Config{Addrs: []string{"a:2379", "b:2379"}, Namespace: "shop", User: "u", Password: "p@x", TLS: true})
	bad := func(door string) {
		t.Helper()
		if got, err := ParseURL(door); !errors.Is(err, ErrConfig) {
			t.Errorf("%s: %+v, %v", door, got, err)
		}
	}
	for _, door := range []string{"", "etcd:", "etcd:a", "http://a", "etcd://", "etcd://a,", "etcd://a:", "etcd://:1", "etcd://a/b/c", "etcd://a/b?c=d", "etcd://%%@a"} {
		bad(door)
	}
}

// With nobody there each call ends, soon and with a word.
func TestAway(t *testing.T) {
	t.Parallel() // most of it is waiting
	s := servers.Etcd(t)
	e := open(t, s.Addr)
	must(t, e.Ping(t.Context()))
	s.Kill()
	began := time.Now()
	_, err := e.Acquire(t.Context(), "n", "a", time.Second)
	if took := time.Since(began); !errors.Is(err, ErrAway) || took > 10*time.Second {
		t.Errorf("%v after %s", err, took)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := e.Ping(ctx); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrAway) {
		t.Errorf("a caller in a hurry: %v", err)
	}
	must(t, s.Restart())
	eventually(t, "an answer", func() bool { return e.Ping(t.Context()) == nil })
}

// An etcd that asks who is there.
func TestPassword(t *testing.T) {
	t.Parallel() // most of it is waiting
	s := servers.Etcd(t)
	admin := open(t, s.Addr).at()
	for _, f := range []func() error{
		func() error { _, err := admin.UserAdd(t.Context(), "root", "p@ss/word"); return err },
		func() error { _, err := admin.RoleAdd(t.Context(), "root"); return err },
		func() error { _, err := admin.UserGrantRole(t.Context(), "root", "root"); return err },
		func() error { _, err := admin.AuthEnable(t.Context()); return err },
	} {
		must(t, f())
	}
	door := func(user string) string { return fmt.Sprintf("etcd://%s@%s", user, s.Addr) }
	if _, err := Open(t.Context(), door("root:wrong"), Options{}); err == nil || strings.Contains(err.Error(), "wrong@") {
		t.Errorf("a wrong password: %v", err)
	}
	e, err := Open(t.Context(), door("root:p%40ss%2Fword"), Options{})
	must(t, err)
	t.Cleanup(e.Close)
	must(t, e.Ping(t.Context()))
	if err := open(t, s.Addr).Ping(t.Context()); err == nil {
		t.Error("nobody was let in")
	}
	_, err = e.at().Get(t.Context(), "x", clientv3.WithCountOnly())
	must(t, err)
}
