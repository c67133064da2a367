package pricing

import "fmt"

// Quote is a price with its explanation: what each line costs and why.
type Quote struct {
	Currency string      `json:"currency"`
	Total    int64       `json:"total"` // minor units, the sum of the lines
	Lines    []QuoteLine `json:"lines"`
}

// QuoteLine prices Quantity units of one SKU. Version is the product version
// that was shown, so that the order can keep an immutable snapshot of it.
type QuoteLine struct {
	SKU      string `json:"sku"`
	Version  int    `json:"version"`
	Quantity int    `json:"quantity"`
	Unit     int64  `json:"unit"`  // minor units for one
	Total    int64  `json:"total"` // minor units for the line
}

// Money is the quote's total.
func (q Quote) Money() Money { return Money{q.Total, q.Currency} }

// LatePolicy says what happens to money that arrives after cancellation.
type LatePolicy string

const (
	// RereserveOrRefund tries to hold units again at the original quote, else refunds.
	RereserveOrRefund LatePolicy = "rereserve_or_refund"
	// AlwaysRefund gives the money back.
	AlwaysRefund LatePolicy = "refund"
)

// Terms are what an activity granted a shopper: the quote and the policies
// that hold for this order whatever the activity becomes later. They travel
// with the reservation as JSON, so history cannot change under an order.
type Terms struct {
	Quote
	LatePayment LatePolicy `json:"late_payment"`
	Restock     bool       `json:"restock"` // a refund returns the units to the sale
}

// PriceLines quotes lines at their unit prices, all of one currency.
// It sets each line's Total and refuses amounts out of range.
func PriceLines(currency string, lines []QuoteLine) (Quote, error) {
	q := Quote{Currency: currency, Lines: lines}
	for i := range lines {
		l := &lines[i]
		if l.Quantity < 1 || l.Unit < 0 || (l.Unit > 0 && int64(l.Quantity) > MaxAmount/l.Unit) {
			return Quote{}, fmt.Errorf("%w: %d × %d of %s", ErrMoney, l.Quantity, l.Unit, l.SKU)
		}
		l.Total = l.Unit * int64(l.Quantity)
		q.Total += l.Total
	}
	if q.Total > MaxAmount {
		return Quote{}, fmt.Errorf("%w: total %d", ErrMoney, q.Total)
	}
	return q, nil
}
