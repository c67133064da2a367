package redisgate_test

import (
	"strings"
	"testing"
	"time"

	"sluice/internal/backend/redisgate"
	"sluice/test/servers"
)

// connect opens what is shared on a server as it is, serve on an emptied one.
func connect(t testing.TB, s *servers.Server, o redisgate.Options) *redisgate.Shared {
	t.Helper()
	shared, err := redisgate.Open(t.Context(), "redis://"+s.Addr+"?buckets=4&answer=held", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(shared.Close)
	return shared
}

func serve(t testing.TB, s *servers.Server) *redisgate.Shared {
	t.Helper()
	do(t, s, "FLUSHALL")
	return connect(t, s, redisgate.Options{})
}

// clustered is serve for a cluster.
func clustered(t *testing.T, c *servers.RedisCluster) *redisgate.Shared {
	t.Helper()
	for _, n := range c.Nodes {
		if _, err := servers.Do(n, "FLUSHALL"); err != nil && !strings.Contains(err.Error(), "READONLY") {
			t.Fatal(err)
		}
	}
	shared, err := redisgate.Open(t.Context(), "redis://"+strings.Join(c.Addrs(), ",")+"?cluster=true&buckets=8", redisgate.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(shared.Close)
	return shared
}

func do(t testing.TB, s *servers.Server, command ...string) any {
	t.Helper()
	reply, err := servers.Do(s, command...)
	if err != nil {
		t.Fatal(err)
	}
	return reply
}

// clock is that of a server, in microseconds.
func clock(t testing.TB, s *servers.Server) time.Duration {
	t.Helper()
	reply, _ := do(t, s, "TIME").([]any)
	if len(reply) != 2 {
		t.Fatalf("TIME: %v", reply)
	}
	seconds, err1 := time.ParseDuration(reply[0].(string) + "s")
	micros, err2 := time.ParseDuration(reply[1].(string) + "us")
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	return seconds + micros
}

// pass returns when so much has passed on the server's clock.
func pass(t testing.TB, s *servers.Server, d time.Duration) {
	t.Helper()
	for end := clock(t, s) + d; ; {
		left := end - clock(t, s)
		if left <= 0 {
			return
		}
		<-time.After(left)
	}
}

// eventually calls until there is no error: connections that a restart broke
// are found out one by one.
func eventually(t testing.TB, what string, call func() error) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; {
		err := call()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: %v", what, err)
		}
	}
}
