package sqlstore

import (
	"context"
	"database/sql/driver"
	"encoding/json"
	"fmt"

	"sluice/internal/catalog"
	"sluice/internal/stock"
)

const newestProduct = "SELECT doc FROM products WHERE id = ? ORDER BY version DESC LIMIT 1"

// SaveProduct implements catalog.Store.
func (s *Store) SaveProduct(ctx context.Context, p catalog.Product) (catalog.Product, error) {
	err := s.writing(ctx, "save product", func(c *conn) error {
		row, found, err := c.one(newestProduct, string(p.ID))
		if err != nil {
			return err
		}
		p.Version = 1
		if found {
			var newest catalog.Product
			if err := json.Unmarshal(blob(row[0]), &newest); err != nil {
				return fmt.Errorf("product %s: %w", p.ID, err)
			}
			if p.Version = newest.Version; p == newest {
				return nil
			}
			p.Version++
		}
		doc, err := json.Marshal(p)
		if err != nil {
			return err
		}
		_, err = c.exec("INSERT INTO products (id, version, doc) VALUES (?, ?, ?)", string(p.ID), p.Version, doc)
		return raced(err)
	})
	return p, err
}

// Product implements catalog.Store.
func (s *Store) Product(ctx context.Context, id stock.SKU, version int) (p catalog.Product, err error) {
	err = s.reading(ctx, "product", func(c *conn) error {
		query, values := newestProduct, []any{string(id)}
		if version != 0 {
			query, values = "SELECT doc FROM products WHERE id = ? AND version = ?", append(values, version)
		}
		row, ok, err := c.one(query, values...)
		if err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("%w: %.64q version %d", catalog.ErrNoSuchSKU, string(id), version)
		}
		return json.Unmarshal(blob(row[0]), &p)
	})
	return p, err
}

// maxProducts bounds a page of products.
const maxProducts = 500

// Products implements catalog.Store.
func (s *Store) Products(ctx context.Context, after stock.SKU, limit int) (page []catalog.Product, err error) {
	if limit < 1 || limit > maxProducts {
		return nil, fmt.Errorf("store: products: %w: limit %d is not in 1..%d", catalog.ErrInvalid, limit, maxProducts)
	}
	err = s.reading(ctx, "products", func(c *conn) error {
		return c.query(ctx, `SELECT p.doc FROM products p WHERE p.id > ?
			AND p.version = (SELECT max(q.version) FROM products q WHERE q.id = p.id)
			ORDER BY p.id LIMIT ?`,
			func(row []driver.Value) error {
				var p catalog.Product
				err := json.Unmarshal(blob(row[0]), &p)
				page = append(page, p)
				return err
			}, string(after), limit)
	})
	return page, err
}
