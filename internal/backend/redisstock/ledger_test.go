package redisstock_test

import (
	"testing"

	"sluice/internal/stock"
	"sluice/internal/stock/stocktest"
	"sluice/test/servers"
)

func TestConformance(t *testing.T) {
	s := servers.Redis(t)
	stocktest.Run(t, func(t *testing.T) stock.Ledger { return serve(t, s, "answer=held") })
}
