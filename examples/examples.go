// Package examples is what a demo sells: a dozen products with drawn pictures,
// and sales that open a little after the demo starts.
//
// A title or description in two languages is written "English · 中文", or one
// language a line; the storefront shows the reader's.
package examples

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"time"

	"sluice/internal/catalog"
	"sluice/internal/pricing"
	"sluice/internal/sale"
	"sluice/internal/stock"
)

//go:embed demo.json
var source []byte

//go:embed images/*.svg
var images embed.FS

// Images are the pictures by file name; products refer to them as "/images/<name>".
func Images() fs.FS {
	sub, err := fs.Sub(images, "images")
	if err != nil {
		panic(err) // the name is a constant: it is valid or nothing compiles
	}
	return sub
}

// Catalogue is the demo's goods and sales.
type Catalogue struct {
	Products []catalog.Product
	sales    []template
}

// template is a sale whose window is relative to the start of the demo.
type template struct {
	ID          stock.ActivityID `json:"id"`
	Title       string           `json:"title"`
	OpensIn     span             `json:"opens_in"`
	OpenFor     span             `json:"open_for"`
	HoldSeconds int              `json:"hold_seconds"`
	PerUser     int              `json:"per_user"`
	Items       []struct {
		SKU      stock.SKU `json:"sku"`
		Price    int64     `json:"price"` // minor units, in the product's currency
		Units    int       `json:"units"`
		PerUser  int       `json:"per_user"`
		PerOrder int       `json:"per_order"`
	} `json:"items"`
}

type span time.Duration

func (s *span) UnmarshalText(text []byte) error {
	d, err := time.ParseDuration(string(text))
	*s = span(d)
	return err
}

// Demo reads the embedded catalogue. An error means that the file in the
// source tree is wrong.
func Demo() (Catalogue, error) {
	var file struct {
		Products   []catalog.Product `json:"products"`
		Activities []template        `json:"activities"`
	}
	in := json.NewDecoder(bytes.NewReader(source))
	in.DisallowUnknownFields()
	if err := in.Decode(&file); err != nil {
		return Catalogue{}, fmt.Errorf("demo catalogue: %w", err)
	}
	currency := map[stock.SKU]string{}
	for _, p := range file.Products {
		if err := p.Validate(); err != nil {
			return Catalogue{}, fmt.Errorf("demo catalogue: %s: %w", p.ID, err)
		}
		currency[p.ID] = p.Price.Currency
	}
	for _, a := range file.Activities {
		for _, i := range a.Items {
			if currency[i.SKU] == "" {
				return Catalogue{}, fmt.Errorf("demo catalogue: %s sells %s: %w", a.ID, i.SKU, catalog.ErrNoSuchSKU)
			}
		}
	}
	return Catalogue{Products: file.Products, sales: file.Activities}, nil
}

// Activities are the demo's sales for a demo that starts at now, as drafts.
// The first opens 15 s later.
func (c Catalogue) Activities(now time.Time) []sale.Activity {
	currency := map[stock.SKU]string{}
	for _, p := range c.Products {
		currency[p.ID] = p.Price.Currency
	}
	out := make([]sale.Activity, 0, len(c.sales))
	for _, t := range c.sales {
		opens := now.Add(time.Duration(t.OpensIn))
		a := sale.Activity{
			ID:          t.ID,
			Kind:        "flash",
			Title:       t.Title,
			State:       sale.Draft,
			OpensAt:     stock.MillisOf(opens),
			ClosesAt:    stock.MillisOf(opens.Add(time.Duration(t.OpenFor))),
			HoldSeconds: t.HoldSeconds,
			PerUser:     t.PerUser,
			LatePayment: pricing.RereserveOrRefund,
			Restock:     true,
		}
		for _, i := range t.Items {
			a.Items = append(a.Items, sale.Item{
				SKU: i.SKU, Price: pricing.Money{Amount: i.Price, Currency: currency[i.SKU]},
				Units: i.Units, PerUser: i.PerUser, PerOrder: i.PerOrder,
			})
		}
		out = append(out, a)
	}
	return out
}
