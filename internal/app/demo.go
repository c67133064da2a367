package app

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"sluice/examples"
	"sluice/internal/sale"
	"sluice/internal/stock"
)

// loadDemo fills the shop with the examples: the catalogue, and its sales, of
// which one opens within 20 s. A sale of an earlier demo that still runs is
// kept; one that is over is followed by another.
func (e *engine) loadDemo(ctx context.Context) error {
	c, err := examples.Demo()
	if err != nil {
		return err
	}
	for _, p := range c.Products {
		if _, err := e.store.SaveProduct(ctx, p); err != nil {
			return fmt.Errorf("demo: %w", err)
		}
	}
	there := map[stock.ActivityID]sale.State{}
	all, err := e.sales.List(ctx)
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	for _, a := range all {
		there[a.ID] = a.State
	}
	for _, a := range c.Activities(e.clock.Now()) {
		a.ID = free(a.ID, there)
		if a.ID == "" {
			continue
		}
		_, err := e.sales.Create(ctx, a)
		if err != nil && !errors.Is(err, sale.ErrExists) {
			return fmt.Errorf("demo: %s: %w", a.ID, err)
		}
	}
	return nil
}

// free is the first of name, name-2, name-3, … that no earlier sale has, or ""
// if one of them still runs.
func free(name stock.ActivityID, there map[stock.ActivityID]sale.State) stock.ActivityID {
	next := name
	for n := 2; ; n++ {
		state, taken := there[next]
		switch {
		case !taken:
			return next
		case state != sale.Draining && state != sale.Closed:
			return ""
		}
		next = name + "-" + stock.ActivityID(strconv.Itoa(n))
	}
}
