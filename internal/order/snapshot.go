package order

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"sluice/internal/pricing"
	"sluice/internal/stock"
)

// Snapshots finds the products that orders keep as they were sold. A version
// of a product never changes, so what was found once is remembered. Safe for
// concurrent use.
type Snapshots struct {
	find  func(ctx context.Context, sku stock.SKU, version int) ([]byte, error)
	mu    sync.Mutex
	known map[edition]json.RawMessage
}

type edition struct {
	sku     string
	version int
}

// maxSnapshots bounds what is remembered. One sale needs at most
// stock.MaxItems; past the bound everything is forgotten at once.
const maxSnapshots = 4096

// NewSnapshots takes a function that answers a product version as JSON.
func NewSnapshots(find func(ctx context.Context, sku stock.SKU, version int) ([]byte, error)) *Snapshots {
	return &Snapshots{find: find, known: make(map[edition]json.RawMessage)}
}

// of answers a JSON array with one product for each line.
func (s *Snapshots) of(ctx context.Context, lines []pricing.QuoteLine) ([]byte, error) {
	out := []byte{'['}
	for i, l := range lines {
		raw, err := s.one(ctx, edition{l.SKU, l.Version})
		if err != nil {
			return nil, err
		}
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, raw...)
	}
	return append(out, ']'), nil
}

func (s *Snapshots) one(ctx context.Context, e edition) (json.RawMessage, error) {
	s.mu.Lock()
	raw, ok := s.known[e]
	s.mu.Unlock()
	if ok {
		return raw, nil
	}
	raw, err := s.find(ctx, stock.SKU(e.sku), e.version)
	if err != nil {
		return nil, fmt.Errorf("product %s version %d: %w", e.sku, e.version, err)
	}
	if !json.Valid(raw) {
		return nil, fmt.Errorf("product %s version %d is not JSON", e.sku, e.version)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.known) >= maxSnapshots {
		clear(s.known)
	}
	s.known[e] = raw
	return raw, nil
}
