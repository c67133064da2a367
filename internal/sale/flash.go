package sale

import (
	"encoding/json"
	"fmt"

	"sluice/internal/pricing"
	"sluice/internal/stock"
)

// Promotion answers one question: may this shopper have these SKUs now, and on
// what terms? After that there is one path for every kind. It decides nothing
// about stock, limits or the window, which are the ledger's.
type Promotion interface {
	// Offer answers the terms, a refusal that wraps a sentinel of stock, or ErrInvalid.
	Offer(r PurchaseRequest) (Offer, error)
}

// Offer is what the activity grants: terms to be kept with the reservation
// (pricing.Terms as JSON, shared between shoppers and never changed).
type Offer struct {
	Terms []byte
}

// flash sells each item at its fixed price to anyone.
type flash struct {
	activity Activity
	single   map[stock.SKU][][]byte // terms of one line by quantity, made once
}

// maxPrepared bounds the quantities whose terms are made in advance.
const maxPrepared = 8

func newFlash(a Activity) (flash, error) {
	f := flash{activity: a, single: map[stock.SKU][][]byte{}}
	for _, it := range a.Items {
		for q := 1; q <= min(it.PerOrder, maxPrepared); q++ {
			terms, err := f.terms([]stock.Line{{SKU: it.SKU, Quantity: q}})
			if err != nil {
				return flash{}, err
			}
			f.single[it.SKU] = append(f.single[it.SKU], terms)
		}
	}
	return f, nil
}

func (f flash) Offer(r PurchaseRequest) (Offer, error) {
	if len(r.Lines) == 1 {
		if made := f.single[r.Lines[0].SKU]; r.Lines[0].Quantity >= 1 && r.Lines[0].Quantity <= len(made) {
			return Offer{Terms: made[r.Lines[0].Quantity-1]}, nil
		}
	}
	terms, err := f.terms(r.Lines)
	return Offer{Terms: terms}, err
}

func (f flash) terms(lines []stock.Line) ([]byte, error) {
	quoted := make([]pricing.QuoteLine, len(lines))
	for i, l := range lines {
		it := f.activity.item(l.SKU)
		if it == nil {
			return nil, &stock.Refusal{Err: stock.ErrNoSuchSKU}
		}
		quoted[i] = pricing.QuoteLine{SKU: string(it.SKU), Version: it.Version, Quantity: l.Quantity, Unit: it.Price.Amount}
	}
	quote, err := pricing.PriceLines(f.activity.Items[0].Price.Currency, quoted)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", stock.ErrInvalid, err)
	}
	return json.Marshal(pricing.Terms{Quote: quote, LatePayment: f.activity.LatePayment, Restock: f.activity.Restock})
}
