package stocktest

import (
	"errors"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"sluice/internal/stock"
)

// Model runs random operations on a ledger and on a model that is too plain to
// be wrong: a list of everything accepted, counted anew for each question.
func Model(t *testing.T, open func(t *testing.T) stock.Ledger) {
	ledger := open(t)
	activity := 0
	rapid.Check(t, func(rt *rapid.T) {
		activity++
		m := &model{
			t: rt, ledger: ledger, activity: stock.ActivityID(fmt.Sprint("model", activity)), now: zero,
			units:   map[stock.SKU]int{"a": rapid.IntRange(0, 6).Draw(rt, "a"), "b": rapid.IntRange(0, 6).Draw(rt, "b")},
			perUser: rapid.IntRange(0, 4).Draw(rt, "per_user"),
			phase:   stock.Live,
			claims:  map[string]bool{},
		}
		a := stock.Allocation{
			ID: "open", Activity: m.activity, Epoch: 1, OpensAt: zero + 10, ClosesAt: zero + 500, Hold: 1000, PerUser: m.perUser, At: zero,
			Items: []stock.Item{{SKU: "a", Units: m.units["a"], PerUser: 2, PerOrder: 2}, {SKU: "b", Units: m.units["b"], PerUser: 0, PerOrder: 3}},
		}
		if err := ledger.Open(t.Context(), a); err != nil {
			rt.Fatal(err)
		}
		rt.Repeat(map[string]func(*rapid.T){
			"reserve": m.reserve, "settle": m.settle, "adjust": m.adjust, "time": m.time, "": m.check,
		})
	})
}

type model struct {
	t        *rapid.T
	ledger   stock.Ledger
	activity stock.ActivityID
	now      stock.Millis
	units    map[stock.SKU]int
	perUser  int
	phase    stock.Phase
	taken    []stock.Receipt
	claims   map[string]bool
	adjusts  int
}

func (m *model) time(t *rapid.T) { m.now += stock.Millis(rapid.IntRange(0, 60).Draw(t, "ms")) }

// holding sums the units in a state that pick chooses.
func (m *model) sum(pick func(stock.Receipt) bool, sku stock.SKU) (n int) {
	for _, r := range m.taken {
		for _, l := range r.Lines {
			if l.SKU == sku && pick(r) {
				n += l.Quantity
			}
		}
	}
	return n
}

func (m *model) free(sku stock.SKU) int {
	return m.units[sku] - m.sum(func(r stock.Receipt) bool { return r.State == stock.Held || r.State == stock.Confirmed }, sku)
}

func (m *model) reserve(t *rapid.T) {
	user := stock.UserID(rapid.SampledFrom([]string{"ann", "bob", "cy"}).Draw(t, "user"))
	r := stock.Request{
		Activity: m.activity, User: user, Key: fmt.Sprint("k", rapid.IntRange(0, 12).Draw(t, "key")),
		Order: stock.OrderID(fmt.Sprint("o", len(m.taken))), At: m.now,
	}
	for _, sku := range rapid.SampledFrom([][]stock.SKU{{"a"}, {"b"}, {"a", "b"}}).Draw(t, "skus") {
		r.Lines = append(r.Lines, stock.Line{SKU: sku, Quantity: rapid.IntRange(1, 4).Draw(t, "quantity")})
	}
	if rapid.IntRange(0, 3).Draw(t, "claims") == 0 {
		r.Claims = []string{fmt.Sprint("c", rapid.IntRange(0, 5).Draw(t, "claim"))}
	}
	r.Fingerprint = FingerprintOf(r.Lines)
	replay, want := m.expect(r)
	got, err := m.ledger.Reserve(t.Context(), r)
	switch {
	case want != nil:
		if !errors.Is(err, want) {
			t.Fatalf("reserve %+v: got %v, want %v", r, err, want)
		}
	case err != nil:
		t.Fatalf("reserve %+v: %v", r, err)
	case replay != nil:
		if !got.Replayed || got.ID != replay.ID || got.Order != replay.Order || got.State != replay.State || got.Expires != replay.Expires {
			t.Fatalf("replay: got %+v, want %+v", got, *replay)
		}
	default:
		if got.Replayed || got.State != stock.Held || got.Expires != got.At+1000 {
			t.Fatalf("accepted: %+v", got)
		}
		m.taken = append(m.taken, got)
		for _, c := range r.Claims {
			m.claims[c] = true
		}
	}
}

// expect says what the contract asks for.
func (m *model) expect(r stock.Request) (replay *stock.Receipt, refusal error) {
	for i := range m.taken {
		if k := &m.taken[i]; k.User == r.User && k.Key == r.Key {
			if k.Fingerprint != r.Fingerprint {
				return nil, stock.ErrMismatch
			}
			return k, nil
		}
	}
	for _, c := range r.Claims {
		if m.claims[c] {
			return nil, stock.ErrClaimUsed
		}
	}
	switch {
	case m.phase >= stock.Draining || r.At >= zero+500:
		return nil, stock.ErrEnded
	case r.At < zero+10:
		return nil, stock.ErrNotOpen
	case m.phase == stock.Paused:
		return nil, stock.ErrPaused
	}
	total := 0
	for _, l := range r.Lines {
		if l.SKU == "a" && l.Quantity > 2 || l.SKU == "b" && l.Quantity > 3 {
			return nil, stock.ErrLimit
		}
		total += l.Quantity
	}
	mine := func(k stock.Receipt) bool {
		return k.User == r.User && (k.State == stock.Held || k.State == stock.Confirmed)
	}
	for _, l := range r.Lines {
		if l.SKU == "a" && m.sum(mine, "a")+l.Quantity > 2 {
			return nil, stock.ErrLimit
		}
	}
	if m.perUser > 0 && m.sum(mine, "a")+m.sum(mine, "b")+total > m.perUser {
		return nil, stock.ErrLimit
	}
	for _, l := range r.Lines {
		free := m.free(l.SKU)
		switch {
		case free >= l.Quantity:
			continue
		case free > 0:
			return nil, stock.ErrInsufficient
		case m.sum(func(k stock.Receipt) bool { return k.State == stock.Held }, l.SKU) > 0:
			return nil, stock.ErrAllHeld
		default:
			return nil, stock.ErrSoldOut
		}
	}
	return nil, nil
}

func (m *model) settle(t *rapid.T) {
	if len(m.taken) == 0 {
		t.Skip("nothing to settle")
	}
	k := &m.taken[rapid.IntRange(0, len(m.taken)-1).Draw(t, "which")]
	want := rapid.SampledFrom([]stock.Outcome{stock.Confirmed, stock.Released, stock.Expired, stock.Returned}).Draw(t, "outcome")
	may := k.State == stock.Held && want != stock.Returned || k.State == stock.Confirmed && want == stock.Returned
	stands := k.State == want || k.State == stock.Returned && want == stock.Confirmed
	got, err := m.ledger.Settle(t.Context(), stock.Settlement{ID: k.ID, User: k.User, Outcome: want, At: m.now})
	if may {
		k.State = want
	}
	if got != k.State || (may || stands) != (err == nil) || err != nil && !errors.Is(err, stock.ErrOutcome) {
		t.Fatalf("settle %s as %s: got %s, %v; it was %s", k.ID, want, got, err, k.State)
	}
}

func (m *model) adjust(t *rapid.T) {
	m.adjusts++
	a := stock.Adjustment{ID: fmt.Sprint("d", m.adjusts), Activity: m.activity, At: m.now}
	var want error
	switch rapid.IntRange(0, 4).Draw(t, "kind") {
	case 0:
		a.Phase = rapid.SampledFrom([]stock.Phase{stock.Live, stock.Paused, stock.Paused, stock.Live, stock.Live, stock.Draining}).Draw(t, "phase")
		if a.Phase < m.phase && m.phase >= stock.Draining {
			want = stock.ErrEnded
		}
	default:
		a.SKU = rapid.SampledFrom([]stock.SKU{"a", "b"}).Draw(t, "sku")
		a.Delta = rapid.IntRange(-3, 3).Draw(t, "delta")
		if a.Delta < 0 && m.free(a.SKU) < -a.Delta {
			want = stock.ErrInsufficient
		}
	}
	for range 2 { // the second time changes nothing
		if err := m.ledger.Adjust(t.Context(), a); !errors.Is(err, want) {
			t.Fatalf("adjust %+v: got %v, want %v", a, err, want)
		}
	}
	if want == nil && a.Phase != 0 {
		m.phase = a.Phase
	}
	if want == nil && a.SKU != "" {
		m.units[a.SKU] += a.Delta
	}
}

func (m *model) check(t *rapid.T) {
	c, err := m.ledger.Counts(t.Context(), m.activity)
	if err != nil {
		t.Fatal(err)
	}
	for _, it := range c.Items {
		held := m.sum(func(r stock.Receipt) bool { return r.State == stock.Held }, it.SKU)
		confirmed := m.sum(func(r stock.Receipt) bool { return r.State == stock.Confirmed }, it.SKU)
		if it.Free != m.free(it.SKU) || it.Held != held || it.Confirmed != confirmed || it.Allocated != m.units[it.SKU] ||
			it.Level != stock.LevelOf(it.Allocated, it.Free, it.Held) {
			t.Fatalf("counts %+v; want %d free, %d held, %d confirmed", it, m.free(it.SKU), held, confirmed)
		}
	}
}
