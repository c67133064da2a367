package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"time"

	"sluice/internal/gate"
	"sluice/test/faultproxy"
	"sluice/test/servers"
)

// The overload curve: people who look at their orders come by the clock, at so
// many times what the shop can serve, while a few others pay.

// What each scene is, for the report.
var (
	aboutStore = fmt.Sprintf(`Orders are in a MariaDB behind a network that delays its answers by %v, read over %d connections: they, and not the
server's core, are what is scarce; payers take their part of it. %d connections of shoppers; who finds all of them taken waits for one.`, storeReach, storeHands, manyWires)
	aboutCore = fmt.Sprintf(`Orders are in the embedded store on the server's own core. %d connections of shoppers; who finds all of them taken waits
for one, first come first served, and leaves after a second. What cannot be refused in time makes everybody late.`, manyWires)
	aboutFront = fmt.Sprintf(`The same behind a balancer that keeps %d connections for such reads and turns away who finds none free (counted as no answer);
payers have connections of their own.`, fewWires)
)

// factors of the capacity that are offered.
var factors = []float64{0.5, 1, 2, 5, 10, 20}

const (
	readers    = 1000 // users whose own orders are read, in turn
	manyWires  = 1024 // connections, as of a crowd
	fewWires   = 64   // connections, as of a balancer that keeps no more
	settling   = time.Second
	probing    = time.Second
	storeReach = 20 * time.Millisecond // that answers of the store take longer, where it is the bound
	storeHands = 12                    // reads it does at a time
	overActive = "overload"
)

// scene is one thing that is overloaded.
type scene struct {
	name     string
	about    string
	onCore   bool // the server's core is what is scarce
	wires    int  // connections of the flood
	noQueue  bool // see flood
	capacity float64
	atBest   float64 // requests in flight at which that was
	cost     float64 // µs of the server's CPU time for one that is served
	steps    []step
}

// step is what was seen at one offered rate.
type step struct {
	factor  float64
	offered float64 // a second, as they came
	seen    counted
	lasted  time.Duration
	busy    float64 // share of the server's core
	other   float64 // share of the other core: the generator, the payers and the database
	payers  *paying
}

func (s step) goodput() float64 { return float64(s.seen.Good) / s.lasted.Seconds() }
func (s step) refused() float64 { return float64(s.seen.No) / s.lasted.Seconds() }

func (s step) unanswered() float64 { return float64(s.seen.Late+s.seen.Away) / s.lasted.Seconds() }

// refusal is the CPU time in µs of one refusal: what the last step took more than
// the one before, without those served, for what it refused more. So it leaves out
// what payers and the background take at every step. 0 when that cannot be told.
func (s *scene) refusal() float64 {
	if len(s.steps) < 2 {
		return 0
	}
	last, before := s.steps[len(s.steps)-1], s.steps[len(s.steps)-2]
	more := last.refused() - before.refused()
	if more < last.refused()/10 || more == 0 {
		return 0
	}
	return max(((last.busy-before.busy)*1e6-(last.goodput()-before.goodput())*s.cost)/more, 0)
}

// peak is the best goodput of all steps.
func (s *scene) peak() (best float64) {
	for _, one := range s.steps {
		best = max(best, one.goodput())
	}
	return best
}

// shareLeft is the share of its capacity that a core still serves when k times its
// capacity is offered and a refusal costs ratio of what serving does: it has to
// refuse k-1 in the time that is left. What cannot even be refused waits.
func shareLeft(k, ratio float64) float64 {
	if k <= 1 {
		return k
	}
	return max(0, (1-k*ratio)/(1-ratio))
}

// theatre is where a scene plays.
type theatre struct {
	*engine
	requests [][]byte
	desk     *cashDesk
	others   []*servers.Server // on the generator's core
}

// overload measures the scenes one after the other.
func overload(ctx context.Context, t servers.TB, binary string, p plan) (scenes []*scene, err error) {
	free, err := pin()
	if err != nil {
		return nil, err
	}
	defer free()
	distant := func(t servers.TB) (*theatre, error) { return distantStore(ctx, t, binary, p) }
	own := func(t servers.TB) (*theatre, error) { return openTheatre(ctx, t, binary, p) }
	for _, one := range []struct {
		scene
		build func(t servers.TB) (*theatre, error)
	}{
		{scene{name: "a slow store", wires: manyWires, about: aboutStore}, distant},
		{scene{name: "the core itself", wires: manyWires, onCore: true, about: aboutCore}, own},
		{scene{name: "the core itself, behind few connections", wires: fewWires, noQueue: true, onCore: true, about: aboutFront}, own},
	} {
		inner := servers.NewScope(t.TempDir())
		err := func() error {
			defer inner.End()
			th, err := one.build(inner)
			if err != nil {
				return err
			}
			return th.play(ctx, t, &one.scene, p)
		}()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", one.name, err)
		}
		scenes = append(scenes, &one.scene)
	}
	return scenes, nil
}

// distantStore keeps the orders in a MariaDB whose answers take storeReach longer,
// as those of a server far away or of a slow disk, over storeHands connections: it
// can serve storeHands ÷ storeReach reads a second, whatever the shop's core can.
func distantStore(ctx context.Context, t servers.TB, binary string, p plan) (*theatre, error) {
	db := servers.MariaDB(t, servers.OnCore(loadCore))
	way := faultproxy.Start(t, db.Addr)
	url := fmt.Sprintf("SLUICE_STORE=mysql://%s:%s@%s/%s?readers=%d", servers.SQLUser, servers.SQLPassword, way.Addr, servers.SQLDatabase, storeHands)
	th, err := openTheatre(ctx, t, binary, p, url)
	if err != nil {
		return nil, err
	}
	th.others = append(th.others, db.Server)
	way.Set(faultproxy.Down, faultproxy.Fault{Delay: storeReach})
	return th, nil
}

// openTheatre starts a server, and lets everybody buy who is to read or to pay.
func openTheatre(ctx context.Context, t servers.TB, binary string, p plan, env ...string) (*theatre, error) {
	e, err := startEngine(t, binary, env...)
	if err != nil {
		return nil, err
	}
	each := settling + p.duration
	payers := int(float64(len(factors))*each.Seconds()/payEvery.Seconds()) + len(factors)*2
	if err := e.sell(ctx, overActive, readers+payers, 100, 1); err != nil {
		return nil, err
	}
	people, err := e.buyers(ctx, readers+payers)
	if err != nil {
		return nil, err
	}
	if s, err := e.awaitLanded(ctx, overActive, len(people), time.Minute); err != nil || s.landed() < len(people) {
		return nil, fmt.Errorf("%d of %d orders landed: %w", s.landed(), len(people), err)
	}
	th := &theatre{engine: e, desk: newCashDesk(e.addr, people[readers:])}
	for _, p := range people[:readers] {
		th.requests = append(th.requests, []byte("GET /v1/orders HTTP/1.1\r\nHost: "+e.addr+"\r\nAuthorization: Bearer "+p.token+
			"\r\nAccept: application/json\r\nUser-Agent: Mozilla/5.0 (Linux; Android 14; Mobile)\r\n\r\n"))
	}
	return th, nil
}

// buyers are n users with an unpaid order each.
func (e *engine) buyers(ctx context.Context, n int) ([]payer, error) {
	const atATime = 16
	people, faults := make([]payer, n), make([]error, atATime)
	var all sync.WaitGroup
	for w := range atATime {
		all.Go(func() {
			for i := w; i < n && faults[w] == nil; i += atATime {
				people[i], faults[w] = e.buyer(ctx, fmt.Sprintf("bench-user-%07d", i))
			}
		})
	}
	all.Wait()
	for _, err := range faults {
		if err != nil {
			return nil, err
		}
	}
	return people, nil
}

func (e *engine) buyer(ctx context.Context, user string) (payer, error) {
	token, err := gate.Mint(e.secret, user, time.Now(), tokenLife)
	if err != nil {
		return payer{}, err
	}
	r, code, err := attempt(ctx, e.addr, purchases(overActive), token, "k")
	if err == nil {
		err = expectCode(r, code, "held")
	}
	if err != nil {
		return payer{}, fmt.Errorf("%s buys: %w", user, err)
	}
	var receipt struct{ Order string }
	err = json.Unmarshal(r.body, &receipt)
	return payer{token, receipt.Order}, err
}

// play finds the capacity and then offers its multiples, the least first.
func (th *theatre) play(ctx context.Context, t servers.TB, s *scene, p plan) error {
	if err := th.measureCapacity(ctx, t, s); err != nil {
		return fmt.Errorf("capacity: %w", err)
	}
	for i, factor := range factors {
		one := step{factor: factor, lasted: p.duration}
		arrive := newArrivals(factor*s.capacity, settling+p.duration, uint64(i+1))
		err := th.watched(&one, func() (err error) {
			var beside sync.WaitGroup
			var failed error
			beside.Go(func() { one.payers, failed = th.desk.run(ctx, settling, settling+p.duration) })
			one.seen, err = (&flood{addr: th.addr, requests: th.requests, connections: s.wires, noQueue: s.noQueue}).run(ctx, arrive, settling)
			beside.Wait()
			return errors.Join(err, failed)
		})
		if err == nil && one.seen.Wrong > 0 {
			err = fmt.Errorf("%d answers were neither 200 nor a refusal", one.seen.Wrong)
		}
		if err != nil {
			return fmt.Errorf("at %g times: %w", factor, err)
		}
		one.offered = float64(one.seen.Due) / one.lasted.Seconds()
		s.steps = append(s.steps, one)
		t.Logf("%-36s %4g × %8.0f/s  served %7.0f/s  refused %8.0f/s  p99 %7.1f ms  server %3.0f%%  other core %3.0f%%  payers %.0f%%, starts %.0f%% %.0f ms, looks %.0f%% %.0f ms  %v %v",
			s.name, factor, one.offered, one.goodput(), one.refused(), one.seen.percentile(0.99), one.busy*100, one.other*100,
			one.payers.share()*100, one.payers.Starts.share()*100, one.payers.Starts.p99(), one.payers.Looks.share()*100, one.payers.Looks.p99(), one.payers.Starts.Codes, one.payers.Looks.Codes)
	}
	return nil
}

// watched measures what the two cores do meanwhile. The few payers who come
// to their end after the others are the reason that it is not exact.
func (th *theatre) watched(one *step, do func() error) error {
	read := func() (server, other time.Duration, err error) {
		if server, err = cpuOf(th.servers); err != nil {
			return server, 0, err
		}
		beside, err := cpuOf(th.others)
		if err != nil {
			return server, 0, err
		}
		own, err := spent()
		return server, beside + own, err
	}
	server, other, err := read()
	if err != nil {
		return err
	}
	from := time.Now()
	if err := do(); err != nil {
		return err
	}
	took := time.Since(from)
	server2, other2, err := read()
	one.busy, one.other = float64(server2-server)/float64(took), float64(other2-other)/float64(took)
	return err
}

// measureCapacity is the best that closed loops can get out of the server: each
// connection asks again as soon as it has been answered.
func (th *theatre) measureCapacity(ctx context.Context, t servers.TB, s *scene) error {
	for _, connections := range []int{4, 8, 16, 32, 64} {
		one := step{lasted: probing}
		err := th.watched(&one, func() (err error) {
			one.seen, err = (&flood{addr: th.addr, requests: th.requests, connections: connections}).run(ctx, newArrivals(0, probing, 1), 0)
			return err
		})
		if err != nil {
			return err
		}
		t.Logf("%-36s %2d at a time: %8.0f/s, %d refused, p99 %.1f ms, server %3.0f%%, other core %3.0f%%", s.name, connections, one.goodput(), one.seen.No, one.seen.percentile(0.99), one.busy*100, one.other*100)
		if one.goodput() > s.capacity && one.seen.No == 0 {
			s.capacity, s.atBest, s.cost = one.goodput(), float64(connections), one.busy*1e6/one.goodput()
		}
	}
	if s.capacity == 0 {
		return fmt.Errorf("nothing was served")
	}
	return nil
}

// pin puts all threads of this program on the generator's core, so that none is
// in the server's way, until free.
func pin() (free func(), err error) {
	set := func(cores string) error {
		out, err := exec.Command("taskset", "-a", "-c", "-p", cores, strconv.Itoa(os.Getpid())).CombinedOutput()
		if err != nil {
			return fmt.Errorf("taskset: %w: %s", err, out)
		}
		return nil
	}
	// Whether it can be undone only matters to who is measured next.
	return func() { _ = set("0-" + strconv.Itoa(loadCore)) }, set(strconv.Itoa(loadCore))
}
