package sqlstore

import (
	"testing"

	"sluice/internal/order"
	"sluice/internal/order/ordertest"
)

func TestOrders(t *testing.T) {
	ordertest.Run(t, func(t *testing.T) order.Store { return openStore(t) })
}
