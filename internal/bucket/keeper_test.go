package bucket_test

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sluice/internal/bucket"
	"sluice/internal/order"
	"sluice/internal/stock"
)

// TestKeepersUnderFaults: whatever the engine loses and whenever workers die or
// sleep past their lease, nothing is sold twice, nothing that was held is lost,
// and everything comes to rest with all books equal.
func TestKeepersUnderFaults(t *testing.T) {
	store := openStore(t)
	fired := map[string]int{}
	rapid.Check(t, func(rt *rapid.T) {
		draw := func(name string, lo, hi int) int { return rapid.IntRange(lo, hi).Draw(rt, name) }
		w := newWorld(rt, t.Context(), store, uint16(draw("buckets", 1, 3)), draw("units", 0, 15), draw("limit", 0, 4))
		w.hire()
		w.hire()
		users := []stock.UserID{"ann", "bob", "cy", "dee", "eve"}
		some := func() *bought { return w.bought[draw("which", 0, len(w.bought)-1)] }
		for range draw("length", 5, 60) {
			w.clock = w.clock.Add(time.Duration(draw("ms", 1, 400)) * time.Millisecond)
			switch what := draw("what", 0, 32); {
			case what < 6:
				_, _ = w.buy(users[draw("user", 0, len(users)-1)], fmt.Sprint("k", draw("key", 0, 9)), draw("quantity", 1, 3))
			case what < 13:
				w.workers[draw("worker", max(0, len(w.workers)-2), len(w.workers)-1)].step()
			case what == 13 && len(w.bought) > 0:
				w.change(some(), rapid.SampledFrom([]order.Action{order.ActionPay, order.ActionCancel, order.ActionTimeout, order.ActionRefund}).Draw(rt, "action"))
			case what == 14:
				w.handle()
			case what == 15:
				w.add(fmt.Sprint("d", draw("id", 0, 3)), 3)
			case what == 16 || what > 25 && what < 30: // often: most find nothing, or are lost before they land
				from, all := draw("from", 0, int(w.sale.Buckets)-1), int(w.sale.Buckets)
				w.pull(uint16(from), uint16((from+draw("further", 1, max(all-1, 1)))%all), draw("units", 1, 2))
			case what == 17 && len(w.bought) > 0:
				_, _ = w.look(some())
			case what == 18:
				w.engine.Restart()
			case what == 19:
				w.engine.Flush()
			case what == 20:
				w.engine.Back(w.places()[draw("back", 0, int(w.sale.Buckets)-1)], draw("by", 0, 60))
			case what == 21 || what > 30: // one is killed at one of its next calls, and another hired
				k := w.workers[len(w.workers)-1]
				k.at = k.calls + draw("at", 1, 12)
				how := rapid.SampledFrom([]string{"before", "after"}).Draw(rt, "how")
				k.happens = func() string { fired["killed "+how]++; w.hire(); return how }
			case what == 22 || what == 30: // one sleeps past its lease at one of its next calls, and another takes over
				k := w.workers[len(w.workers)-1]
				k.at = k.calls + draw("at", 1, 12)
				steps, buys := draw("steps", 1, 12), draw("buys", 0, 2)
				k.happens = func() string {
					fired["slept"]++
					w.clock = w.clock.Add(2 * ttl)
					other := w.hire()
					for i := range steps {
						w.clock = w.clock.Add(60 * time.Millisecond)
						other.step()
						if i < buys {
							_, _ = w.buy("fay", fmt.Sprint("late", i), 1)
						}
					}
					return ""
				}
			case what == 23:
				w.clock = w.clock.Add(2 * ttl)
			case what == 24 || what == 25:
				if w.workers[draw("worker", max(0, len(w.workers)-2), len(w.workers)-1)].inspect() {
					fired["inspected"]++
				}
			}
			w.sound()
		}
		w.rest()
		w.settled()
		if got := w.alarms.Counts(); got[order.AlarmRefused]+got[order.AlarmDisagreed] != 0 {
			rt.Fatalf("the engine was honest, and yet: %v", got)
		}
		for _, b := range w.bought {
			switch is, _ := w.look(b); {
			case b.held:
				fired["held"]++
			case is == stock.Refused:
				fired["lost while pending"]++
			}
		}
		for _, k := range w.workers {
			for _, s := range k.Stats() {
				fired["recovered"] += int(s.Recoveries)
				if s.State == bucket.Fenced {
					fired["fenced"]++
				}
			}
		}
		for _, p := range w.places() {
			kept, err := store.Kept(t.Context(), p.Log())
			w.must(err)
			for _, e := range kept.Rules[1:] {
				if _, debit, ok := stock.MoveOf(p.Bucket, e.Adjustment); ok && !debit {
					fired["moved"]++
				}
			}
		}
	})
	t.Log(fired)
	for _, kind := range []string{"killed before", "killed after", "slept", "held", "lost while pending", "recovered", "moved", "inspected"} {
		if fired[kind] == 0 {
			t.Errorf("%q never happened", kind)
		}
	}
}
