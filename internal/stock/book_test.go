package stock_test

import (
	"testing"

	"sluice/internal/stock"
	"sluice/internal/stock/stocktest"
)

func TestBook(t *testing.T) {
	stocktest.Run(t, func(*testing.T) stock.Ledger { return &stocktest.Local{} })
}
