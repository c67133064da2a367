package order

import (
	"testing"

	"sluice/internal/payment"
	"sluice/internal/pricing"
	"sluice/internal/stock"
)

// A payment that fails after the time to pay does not hold the unit longer.
func TestFailureAfterExpiryHoldsTheUnit(t *testing.T) {
	o := Order{ID: "1", State: Created, CreatedAt: 0, ExpiresAt: 5000,
		Money: Money{Payments: []Payment{{ID: "1-1", Amount: pricing.Money{Amount: 5, Currency: "EUR"}, State: PaymentStarted, CheckAt: 7000}}}}
	now := stock.Millis(5001)
	if _, _, err := o.receive(payment.Status{PaymentID: "1-1", State: payment.Failed}, now); err != nil {
		t.Fatal(err)
	}
	o.schedule(now, 0, 0)
	if o.CheckAt > now {
		t.Errorf("the time-out of %d is looked at in %d ms", o.ExpiresAt, o.CheckAt-now)
	}
}
