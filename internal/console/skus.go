package console

import (
	"context"
	"net/http"

	"sluice/internal/catalog"
	"sluice/internal/pricing"
	"sluice/internal/stock"
)

// products is the part of catalog.Store that operators use.
type products interface {
	SaveProduct(ctx context.Context, p catalog.Product) (catalog.Product, error)
	Products(ctx context.Context, after stock.SKU, limit int) ([]catalog.Product, error)
}

type skuInput struct {
	Body struct {
		ID          stock.SKU     `json:"id" pattern:"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$" example:"CUP-BLUE"`
		Title       string        `json:"title" minLength:"1" maxLength:"200"`
		Description string        `json:"description,omitempty" maxLength:"4000"`
		Image       string        `json:"image,omitempty" maxLength:"500" doc:"URL or path"`
		Price       pricing.Money `json:"price" doc:"List price in minor units"`
	}
}

func (in *skuInput) asked() (string, any) { return string(in.Body.ID), in.Body }

type skuPage struct {
	After string `query:"after" maxLength:"64" doc:"Only ids after this one"`
	Limit int    `query:"limit" minimum:"1" maximum:"500" default:"100" doc:"SKUs of a page"`
}

type skuList struct {
	SKUs []catalog.Product `json:"skus" nullable:"false"`
	Next stock.SKU         `json:"next,omitempty" doc:"Ask again with after= this for more"`
}

func (c *console) serveSKUs() {
	mutate(c, route("sku.save", http.MethodPost, "/v1/skus", "Create a SKU, or save a new version of it", http.StatusCreated),
		func(ctx context.Context, in *skuInput) (*reply[catalog.Product], error) {
			b := in.Body
			p := catalog.Product{ID: b.ID, Title: b.Title, Description: b.Description, Image: b.Image, Price: b.Price}
			if err := p.Validate(); err != nil {
				return nil, err
			}
			return body(c.Products.SaveProduct(ctx, p))
		})
	read(c, route("sku.list", http.MethodGet, "/v1/skus", "List SKUs by id, newest versions", http.StatusOK),
		func(ctx context.Context, in *skuPage) (*reply[skuList], error) {
			found, err := c.Products.Products(ctx, stock.SKU(in.After), in.Limit)
			list := skuList{SKUs: orEmpty(found)}
			if len(found) == in.Limit {
				list.Next = found[len(found)-1].ID
			}
			return body(list, err)
		})
}

// orEmpty makes a missing list an empty one: [] in JSON, never null.
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
