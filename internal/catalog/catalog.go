// Package catalog is the authority on products: title, description, image and
// list price of each SKU, by version. Versions are immutable once saved, so
// that an order can keep the product as it was sold.
package catalog

import (
	"context"
	"errors"
	"fmt"
	"regexp"

	"sluice/internal/pricing"
	"sluice/internal/stock"
)

var (
	// ErrNoSuchSKU: the catalogue does not know the SKU or the version.
	ErrNoSuchSKU = errors.New("no such SKU in the catalogue")
	// ErrInvalid: a field of a product is out of range.
	ErrInvalid = errors.New("invalid product")
)

// Product describes one SKU. Version is 1, 2, … with each change.
type Product struct {
	ID          stock.SKU     `json:"id"`
	Version     int           `json:"version"`
	Title       string        `json:"title"`       // 1..200 bytes
	Description string        `json:"description"` // ≤ 4,000 bytes
	Image       string        `json:"image"`       // URL or path, ≤ 500 bytes
	Price       pricing.Money `json:"price"`
}

// Store keeps every version of every product.
type Store interface {
	// SaveProduct stores p as the next version and returns it; a product equal
	// to the newest version is that version again.
	SaveProduct(ctx context.Context, p Product) (Product, error)
	// Product reads a version, 0 for the newest, or ErrNoSuchSKU.
	Product(ctx context.Context, id stock.SKU, version int) (Product, error)
	// Products lists the newest versions with id > after, at most limit (1..500).
	Products(ctx context.Context, after stock.SKU, limit int) ([]Product, error)
}

// ID is the form of SKU and activity ids: they appear in URLs and log records.
var ID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`)

// Validate names the first field out of range.
func (p Product) Validate() error {
	bad := func(field, why string) error { return fmt.Errorf("%w: %s %s", ErrInvalid, field, why) }
	switch {
	case !ID.MatchString(string(p.ID)):
		return bad("id", "must be 1..64 letters, digits, '-' or '_'")
	case len(p.Title) < 1 || len(p.Title) > 200:
		return bad("title", "must be 1..200 bytes")
	case len(p.Description) > 4000:
		return bad("description", "must be at most 4000 bytes")
	case len(p.Image) > 500:
		return bad("image", "must be at most 500 bytes")
	}
	if err := p.Price.Validate(); err != nil {
		return fmt.Errorf("%w: price: %w", ErrInvalid, err)
	}
	return nil
}
