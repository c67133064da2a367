// Package pricing turns rules into a Quote: the price a shopper is granted,
// with its explanation. It owns Money and is pure: no clock, no I/O.
//
// Invariants: a total is never negative; lines add up to the total.
package pricing

import (
	"errors"
	"fmt"
	"math"
)

// ErrMoney: an amount out of range or a currency that is not three capitals.
var ErrMoney = errors.New("invalid money")

// MaxAmount bounds every amount, so that a sum of MaxLines products cannot overflow.
const MaxAmount = math.MaxInt64 / (1 << 20)

// Money is an integer count of the currency's minor unit and an ISO 4217 code.
type Money struct {
	Amount   int64  `json:"amount"`
	Currency string `json:"currency"`
}

// Validate checks that the amount is 0..MaxAmount and the code three capitals.
func (m Money) Validate() error {
	if m.Amount < 0 || m.Amount > MaxAmount {
		return fmt.Errorf("%w: amount %d is not in 0..%d", ErrMoney, m.Amount, int64(MaxAmount))
	}
	if len(m.Currency) != 3 {
		return fmt.Errorf("%w: currency %q is not a three-letter ISO 4217 code", ErrMoney, m.Currency)
	}
	for _, c := range []byte(m.Currency) {
		if c < 'A' || c > 'Z' {
			return fmt.Errorf("%w: currency %q is not a three-letter ISO 4217 code", ErrMoney, m.Currency)
		}
	}
	return nil
}

func (m Money) String() string { return fmt.Sprintf("%d %s", m.Amount, m.Currency) }
