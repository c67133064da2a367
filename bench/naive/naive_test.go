package main

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"sluice/storm"
	"sluice/test/servers"
)

// While nothing is killed, the chain sells exactly its stock and the oracle
// has nothing to say against it: what it says after a kill is the kill's.
func TestWithoutFaultsTheChainIsClean(t *testing.T) {
	redis := servers.Redis(t)
	s := settings{data: t.TempDir(), redis: filepath.Join(redis.Dir, "redis.sock"), opsToken: "test-token"}
	listen := func() net.Listener {
		t.Helper()
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	if _, err := tokenKey(s.data); err != nil {
		t.Fatal(err)
	}
	front, back := listen(), listen()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- serveOn(ctx, s, front, back) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	report, err := storm.Run(t.Context(), storm.Options{
		Target: "http://" + front.Addr().String(), Ops: "http://" + back.Addr().String(), OpsToken: s.opsToken, Data: s.data,
		Users: 400, Stock: 60, Duration: 2 * time.Second, Rate: 400, Connections: 16, Hold: 1, Seed: 1,
		Pay: 70, Abandon: 15, Cancel: 15, DoubleClick: 5, Replay: 50, Greedy: 10, Forge: 2, Lose: 3,
	}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if !report.Proof.OK || report.Sold != 60 {
		text, _ := json.MarshalIndent(report, "", "  ")
		t.Errorf("%s", text)
	}
}
