package storm

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
	"golang.org/x/sync/errgroup"

	"sluice/storm/linear"
)

// The bugs of a stall that is a fleet.
const (
	refusesHeld  fault = "refuses what was held"           // an order that has landed is refused
	pendsForever fault = "leaves some pending"             // they never land, nor are they lost
	sellsRefused fault = "sells what it refused"           // a refused order can be paid
	revives      fault = "takes a refusal back"            // a refused order is created in the end
	keepsLost    fault = "keeps the units of the lost"     // what an engine lost still holds a unit
	deniesKeys   fault = "denies pending keys"             // a pending key is refused, and then held
	movesNothing fault = "leaves units where they are"     // a bucket never gets the units of others
	losesMoves   fault = "loses units in transit"          // what one bucket gave no other gets
	hastySoldOut fault = "says sold_out before units came" // although some are in transit
	sameEpoch    fault = "buys anew in the same epoch"     // a key gets a second reservation without a loss
	hidesPending fault = "does not know what is pending"   // the reservation is not found before it has landed
	hidesLost    fault = "answers 404 for what it lost"    // the owner of an order that was lost hears that there is none
	forgetsTerms fault = "changes what was pending"        // an order costs more once it has landed
)

// fleet makes of a stall one whose acceptances are pending until they have
// landed, some of which are lost before, and whose units are in buckets. A nil
// one does nothing.
type fleet struct {
	fault fault
	epoch int
	free  []int
	moves []move
	stuck int // units in transit that never arrive
}

type move struct {
	to  int
	due time.Time
}

const (
	landing   = 40 * time.Millisecond
	moving    = 25 * time.Millisecond
	slowMove  = 800 * time.Millisecond
	lostEvery = 6 // of what is pending
)

func (f *fleet) open(buckets, units int) {
	f.free, f.moves, f.stuck = make([]int, max(buckets, 1)), nil, 0
	for n := range units {
		if f.fault == movesNothing {
			n = 0 // more than the users of one bucket want
		}
		f.free[n%len(f.free)]++
	}
}

func (f *fleet) place(user string) string {
	if f == nil {
		return ".0.1."
	}
	return fmt.Sprintf(".%d.%d.", bucketOf(user, len(f.free)), f.epoch)
}

func (f *fleet) accepted(o *stallOrder, now time.Time) {
	if f == nil {
		return
	}
	o.bucket = bucketOf(o.User, len(f.free))
	f.free[o.bucket]--
	o.pending, o.lands = true, now.Add(landing)
	if f.fault == deniesKeys { // long enough for everybody to ask
		o.lands = now.Add(8 * landing)
	}
}

func (f *fleet) freed(o *stallOrder) {
	if f != nil {
		f.free[o.bucket]++
	}
}

func (f *fleet) transit() int {
	if f == nil {
		return 0
	}
	return len(f.moves) + f.stuck
}

// elsewhere answers a request for which the user's bucket has no unit, and asks
// the other buckets for one.
func (s *stall) elsewhere(ctx *fasthttp.RequestCtx, user string, now time.Time) bool {
	f := s.fleet
	to := bucketOf(user, len(f.free))
	if f.free[to] > 0 {
		return false
	}
	for from := range f.free {
		if f.free[from] > 0 {
			if s.fault != movesNothing {
				f.free[from]--
				s.free--
				due := now.Add(moving)
				if s.fault == hastySoldOut {
					due = now.Add(slowMove)
				}
				if f.moves = append(f.moves, move{to, due}); s.fault == losesMoves && s.fleet.stuck == 0 {
					f.moves, f.stuck = f.moves[:len(f.moves)-1], 1
				}
			}
			s.refuse(ctx, 503, "not_ready")
			return true
		}
	}
	if f.transit() > 0 && s.fault != hastySoldOut {
		s.refuse(ctx, 503, "not_ready")
		return true
	}
	return false
}

// land does what is due: units arrive, and what is pending lands or is lost.
func (s *stall) land(now time.Time) {
	f := s.fleet
	if f == nil {
		return
	}
	waiting := f.moves[:0]
	for _, m := range f.moves {
		if now.Before(m.due) {
			waiting = append(waiting, m)
			continue
		}
		f.free[m.to]++
		s.free++
	}
	f.moves = waiting
	for n, o := range s.orders {
		switch {
		case o.pending && now.After(o.lands):
			s.decide(o, n)
		case s.fault == refusesHeld && o.State == "created" && n%lostEvery == 0 && now.After(o.lands.Add(3*landing)):
			s.lose(o, false)
		case s.fault == revives && o.State == "refused" && !o.gone && n%2 == 0 && now.After(o.lands.Add(5*landing)):
			o.State = "created"
			s.free--
			f.free[o.bucket]--
		}
	}
}

func (s *stall) decide(o *stallOrder, n int) {
	switch {
	case s.fault == pendsForever && n%lostEvery == 1:
	case n%lostEvery == 0 && s.fault != refusesHeld:
		s.lose(o, n%(2*lostEvery) == 0)
	default:
		o.pending = false
		if s.fault == forgetsTerms {
			o.Total.Amount++
		}
	}
}

// lose is a restart of the engine without the order: its row says so, or nothing
// of it is left.
func (s *stall) lose(o *stallOrder, gone bool) {
	o.pending, o.gone, o.State = false, gone, "refused"
	if s.fault != sameEpoch {
		s.fleet.epoch++
	}
	if gone {
		delete(s.byKey, o.User+" "+o.Key)
	}
	if s.fault == keepsLost {
		s.fleet.stuck++
		return
	}
	s.free++
	s.fleet.freed(o)
}

// reservation shows one to its owner, at once or as events.
func (s *stall) reservation(ctx *fasthttp.RequestCtx, id, events string) {
	user, ok := s.user(ctx)
	if !ok {
		s.refuse(ctx, 401, "unauthenticated")
		return
	}
	for _, o := range s.orders {
		if o.Reservation != id || o.User != user || s.fault == hidesPending && o.pending {
			continue
		}
		if events == "" {
			s.reply(ctx, 200, o.receipt())
			return
		}
		ctx.SetContentType("text/event-stream")
		ctx.SetBodyStreamWriter(func(w *bufio.Writer) { s.stream(w, o) })
		return
	}
	s.refuse(ctx, 404, "no_such_reservation")
}

func (o *stallOrder) receipt() Receipt {
	if o.gone { // nobody knows any more what it was
		return Receipt{Reservation: o.Reservation, State: "refused"}
	}
	return Receipt{o.Reservation, o.ID, o.reservation(), o.ExpiresAt, o.Total}
}

// stream writes the states of an order until it is pending no more.
func (s *stall) stream(w *bufio.Writer, o *stallOrder) {
	pace := time.NewTicker(5 * time.Millisecond)
	defer pace.Stop()
	for last, n := "", 0; n < 200; n++ {
		s.mu.Lock()
		s.expire(time.Now())
		now := o.receipt()
		s.mu.Unlock()
		if now.State != last {
			last = now.State
			fmt.Fprintf(w, ": a comment\n\nid: %d\ndata: {\"reservation\":%q,\"order\":%q,\"state\":%q,\"expires_at\":%q,\"total\":{\"amount\":%d,\"currency\":%q}}\n\n",
				n, now.Reservation, now.Order, now.State, now.ExpiresAt, now.Total.Amount, now.Total.Currency)
		}
		if w.Flush() != nil || last != "pending" {
			return
		}
		<-pace.C
	}
}

// openFleet starts a stall that is a fleet, and its options.
func openFleet(t *testing.T, f fault) (*stall, Options) {
	t.Helper()
	s, o := openStall(t, f)
	s.fleet = &fleet{fault: f, epoch: 1}
	o.Buckets, o.Misbehave, o.Hold, o.Rate = 3, 0, 2, 200
	return s, o
}

// These rehearsals run beside each other, and not beside the others: all of
// them at once would keep a small machine from being honest in time.
func TestStormOnAFleet(t *testing.T) {
	for name, f := range map[string]func(*testing.T){
		"honest": stormOnAnHonestFleet, "several gateways": stormOnSeveralGateways, "parts away": stormWhilePartsAreAway,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f(t)
		})
	}
}

func stormOnAnHonestFleet(t *testing.T) {
	t.Helper()
	s, o := openFleet(t, honest)
	report, err := rehearse(t.Context(), o, hasty, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Violations) != 0 {
		t.Errorf("violations on an honest fleet: %s", strings.Join(report.Violations, "\n"))
	}
	if report.Sold != o.Stock || report.Orders["paid"] != o.Stock || report.Orders["refused"] == 0 {
		t.Errorf("sold %d, orders %v, want all %d paid and some refused", report.Sold, report.Orders, o.Stock)
	}
	if report.Buckets != 3 || report.Pending < report.Accepted/2 || report.Refusals == 0 || s.fleet.epoch == 1 {
		t.Errorf("%d buckets, %d of %d receipts pending, %d refused later", report.Buckets, report.Pending, report.Accepted, report.Refusals)
	}
	if h := report.Held; h == nil || h.P50 < 1 || h.P99 < h.P50 || h.Max < h.P99*0.9 {
		t.Errorf("held after %+v", h)
	}
	if l := report.Linear; l == nil || l.Verdict != string(linear.Legal) {
		t.Errorf("the history of an honest fleet: %+v, %q", l, report.Notes)
	}
	var text strings.Builder
	if err := report.Write(&text, false); err != nil || !strings.Contains(text.String(), "held after p50") {
		t.Errorf("%v\n%s", err, text.String())
	}
}

// A user's retries may meet another gateway.
func stormOnSeveralGateways(t *testing.T) {
	t.Helper()
	_, o := openFleet(t, honest)
	o.Target += "/," + strings.Replace(o.Target, "127.0.0.1", "localhost", 1)
	report, err := rehearse(t.Context(), o, hasty, io.Discard)
	if err != nil || len(report.Violations) != 0 || report.Sold != o.Stock {
		t.Errorf("%v, sold %d; %s", err, report.Sold, strings.Join(report.Violations, "\n"))
	}
}

func TestStormFindsBugsOfFleets(t *testing.T) {
	var runs errgroup.Group
	runs.SetLimit(8)
	f := func(bug fault, want string) {
		t.Helper()
		_, o := openFleet(t, bug)
		switch bug {
		case movesNothing:
			o.Users, o.Buckets = 60, 4
		case losesMoves, hastySoldOut:
			o.Users, o.Stock, o.Buckets = 90, 40, 8
		}
		runs.Go(func() error {
			if err := finds(t.Context(), o, want); err != nil {
				t.Errorf("a fleet that %s: %v", bug, err)
			}
			return nil
		})
	}
	f(refusesHeld, "was promised by a receipt and is refused")
	f(pendsForever, "has been pending for")
	f(sellsRefused, "was refused, and asking to pay for it was answered 200")
	f(revives, "although it had been shown as refused")
	f(keepsLost, "stayed unsold")
	f(hidesLost, "was refused, and asking to pay for it was answered 404")
	f(deniesKeys, "false refusal")
	f(movesNothing, "stayed unsold")
	f(losesMoves, "1 of them in transit")
	f(hastySoldOut, "after sold_out had been told")
	f(sameEpoch, "later")
	f(hidesPending, "cannot be read by its owner")
	f(forgetsTerms, "its receipt said")
	if err := runs.Wait(); err != nil {
		t.Error(err)
	}
}
