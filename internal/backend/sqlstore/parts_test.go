package sqlstore

import (
	"cmp"
	"errors"
	"slices"
	"testing"
	"time"

	"sluice/internal/lib/outbox"
	"sluice/internal/order"
	"sluice/internal/proof"
	"sluice/internal/stock"
)

func TestParts(t *testing.T) { checkParts(t, openStore(t)) }

// A bucket is read at one moment, which begun is told of, and only that bucket;
// what is kept of an activity is that of all its buckets and of no other's.
func checkParts(t *testing.T, s *Store) {
	number := 0
	land := func(p stock.Place, from, to stock.Cursor, orders int) {
		t.Helper()
		log := p.Log()
		token, err := s.Fence(t.Context(), log)
		must(t, err)
		batch := landedOrders(number, orders)
		number += orders
		for i := range batch {
			o := &batch[i].Order
			o.Activity, o.Reservation.Activity, o.Reservation.Bucket, o.Position.Log = p.Activity, p.Activity, p.Bucket, log
			o.Reservation.Epoch, o.Position.Epoch = to.Epoch, to.Epoch
			o.Position.Position = from.Position + uint64(i) + 1
			batch[i].Events[0].Topic = order.TopicPaid
		}
		b := order.Batch{Log: log, Token: token, From: from, To: to, Orders: batch}
		if from == (stock.Cursor{}) {
			b.Rules = []stock.Entry{{Cursor: to, Activity: p.Activity, Bucket: p.Bucket, Sequence: 1, Kind: stock.EntryOpened,
				Allocation: &stock.Allocation{ID: "x", Activity: p.Activity, Bucket: p.Bucket, Buckets: 2, Items: []stock.Item{{SKU: "sku-1", Units: 7}}}}}
		}
		must(t, s.Land(t.Context(), b))
	}
	first, second := stock.Place{Activity: "flash-1"}, stock.Place{Activity: "flash-1", Bucket: 1}
	other := stock.Place{Activity: "flash-1/0"} // its log's name begins as one of flash-1's
	at := func(p stock.Place, epoch uint32, position uint64) stock.Cursor {
		return stock.Cursor{Log: p.Log(), Epoch: epoch, Position: position}
	}
	for _, p := range []stock.Place{first, second, other} {
		land(p, stock.Cursor{}, at(p, 1, 0), 0)
		land(p, at(p, 1, 0), at(p, 1, 3), 3)
	}
	land(first, at(first, 1, 3), at(first, 2, 2), 2)

	inspect := func(begun func() error) (mark stock.Cursor, rules []stock.Entry, seen int, undelivered []outbox.Message, err error) {
		rules, undelivered, err = s.Inspect(t.Context(), first.Log(), func(m stock.Cursor) error { mark = m; return begun() }, func(o order.Order) error {
			if o.Activity != "flash-1" || o.Reservation.Bucket != 0 {
				t.Errorf("it visits %s", o.Reservation)
			}
			seen++
			return nil
		})
		return mark, rules, seen, undelivered, err
	}
	mark, rules, seen, undelivered, err := inspect(func() error {
		land(first, at(first, 2, 2), at(first, 2, 3), 1) // after the moment
		return nil
	})
	must(t, err)
	if mark != at(first, 2, 2) || len(rules) != 1 || seen != 5 || len(undelivered) != 5 {
		t.Errorf("at %v: %d rules, %d orders, %d undelivered", mark, len(rules), seen, len(undelivered))
	}
	no := errors.New("no")
	_, _, seen, _, err = inspect(func() error { return no })
	if is(t, "begun's error", err, no); seen != 0 {
		t.Errorf("%d orders after begun refused", seen)
	}
	if mark, _, seen, _, err := inspect(func() error { return nil }); err != nil || mark != at(first, 2, 3) || seen != 6 {
		t.Errorf("later at %v: %d orders, %v", mark, seen, err)
	}

	p := proof.Part{Answers: 7, Rest: true, Slack: 8}
	p.Report = proof.Report{Activity: "flash-1", Position: proof.Position{Log: second.Log(), Epoch: 1, Position: 3}, Violations: []string{"v"}, Found: 1}
	p.At = proof.Bucket{Bucket: 1, Position: p.Report.Position, CheckedAt: time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC), Engine: &p.Report.Position}
	must(t, s.SavePart(t.Context(), proof.Part{At: p.At}))
	must(t, s.SavePart(t.Context(), p))
	stranger := p
	stranger.At.Position.Log = other.Log()
	must(t, s.SavePart(t.Context(), stranger))
	token, err := s.Fence(t.Context(), second.Log())
	must(t, err)
	must(t, s.Land(t.Context(), order.Batch{Log: second.Log(), Token: token, From: at(second, 1, 3), To: at(second, 2, 0), Retired: true}))
	g, err := s.Ground(t.Context(), "flash-1")
	must(t, err)
	equal(t, "parts", g.Parts, map[stock.LogID]proof.Part{second.Log(): p})
	equal(t, "watermarks", g.Marks, map[stock.LogID]stock.Cursor{first.Log(): at(first, 2, 3), second.Log(): at(second, 2, 0)})
	equal(t, "retired", g.Retired, map[stock.LogID]bool{second.Log(): true})
	if len(g.Rules) != 2 || len(g.Rules[first.Log()]) != 1 || g.Rules[second.Log()][0].Allocation.Bucket != 1 {
		t.Errorf("rules: %+v", g.Rules)
	}
}

func TestAsks(t *testing.T) { checkAsks(t, openStore(t)) }

// Numbers of one thing ascend, whatever the asker's clock says, and only what
// was seen is let go.
func checkAsks(t *testing.T, s *Store) {
	ask := func(kind proof.AskKind, name string, number, want int64) proof.Ask {
		t.Helper()
		a, err := s.Ask(t.Context(), proof.Ask{Kind: kind, Name: name, Number: number})
		must(t, err)
		equal(t, "number", a, proof.Ask{Kind: kind, Name: name, Number: want})
		return a
	}
	first := ask(proof.AskProof, "a", 100, 100)
	ask(proof.AskProof, "a", 90, 101)
	second := ask(proof.AskProof, "a", 200, 200)
	rebuild := ask(proof.AskRebuild, "a", 5, 5)
	standing := func(want ...proof.Ask) {
		t.Helper()
		got, err := s.Asks(t.Context())
		must(t, err)
		slices.SortFunc(got, func(a, b proof.Ask) int { return cmp.Compare(a.Kind, b.Kind) })
		equal(t, "asked for", got, want)
	}
	must(t, s.Answered(t.Context(), first))
	standing(second, rebuild)
	must(t, s.Answered(t.Context(), second))
	standing(rebuild)
	must(t, s.Answered(t.Context(), rebuild))
	standing()
}
