package order

import (
	"context"
	"encoding/json"

	"sluice/internal/pricing"
	"sluice/internal/stock"
)

// offers remembers what the entries of one offer share. Nearly all entries of a
// sale carry the very same bytes as terms, and decoding them again for each
// costs as much as all else that is done before the store is asked. Orders of
// one offer share their terms and products, which nobody may change.
//
// It belongs to one goroutine.
type offers struct {
	snapshots *Snapshots
	known     map[string]*offer // by terms as they stand in the log
}

type offer struct {
	terms    pricing.Terms
	products []byte // once they were asked for
}

// maxOffers bounds what is remembered; past it everything is forgotten at once,
// so that a sale whose every buyer has other terms costs no more than decoding.
const maxOffers = 1024

func newOffers(s *Snapshots) *offers {
	return &offers{s, make(map[string]*offer)}
}

// terms decodes what was not decoded before.
func (o *offers) terms(raw []byte) (pricing.Terms, error) {
	if known := o.known[string(raw)]; known != nil {
		return known.terms, nil
	}
	t, err := readTerms(raw)
	if err != nil {
		return t, err
	}
	if len(o.known) >= maxOffers {
		clear(o.known)
	}
	o.known[string(raw)] = &offer{terms: t}
	return t, nil
}

// products are the snapshots for an entry whose terms were just read.
func (o *offers) products(ctx context.Context, r *stock.Reservation) ([]byte, error) {
	offer := o.known[string(r.Terms)]
	if offer.products == nil {
		products, err := o.snapshots.of(ctx, offer.terms.Lines)
		if err != nil {
			return nil, err
		}
		offer.products = products
	}
	return offer.products, nil
}

func readTerms(raw []byte) (t pricing.Terms, err error) {
	err = json.Unmarshal(raw, &t)
	return t, err
}
