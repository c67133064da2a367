package redisstock_test

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"sluice/internal/stock"
	"sluice/internal/stock/stocktest"
	"sluice/test/servers"
)

// Redis answers every request as a Book does, to the last detail, comes to the
// same counts, and its log replays to the same book.
func TestAgreesWithBook(t *testing.T) {
	s := serve(t, servers.Redis(t), "answer=pending")
	number := 0
	rapid.Check(t, func(rt *rapid.T) {
		number++
		a := drawAllocation(rt, fmt.Sprint("agree", number))
		if err := s.Open(t.Context(), a); err != nil {
			rt.Fatal(err)
		}
		book, opened, err := stock.NewBook(a)
		if err != nil {
			rt.Fatal(err)
		}
		d := &duel{t: t, s: s, a: a, book: book, log: []stock.Entry{opened}, now: a.At}
		rt.Repeat(map[string]func(*rapid.T){
			"reserve": d.reserve, "again": d.again, "settle": d.settle, "adjust": d.adjust, "lookup": d.lookup,
			"time": func(rt *rapid.T) { d.now += stock.Millis(rapid.IntRange(0, 30).Draw(rt, "ms")) },
			"":     d.check,
		})
		d.replay(rt)
	})
}

func drawAllocation(rt *rapid.T, activity string) stock.Allocation {
	a := stocktest.Allocation(activity, rapid.IntRange(0, 8).Draw(rt, "units"), rapid.IntRange(0, 4).Draw(rt, "limit"))
	a.Items[0].PerOrder = 3
	a.Items = append(a.Items, stock.Item{SKU: "with space % {}:'\n", Units: rapid.IntRange(0, 300).Draw(rt, "more"), PerOrder: 400})
	a.PerUser = rapid.SampledFrom([]int{0, 0, 5}).Draw(rt, "overall")
	a.OpensAt += 5 // no request is older than the allocation: Redis floors its clock at the last entry
	a.ClosesAt = a.OpensAt + 300
	return a
}

// duel puts the same to Redis and to a book.
type duel struct {
	t    *testing.T
	s    *served
	a    stock.Allocation
	book *stock.Book
	log  []stock.Entry
	made []stock.Request
	ids  []stock.Reservation
	n    int
	now  stock.Millis
}

// What random requests seldom meet: the 65th reservation of a user, ended ones
// included, and a clock that goes back.
func TestAgreesWithBookAtTheEdges(t *testing.T) {
	s := serve(t, servers.Redis(t), "answer=pending")
	a := stocktest.Allocation("edges", 100, 0)
	open(t, s, a)
	book, _, err := stock.NewBook(a)
	if err != nil {
		t.Fatal(err)
	}
	for i := range stock.MaxReservations + 2 {
		r := stocktest.Request("edges", "ann", fmt.Sprint("k", i), 1)
		r.At = a.OpensAt + stock.Millis(1000-i)
		got, gotErr := s.Ledger.Reserve(t.Context(), r)
		rec, _, wantErr := book.Reserve(&r)
		if !alike(gotErr, wantErr) || wantErr == nil && (got.At != rec.At || got.Expires != rec.Expires || got.ID != rec.ID) {
			t.Fatalf("reservation %d: redis %+v, %v; book %v", i, got, gotErr, wantErr)
		}
		if wantErr != nil {
			continue
		}
		settlement := stock.Settlement{ID: rec.ID, User: rec.User, Outcome: stock.Released, At: r.At}
		if got, err := s.Settle(t.Context(), settlement); got != stock.Released || err != nil {
			t.Fatal(got, err)
		}
		if _, _, err := book.Settle(settlement); err != nil {
			t.Fatal(err)
		}
	}
	if c := book.Counts().Items[0]; c.Free != 100 {
		t.Errorf("%+v", c)
	}
}

// kept copies an entry, which is the book's only until the next operation.
func (d *duel) kept(e *stock.Entry) {
	if e == nil {
		return
	}
	one := *e
	if e.Reservation != nil {
		r := *e.Reservation
		r.Lines = slices.Clone(r.Lines)
		one.Reservation = &r
	}
	d.log = append(d.log, one)
}

func (d *duel) reserve(rt *rapid.T) {
	d.n++
	r := stock.Request{
		Activity: d.a.Activity, User: stock.UserID(rapid.SampledFrom([]string{"ann", "bob", "cy", "user with space"}).Draw(rt, "user")),
		Key: fmt.Sprint("k", rapid.IntRange(0, 200).Draw(rt, "key")), Order: stock.OrderID(fmt.Sprint("o", d.n)), At: d.now,
		Terms: []byte(rapid.SampledFrom([]string{"", `{"total":1}`, `{"total":2}`}).Draw(rt, "terms")),
	}
	skus := []stock.SKU{d.a.Items[0].SKU, d.a.Items[1].SKU, "nowhere"}
	for range rapid.SampledFrom([]int{1, 1, 1, 2, 2, 0}).Draw(rt, "lines") {
		r.Lines = append(r.Lines, stock.Line{SKU: skus[rapid.SampledFrom([]int{0, 0, 0, 1, 1, 2}).Draw(rt, "sku")], Quantity: rapid.SampledFrom([]int{1, 1, 2, 3, 4, 200, 0}).Draw(rt, "quantity")})
	}
	for range rapid.SampledFrom([]int{0, 0, 0, 1, 2}).Draw(rt, "claims") {
		r.Claims = append(r.Claims, fmt.Sprint("c", rapid.IntRange(0, 9).Draw(rt, "claim")))
	}
	if rapid.IntRange(0, 5).Draw(rt, "late") == 0 {
		r.Late = fmt.Sprint("p", d.n)
	}
	r.Fingerprint = stocktest.FingerprintOf(r.Lines)
	d.made = append(d.made, r)
	d.ask(rt, r)
}

// again repeats an earlier request, sometimes with other terms.
func (d *duel) again(rt *rapid.T) {
	if len(d.made) == 0 {
		rt.Skip("nothing was asked yet")
	}
	r := rapid.SampledFrom(d.made).Draw(rt, "which")
	if r.At = d.now; rapid.IntRange(0, 3).Draw(rt, "change") == 0 {
		r.Fingerprint[0]++
	}
	d.ask(rt, r)
}

func (d *duel) ask(rt *rapid.T, r stock.Request) {
	got, gotErr := d.s.Ledger.Reserve(d.t.Context(), r)
	rec, e, wantErr := d.book.Reserve(&r)
	if !alike(gotErr, wantErr) {
		rt.Fatalf("reserve %+v: redis %v, book %v", r, gotErr, wantErr)
	}
	if wantErr != nil {
		return
	}
	d.kept(e)
	if e != nil {
		d.ids = append(d.ids, rec.Reservation)
	}
	d.same(rt, got, rec, e == nil)
}

func (d *duel) same(rt *rapid.T, got stock.Receipt, rec *stock.Record, replayed bool) {
	if got.State == stock.Pending {
		got.State = stock.Held
	}
	want := stock.Receipt{Reservation: rec.Reservation, Replayed: replayed}
	if len(want.Terms) == 0 {
		got.Terms, want.Terms = nil, nil
	}
	if !reflect.DeepEqual(got, want) {
		rt.Fatalf("receipt\n\tredis %+v\n\tbook  %+v", got, want)
	}
}

func (d *duel) settle(rt *rapid.T) {
	s := stock.Settlement{ID: stock.ID{Activity: d.a.Activity, Epoch: 1, Number: 999}, User: "ann", At: d.now}
	if len(d.ids) > 0 && rapid.IntRange(0, 9).Draw(rt, "known") > 0 {
		r := rapid.SampledFrom(d.ids).Draw(rt, "which")
		s.ID, s.User = r.ID, r.User
	}
	s.Outcome = rapid.SampledFrom([]stock.Outcome{stock.Confirmed, stock.Confirmed, stock.Released, stock.Expired, stock.Returned, stock.Held}).Draw(rt, "outcome")
	got, gotErr := d.s.Settle(d.t.Context(), s)
	want, e, wantErr := d.book.Settle(s)
	if got != want || !alike(gotErr, wantErr) {
		rt.Fatalf("settle %+v: redis %s, %v; book %s, %v", s, got, gotErr, want, wantErr)
	}
	d.kept(e)
}

func (d *duel) adjust(rt *rapid.T) {
	a := stock.Adjustment{ID: fmt.Sprint("d", rapid.IntRange(0, 60).Draw(rt, "id")), Activity: d.a.Activity, At: d.now, Reason: "because"}
	switch rapid.IntRange(0, 9).Draw(rt, "kind") {
	case 0:
		a.Phase = rapid.SampledFrom([]stock.Phase{stock.Paused, stock.Live, stock.Live, stock.Draining, stock.Closed, 9}).Draw(rt, "phase")
	case 1:
		n := rapid.IntRange(-1, 6).Draw(rt, "overall")
		a.PerUser = &n
	case 2:
		a.OpensAt = d.a.OpensAt + stock.Millis(rapid.IntRange(-50, 350).Draw(rt, "opens"))
	case 3:
		a.ClosesAt, a.Hold = d.a.OpensAt+stock.Millis(rapid.IntRange(-50, 500).Draw(rt, "closes")), stock.Millis(rapid.IntRange(0, 70_000).Draw(rt, "hold"))
	case 4:
		a.SKU, a.Limits = d.a.Items[1].SKU, &stock.ItemLimits{PerUser: rapid.IntRange(0, 300).Draw(rt, "per user"), PerOrder: rapid.IntRange(0, 300).Draw(rt, "per order")}
	default:
		a.SKU = rapid.SampledFrom([]stock.SKU{d.a.Items[0].SKU, d.a.Items[1].SKU, "nowhere"}).Draw(rt, "sku")
		a.Delta = rapid.SampledFrom([]int{1, 2, 5, -1, -2, -5, 300, stock.MaxUnits}).Draw(rt, "delta")
	}
	gotErr := d.s.Adjust(d.t.Context(), a)
	e, wantErr := d.book.Adjust(a)
	if !alike(gotErr, wantErr) {
		rt.Fatalf("adjust %+v: redis %v, book %v", a, gotErr, wantErr)
	}
	d.kept(e)
}

func (d *duel) lookup(rt *rapid.T) {
	if len(d.ids) == 0 {
		rt.Skip("nothing was accepted yet")
	}
	r := rapid.SampledFrom(d.ids).Draw(rt, "which")
	for _, ref := range []stock.Ref{{ID: r.ID, User: r.User}, {Activity: r.ID.Activity, User: r.User, Key: r.Key}, {User: r.User, Order: r.Order},
		{Activity: r.ID.Activity, User: r.User, Order: r.Order}} {
		if ref.Activity == "" && ref.Order != "" {
			ref.Activity = d.a.Activity // the same order ids stand in the activities of other runs
		}
		got, err := d.s.Lookup(d.t.Context(), ref)
		if err != nil {
			rt.Fatalf("lookup %+v: %v", ref, err)
		}
		rec, err := d.book.Find(r.ID)
		if err != nil {
			rt.Fatal(err)
		}
		d.same(rt, got, rec, true)
	}
	for _, ref := range []stock.Ref{{ID: r.ID, User: "dee"}, {Activity: r.ID.Activity, User: "dee", Key: r.Key}, {User: "dee", Order: r.Order}, {User: r.User}, {ID: r.ID}} {
		if got, err := d.s.Lookup(d.t.Context(), ref); !errors.Is(err, stock.ErrNoSuchReservation) {
			rt.Fatalf("lookup %+v: %+v, %v", ref, got, err)
		}
	}
}

func (d *duel) check(rt *rapid.T) {
	got, err := d.s.Counts(d.t.Context(), d.a.Activity)
	want := d.book.Counts()
	if got.Position.Position != uint64(len(d.log)-1) {
		rt.Fatalf("%d entries, the counts are at %+v", len(d.log)-1, got.Position)
	}
	if got.Position = want.Position; err != nil || !reflect.DeepEqual(got, want) {
		rt.Fatalf("counts\n\tredis %+v, %v\n\tbook  %+v", got, err, want)
	}
}

// replay rebuilds a book from the log that Redis has.
func (d *duel) replay(rt *rapid.T) {
	i := 0
	for got, err := range d.s.Tail(d.t.Context(), stock.Cursor{Log: stock.Place{Activity: d.a.Activity}.Log(), Epoch: 1}) {
		if err != nil {
			rt.Fatal(err)
		}
		i++
		if i >= len(d.log) {
			rt.Fatalf("entry %d too many: %+v", i, got)
		}
		want := d.log[i]
		want.Cursor, want.Sequence = got.Cursor, want.Sequence-1 // a book's own log begins with its opening
		if w := want.Reservation; w != nil {
			w.State = got.Reservation.State
			if len(w.Terms) == 0 {
				w.Terms = got.Reservation.Terms
			}
		}
		if !reflect.DeepEqual(got, want) {
			rt.Fatalf("entry %d\n\tredis %+v\n\tbook  %+v", i, show(got), show(want))
		}
	}
	if i != len(d.log)-1 {
		rt.Fatalf("%d entries, want %d", i, len(d.log)-1)
	}
}

func show(e stock.Entry) string {
	return fmt.Sprintf("%d of kind %d at %v: %+v %+v %+v", e.Sequence, e.Kind, e.Cursor, e.Adjustment, e.Reservation, e.Settlement)
}

// alike says whether two errors mean the same to a caller.
func alike(a, b error) bool {
	var x, y *stock.Refusal
	if errors.As(a, &x) != errors.As(b, &y) {
		return false
	}
	if x != nil {
		return *x == *y
	}
	for _, s := range []error{stock.ErrNoSuchActivity, stock.ErrNoSuchSKU, stock.ErrNoSuchReservation, stock.ErrInvalid, stock.ErrNotOpen, stock.ErrPaused,
		stock.ErrEnded, stock.ErrMismatch, stock.ErrClaimUsed, stock.ErrOutcome, stock.ErrConflict, stock.ErrUnknown, stock.ErrOverloaded, stock.ErrNotReady} {
		if errors.Is(a, s) != errors.Is(b, s) {
			return false
		}
	}
	return (a == nil) == (b == nil)
}
