package catalog_test

import (
	"errors"
	"strings"
	"testing"

	"sluice/internal/catalog"
	"sluice/internal/pricing"
)

func TestValidate(t *testing.T) {
	f := func(ok bool, change func(*catalog.Product)) {
		t.Helper()
		p := catalog.Product{ID: "cup-1", Title: "Cup", Price: pricing.Money{Amount: 1, Currency: "CNY"}}
		change(&p)
		if err := p.Validate(); (err == nil) != ok || err != nil && !errors.Is(err, catalog.ErrInvalid) {
			t.Errorf("%+v: %v", p, err)
		}
	}
	f(true, func(*catalog.Product) {})
	f(true, func(p *catalog.Product) { p.Price.Amount = 0 })
	f(false, func(p *catalog.Product) { p.ID = "" })
	f(false, func(p *catalog.Product) { p.ID = "-cup" })
	f(false, func(p *catalog.Product) { p.ID = "cup/1" })
	f(false, func(p *catalog.Product) { p.Title = "" })
	f(false, func(p *catalog.Product) { p.Title = strings.Repeat("x", 201) })
	f(false, func(p *catalog.Product) { p.Description = strings.Repeat("x", 4001) })
	f(false, func(p *catalog.Product) { p.Image = strings.Repeat("x", 501) })
	f(false, func(p *catalog.Product) { p.Price.Currency = "" })
}
