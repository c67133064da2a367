package storm

import (
	"context"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

func TestScheduleKeepsTheClock(t *testing.T) {
	start := time.Unix(1000, 0)
	s := newSchedule(start, 3, 2*time.Second)
	var got []time.Duration
	for {
		_, due, ok := s.next()
		if !ok {
			break
		}
		got = append(got, due.Sub(start).Round(time.Millisecond))
	}
	want := []time.Duration{0, 333, 667, 1000, 1333, 1667}
	if len(got) != len(want) {
		t.Fatalf("%d slots, want %d", len(got), len(want))
	}
	for i := range want {
		if got[i] != want[i]*time.Millisecond {
			t.Errorf("slot %d is due after %s, want %d ms", i, got[i], want[i])
		}
	}
	// A day at the highest rate does not overflow.
	if got := newSchedule(start, maxRate, 24*time.Hour).offset(24 * 3600 * maxRate); got != 24*time.Hour {
		t.Errorf("the last slot of a day is due after %s", got)
	}
}

func TestDiceAreFairAndRepeatable(t *testing.T) {
	const n = 100_000
	hits := 0
	for i := range uint64(n) {
		first, again := dice(1).hit(chooseLose, i, 10), dice(1).hit(chooseLose, i, 10)
		if first {
			hits++
		}
		if first != again {
			t.Fatal("the same die fell differently")
		}
		if d := dice(1).between(i, time.Second, 2*time.Second); d < time.Second || d >= 2*time.Second {
			t.Fatalf("%s is not in 1s..2s", d)
		}
	}
	if hits < n*9/100 || hits > n*11/100 {
		t.Errorf("%d of %d hits at 10 %%", hits, n)
	}
	if dice(1).hit(chooseLose, 1, 0) {
		t.Error("0 % hit")
	}
}

func TestCrowdVisitsEveryUserOnce(t *testing.T) {
	key := []byte("key")
	for _, n := range []int{1, 2, 3, 64, 97, 1000} {
		c, err := newCrowd(n, 5, key, time.Now(), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		seen := map[int]bool{}
		for range n {
			u, generation, ok := c.next()
			if !ok || generation != 0 || seen[u] {
				t.Fatalf("%d users: got %d, generation %d, %v after %d", n, u, generation, ok, len(seen))
			}
			seen[u] = true
		}
		if _, _, ok := c.next(); ok {
			t.Errorf("%d users: one too many", n)
		}
		var claims jwt.RegisteredClaims
		if _, err := jwt.ParseWithClaims(string(c.token(n-1)), &claims, func(*jwt.Token) (any, error) { return key, nil }); err != nil {
			t.Error(err)
		}
		if u, ok := userOf(claims.Subject); !ok || u != n-1 {
			t.Errorf("token %d is of %q", n-1, claims.Subject)
		}
	}
}

func TestCrowdLife(t *testing.T) {
	c, err := newCrowd(1, 5, []byte("key"), time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	claim := func(generation uint32) {
		t.Helper()
		if u, g, ok := c.next(); !ok || u != 0 || g != generation {
			t.Fatalf("claimed %d, generation %d, %v; want generation %d", u, g, ok, generation)
		}
	}
	claim(0)
	c.refused(0, 0)
	claim(0)
	c.accepted(0, 0)
	c.refused(0, 0) // a slower reply to the same key does not undo the receipt
	if _, _, ok := c.next(); ok {
		t.Fatal("claimed a user who holds a reservation")
	}
	c.again(0, 0)
	if asking, holders := c.demand(); asking != 1 || holders != 0 {
		t.Fatalf("%d asking and %d holding after the end", asking, holders)
	}
	claim(1)
	c.accepted(0, 1)
	c.again(0, 0) // news of the old reservation
	c.satisfied(0, 0)
	if asking, holders := c.demand(); asking != 0 || holders != 1 {
		t.Fatal("satisfied by an old reservation")
	}
	c.satisfied(0, 1)
	c.satisfied(0, 1)
	asking, holders := c.demand()
	if _, _, ok := c.next(); ok || asking+holders != 0 {
		t.Errorf("claimed %v, %d asking and %d holding after the purchase", ok, asking, holders)
	}
}

func TestJudge(t *testing.T) {
	f := func(status int, body string, v verdict, code string) {
		t.Helper()
		gotV, gotCode := judge(status, []byte(body))
		if gotV != v || codes[gotCode] != code {
			t.Errorf("judge(%d, %s) = %d %q, want %d %q", status, body, gotV, codes[gotCode], v, code)
		}
	}
	f(202, `{"reservation":"a.0.1.1"}`, accepted, "")
	f(200, `{}`, accepted, "")
	f(409, `{"code":"sold_out"}`, refused, "sold_out")
	f(409, `{"title":"x","code": "all_held","status":409}`, refused, "all_held")
	f(429, `{"code":"rate_limited"}`, refused, "rate_limited")
	f(503, `{"code":"overloaded"}`, refused, "overloaded")
	f(503, `{"code":"not_ready"}`, unavailable, "not_ready")
	f(503, `{"code":"unknown"}`, unknown, "unknown")
	f(500, `{"code":"internal"}`, broken, "internal")
	f(401, `{"code":"unauthenticated"}`, broken, "unauthenticated")
	f(422, `{"code":"idempotency_mismatch"}`, broken, "idempotency_mismatch")
	f(409, `{"code":"made_up"}`, broken, "")
	f(409, `{"code":`, broken, "")
	f(409, `{"code":"sold_out`, broken, "")
	f(302, ``, broken, "")
	if codes[codeSoldOut] != "sold_out" || codes[codeLimit] != "limit_reached" || codes[codeNotOpen] != "not_open" || codes[firstOdd] != "internal" {
		t.Error("the indices of codes do not fit the table")
	}
}

func TestTallyDrains(t *testing.T) {
	lane := newTally()
	lane.answered(accepted, noCode, 3*time.Millisecond)
	lane.answered(refused, codeSoldOut, time.Millisecond)
	lane.answered(refused, codeSoldOut, -1)
	lane.answered(unknown, noCode, -1)
	lane.count(&lane.unsent)
	var total counts
	all := newHistogram()
	for range 2 { // the second finds nothing new
		lane.drain(&total, all)
	}
	if total.attempts != 4 || total.accepted != 1 || total.refused[codeSoldOut] != 2 || total.errors != 1 || total.unsent != 1 {
		t.Errorf("counted %+v", total)
	}
	if all.TotalCount() != 2 || latencyOf(all).P99 < 2.9 || latencyOf(all).P99 > 3.1 {
		t.Errorf("%d latencies, %+v", all.TotalCount(), latencyOf(all))
	}
}

func TestAgendaDoesErrandsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgenda()
		ctx, stop := context.WithCancel(t.Context())
		var work sync.WaitGroup
		work.Go(func() { a.work(ctx, 2) })
		start := time.Now()
		done := make(chan string, 3)
		note := func(name string, want time.Duration) func() {
			return func() {
				if got := time.Since(start); got != want {
					t.Errorf("%s was done after %s, want %s", name, got, want)
				}
				done <- name
			}
		}
		a.after(3*time.Second, note("late", 3*time.Second))
		a.after(time.Second, func() {
			a.after(time.Second, note("planned by an errand", 2*time.Second))
			note("early", time.Second)()
		})
		for _, want := range []string{"early", "planned by an errand", "late"} {
			if got := <-done; got != want {
				t.Errorf("done %s, want %s", got, want)
			}
		}
		synctest.Wait()
		if n := a.open.Load(); n != 0 {
			t.Errorf("%d errands open", n)
		}
		stop()
		work.Wait()
	})
}

func TestOutage(t *testing.T) {
	at := func(ms int) time.Time { return time.Unix(100, 0).Add(time.Duration(ms) * time.Millisecond) }
	var o outage
	o.failed(at(0)) // before the restart began
	o.watch()
	o.answered(at(1), at(2)) // nothing failed yet
	o.failed(at(10))
	o.failed(at(20))
	o.answered(at(9), at(25)) // sent before the failure, read after it
	if _, ok := o.length(); ok || !o.active() {
		t.Error("ended by an old answer")
	}
	o.answered(at(300), at(310))
	o.failed(at(400))
	o.answered(at(500), at(510))
	if d, ok := o.length(); !ok || d != 300*time.Millisecond || o.active() {
		t.Errorf("lasted %s, %v", d, ok)
	}
}

func TestRestartCommand(t *testing.T) {
	f := func(command, want string) {
		t.Helper()
		r := &rehearsal{o: Options{RestartCmd: command}, oracle: newOracle(1, time.Now()), agenda: newAgenda()}
		r.restart(t.Context())
		got := strings.Join(r.oracle.broken.list(), "\n")
		if (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("%q: want %q, got %q", command, want, got)
		}
	}
	f("true", "")
	f("echo no such server >&2; exit 3", "no such server")
}

func TestOptions(t *testing.T) {
	good := Options{Target: "http://127.0.0.1:8080", Ops: "https://ops.example", Users: 50_000, Stock: 1000,
		Duration: 20 * time.Second, Connections: 64, Hold: 5, Pay: 70, Abandon: 15, Cancel: 15}
	o := good
	if err := o.Validate(); err != nil || o.Rate != 7500 || o.Seed == 0 {
		t.Errorf("rate %d, seed %d, %v", o.Rate, o.Seed, err)
	}
	f := func(want string, change func(o *Options)) {
		t.Helper()
		o := good
		change(&o)
		if err := o.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error about %s, got %v", want, err)
		}
	}
	f("--target", func(o *Options) { o.Target = "localhost:8080" })
	f("--ops", func(o *Options) { o.Ops = "http://x/path" })
	f("--users", func(o *Options) { o.Users = 0 })
	f("--stock", func(o *Options) { o.Stock = -1 })
	f("--rate", func(o *Options) { o.Rate = maxRate + 1 })
	f("--duration", func(o *Options) { o.Duration = time.Millisecond })
	f("--connections", func(o *Options) { o.Connections = 0 })
	f("--hold", func(o *Options) { o.Hold = 0 })
	f("--lose", func(o *Options) { o.Lose = 101 })
	f("--pay", func(o *Options) { o.Pay = 0 })
	o = good
	o.Users, o.Hold = 0, 0
	if err := o.Validate(); err == nil || !strings.Contains(err.Error(), "--users") || !strings.Contains(err.Error(), "--hold") {
		t.Errorf("not all faults at once: %v", err)
	}
}

func TestReadKey(t *testing.T) {
	data := t.TempDir()
	if _, err := readKey(data); err == nil || !strings.Contains(err.Error(), "--data") {
		t.Errorf("a missing key gives %v", err)
	}
	if err := os.Mkdir(filepath.Join(data, "secrets"), 0o700); err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(data, "secrets", "jwt.hs256"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("not hex")
	if _, err := readKey(data); err == nil {
		t.Error("read a key that is not hexadecimal")
	}
	write(hex.EncodeToString([]byte("secret")) + "\n")
	if key, err := readKey(data); err != nil || string(key) != "secret" {
		t.Errorf("key %q, %v", key, err)
	}
}

func TestStepOf(t *testing.T) {
	f := func(r Report, ok bool) {
		t.Helper()
		if got := stepOf(r); got.OK != ok {
			t.Errorf("%+v, want ok %v", got, ok)
		}
	}
	f(Report{Attempts: 1000, LatencyMS: Latency{P99: 150}}, true)
	f(Report{Attempts: 1000, LatencyMS: Latency{P99: 201}}, false)
	f(Report{Attempts: 1000, Errors: 11}, false)
	f(Report{Attempts: 900, Unsent: 100}, false)
}

// Attempts wait for what their users do next: a rush that outpaces them would
// have orders paid late, and call the shop slow.
func TestNoAttemptsAheadOfErrands(t *testing.T) {
	const slots = 8
	f := func(late time.Duration, unsent uint64) {
		t.Helper()
		r := &rehearsal{agenda: newAgenda(), targets: make([]target, 1), crowd: &crowd{}} // nobody wants anything
		start := time.Now()
		r.agenda.at(start.Add(-late), func() {})
		lane := newTally()
		r.lane(t.Context(), newSchedule(start, 1_000_000, slots*time.Microsecond), lane)
		if lane.unsent != unsent || lane.unwanted != slots-unsent {
			t.Errorf("errands %v late: %d attempts not sent, %d unwanted", late, lane.unsent, lane.unwanted)
		}
	}
	f(0, 0)
	f(maxBehind/2, 0)
	f(maxBehind+time.Second, slots)
	f(-time.Minute, 0)
}
