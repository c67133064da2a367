package pricing

import (
	"errors"
	"testing"

	"pgregory.net/rapid"
)

func TestMoney(t *testing.T) {
	f := func(m Money, ok bool) {
		t.Helper()
		if err := m.Validate(); (err == nil) != ok || err != nil && !errors.Is(err, ErrMoney) {
			t.Errorf("%v: %v", m, err)
		}
	}
	f(Money{0, "CNY"}, true)
	f(Money{MaxAmount, "EUR"}, true)
	f(Money{MaxAmount + 1, "EUR"}, false)
	f(Money{-1, "EUR"}, false)
	f(Money{1, "eur"}, false)
	f(Money{1, "EURO"}, false)
	f(Money{1, ""}, false)
}

func TestPriceLines(t *testing.T) {
	f := func(want int64, ok bool, lines ...QuoteLine) {
		t.Helper()
		q, err := PriceLines("CNY", lines)
		if (err == nil) != ok || q.Total != want || err != nil && !errors.Is(err, ErrMoney) {
			t.Errorf("%v: %d, %v; want %d", lines, q.Total, err, want)
		}
	}
	f(0, true, QuoteLine{Quantity: 3, Unit: 0})
	f(700, true, QuoteLine{Quantity: 2, Unit: 100}, QuoteLine{Quantity: 1, Unit: 500})
	f(0, false, QuoteLine{Quantity: 0, Unit: 100})
	f(0, false, QuoteLine{Quantity: 1, Unit: -1})
	f(0, false, QuoteLine{Quantity: 10_000, Unit: MaxAmount})
	f(0, false, QuoteLine{Quantity: 1, Unit: MaxAmount}, QuoteLine{Quantity: 1, Unit: 1})
}

// Whatever is asked, a quote's lines add up to its total, which is in range.
func TestLinesAddUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lines := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) QuoteLine {
			return QuoteLine{Quantity: rapid.IntRange(-1, 10_000).Draw(t, "quantity"), Unit: rapid.Int64().Draw(t, "unit")}
		}), 1, 16).Draw(t, "lines")
		q, err := PriceLines("CNY", lines)
		if err != nil {
			return
		}
		var sum int64
		for _, l := range q.Lines {
			if l.Total != l.Unit*int64(l.Quantity) || l.Total < 0 {
				t.Fatalf("line %+v", l)
			}
			sum += l.Total
		}
		if sum != q.Total || q.Money().Validate() != nil {
			t.Fatalf("total %d of lines that come to %d", q.Total, sum)
		}
	})
}
