// Command crowd measures what a waiting room costs a fleet: so many people join
// it at two gateways, ask for their places as often as they are told to and as fast
// as they can, and are called. It says how many are served in a second, what the
// gateways need for it, and by how much people were told wrong when their turn is.
// Fleet and people share this machine, so the rates are of both together.
//
//	go run ./test/fleet/crowd                    50,000 people, a minute and a half
//	go run ./test/fleet/crowd -users 5000 -rate 200
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"sluice/test/fleet"
	"sluice/test/servers"
)

func main() {
	c := &crowd{}
	binary := flag.String("binary", "", "the program to run; default: it is built")
	flag.IntVar(&c.users, "users", 50_000, "people")
	flag.IntVar(&c.hands, "hands", 64, "requests under way at each gateway")
	flag.Float64Var(&c.rate, "rate", 2000, "people called in a second")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := c.run(ctx, *binary); err != nil {
		fmt.Fprintln(os.Stderr, "crowd:", err)
		os.Exit(1)
	}
}

const (
	activity = "drop"
	pass     = 10 * time.Minute
	burst    = 5 * time.Second // of polls as fast as can be
)

type crowd struct {
	*fleet.Fleet
	users, hands int
	rate         float64
	tokens       []string
	gates        []string // base URLs
	client       http.Client

	mu      sync.Mutex
	told    [][]guess // by user
	called  []time.Time
	refused map[string]int
}

// guess is one estimate that somebody was told.
type guess struct {
	at       time.Time
	eta, off time.Duration
}

func (c *crowd) run(ctx context.Context, binary string) (err error) {
	if binary != "" {
		if binary, err = filepath.Abs(binary); err != nil {
			return err
		}
	}
	t := servers.NewScope("")
	defer t.End()
	defer func() {
		switch failed := recover().(type) {
		case nil:
		case servers.Failure:
			err = errors.New(string(failed))
		default:
			panic(failed)
		}
	}()
	c.Fleet = fleet.Start(t, fleet.Options{Binary: binary, Gateways: 2, Workers: 1, Log: "text,warn"})
	c.told, c.called, c.refused = make([][]guess, c.users), make([]time.Time, c.users), map[string]int{}
	for _, g := range c.Gateways {
		c.gates = append(c.gates, "http://"+g.Addr)
	}
	c.client = http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 2 * c.hands}}
	for i := range c.users {
		token, err := c.Token(fmt.Sprintf("user-%07d", i))
		if err != nil {
			return err
		}
		c.tokens = append(c.tokens, token)
	}
	opens := time.Now().Add(25*time.Second + time.Duration(c.users)*100*time.Microsecond)
	if err := c.open(opens); err != nil {
		return err
	}
	c.phase("nobody", func() int { pause(ctx, 2*time.Second); return 0 })
	c.phase("join", func() int { return c.each(func(i int) { c.ask(i, "POST") }) })
	c.phase("registered, as told", func() int { return c.asTold(ctx, time.Now().Add(5*time.Second)) })
	c.phase("registered, as fast as can be", func() int { return c.fast(ctx) })
	if late := time.Until(opens); late < 0 {
		return fmt.Errorf("the sale opened %v before all had joined and asked", -late)
	}
	pause(ctx, time.Until(opens))
	c.phase("drawn and called, as told", func() int {
		return c.asTold(ctx, opens.Add(time.Duration(float64(c.users)/c.rate*float64(time.Second))+15*time.Second))
	})
	c.judge()
	return ctx.Err()
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// open puts a sale up with a room, and waits until both gateways have it.
func (c *crowd) open(opens time.Time) error {
	for _, r := range []struct{ method, path, body string }{
		{"POST", "/v1/skus", `{"id":"cup","title":"Cup","description":"","image":"","price":{"amount":9900,"currency":"CNY"}}`},
		{"POST", "/v1/activities", fmt.Sprintf(`{"id":%q,"kind":"flash","title":"Cups","opens_at":%q,"items":[{"sku":"cup","units":1000000}]}`,
			activity, opens.UTC().Format("2006-01-02T15:04:05.000Z"))},
		{"PUT", "/v1/rules", fmt.Sprintf(`{"version":0,"rules":[],"rooms":[{"id":"room","activity":%q,"mode":"on","opens":"10m","pass":%q,"rate":%g}]}`,
			activity, pass, c.rate)},
	} {
		status, body, err := c.send(c.Console.Ops, r.method, r.path, fleet.OpsToken, r.body)
		if err != nil || status/100 != 2 {
			return fmt.Errorf("%s %s: %d %s, %w", r.method, r.path, status, body, err)
		}
	}
	for until := time.Now().Add(10 * time.Second); ; {
		ready := 0
		for _, g := range c.gates {
			if status, _, _ := c.send(g, "GET", "/v1/activities/"+activity+"/queue/draw", "", ""); status == 200 {
				ready++
			}
		}
		if ready == len(c.gates) {
			return nil
		}
		if time.Now().After(until) {
			return errors.New("no waiting room after 10 s")
		}
	}
}

func (c *crowd) send(to, method, path, token, body string) (status int, answer []byte, err error) {
	q, err := http.NewRequest(method, to+path, strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	if token != "" {
		q.Header.Set("Authorization", "Bearer "+token)
	}
	if body != "" {
		q.Header.Set("Content-Type", "application/json")
	}
	a, err := c.client.Do(q)
	if err != nil {
		return 0, nil, err
	}
	defer a.Body.Close()
	answer, err = io.ReadAll(a.Body)
	return a.StatusCode, answer, err
}

// ask joins, or asks for a place, and notes what is told. It answers when to ask again,
// 0: never.
func (c *crowd) ask(i int, method string) (again time.Duration) {
	began := time.Now()
	// The next request of each may come to the other gateway, as through a balancer.
	status, body, err := c.send(c.gates[(i+int(began.UnixMilli()))%len(c.gates)], method, "/v1/activities/"+activity+"/queue", c.tokens[i], "")
	if err != nil || status != 200 {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.refused[fmt.Sprintf("%s %d %.80s %v", method, status, body, err)]++
		return time.Second
	}
	var told struct {
		State     string    `json:"state"`
		ETA       *int      `json:"eta_seconds"` // whole seconds, rounded up
		Off       int       `json:"eta_error_seconds"`
		ExpiresAt time.Time `json:"expires_at"`
		Again     int       `json:"poll_after_ms"`
	}
	if json.Unmarshal(body, &told) != nil {
		return time.Second
	}
	switch told.State {
	case "waiting":
		if told.ETA != nil {
			c.told[i] = append(c.told[i], guess{began, time.Duration(*told.ETA) * time.Second, time.Duration(told.Off) * time.Second})
		}
	case "called":
		c.called[i] = told.ExpiresAt.Add(-pass)
		return 0
	}
	return time.Duration(told.Again) * time.Millisecond
}

// each does something for everybody, as fast as the hands can.
func (c *crowd) each(do func(i int)) int {
	var next atomic.Int64
	var all sync.WaitGroup
	for range c.hands * len(c.gates) {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < c.users; i = int(next.Add(1)) - 1 {
				do(i)
			}
		})
	}
	all.Wait()
	return c.users
}

// fast asks for places for a while without any pause.
func (c *crowd) fast(ctx context.Context) int {
	var asked atomic.Int64
	for until := time.Now().Add(burst); time.Now().Before(until) && ctx.Err() == nil; {
		c.each(func(i int) {
			if time.Now().Before(until) {
				c.ask(i, "GET")
				asked.Add(1)
			}
		})
	}
	return int(asked.Load())
}

// asTold asks for everybody when he is to ask, until all are called or so long.
func (c *crowd) asTold(ctx context.Context, until time.Time) int {
	const tick = 10 * time.Millisecond
	var asked atomic.Int64
	left := atomic.Int64{}
	left.Store(int64(c.users))
	slots := make([][]int, 4096) // by tick: who is to ask
	var mu sync.Mutex
	at := 0
	for i := range c.users { // they begin over a second
		slots[1+i%100] = append(slots[1+i%100], i)
	}
	work := make(chan int, c.users)
	var all sync.WaitGroup
	for range c.hands * len(c.gates) {
		all.Go(func() {
			for i := range work {
				again := c.ask(i, "GET")
				asked.Add(1)
				if again == 0 {
					left.Add(-1)
					continue
				}
				mu.Lock()
				slot := (at + max(1, min(len(slots)-1, int(again/tick)))) % len(slots)
				slots[slot] = append(slots[slot], i)
				mu.Unlock()
			}
		})
	}
	for t := time.NewTicker(tick); time.Now().Before(until) && left.Load() > 0 && ctx.Err() == nil; <-t.C {
		mu.Lock()
		at = (at + 1) % len(slots)
		due := slots[at]
		slots[at] = nil
		mu.Unlock()
		for _, i := range due {
			work <- i
		}
	}
	close(work)
	all.Wait()
	return int(asked.Load())
}

// phase tells how often something was done in a second, and what the gateways and
// Redis needed for it.
func (c *crowd) phase(what string, do func() int) {
	list := []*servers.Server{c.Gateways[0].Server, c.Gateways[1].Server, c.Workers[0].Server, c.Redis}
	before := make([]time.Duration, len(list))
	for i, p := range list {
		before[i], _ = usage(p.PID())
	}
	began := time.Now()
	n := do()
	took := time.Since(began)
	fmt.Printf("%s: %d in %.1f s, %.0f/s\n", what, n, took.Seconds(), float64(n)/took.Seconds())
	for i, p := range list {
		cpu, rss := usage(p.PID())
		cpu -= before[i]
		fmt.Printf("  %-10s CPU %5.1f %% of a core", p.Name, 100*cpu.Seconds()/took.Seconds())
		if n > 0 {
			fmt.Printf(", %5.1f us each of all", float64(cpu.Microseconds())/float64(n))
		}
		fmt.Printf("; RSS %d MB\n", rss>>20)
	}
	for why, n := range c.refused {
		fmt.Printf("  %d times %s\n", n, why)
	}
	clear(c.refused)
}

// usage is what a process has had of processors, and has of memory, as Linux tells.
func usage(pid int) (cpu time.Duration, rss int64) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	number := func(i int) int64 { n, _ := strconv.ParseInt(fields[i], 10, 64); return n }
	return time.Duration(number(11)+number(12)) * 10 * time.Millisecond, number(21) * int64(os.Getpagesize())
}

// judge compares what people were told with when they were called.
func (c *crowd) judge() {
	never := 0
	var off [16][]float64
	var within, twice [16]int
	for i, told := range c.told {
		if c.called[i].IsZero() {
			never++
			continue
		}
		for _, g := range told {
			// Rounded up to the next second: half of one is not the estimate's fault.
			wrong := math.Abs((c.called[i].Sub(g.at) - g.eta + time.Second/2).Seconds())
			b := int(math.Log2(max(1, g.eta.Seconds())))
			off[b] = append(off[b], wrong)
			if wrong <= g.off.Seconds() {
				within[b]++
			}
			if wrong <= 2*g.off.Seconds() {
				twice[b]++
			}
		}
	}
	fmt.Printf("%d were never called\nestimates of when somebody is called:\n", never)
	for b, all := range off {
		if n := len(all); n > 0 {
			slices.Sort(all)
			fmt.Printf("  %3d s to %3d s ahead: %6d, off by %.1f s in the median, %.1f s at 95 %%; %2d %% within what was told, %3d %% within twice that\n",
				1<<b, 2<<b, n, all[n/2], all[n*95/100], 100*within[b]/n, 100*twice[b]/n)
		}
	}
}
