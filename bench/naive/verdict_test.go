package main

import (
	"testing"

	"sluice/storm"
)

func TestJudgeCounts(t *testing.T) {
	f := func(what string, r storm.Report, i item, orders map[string]int, captured int64, want finding) {
		t.Helper()
		b := ledgers{Ledger: []item{i}, Orders: orders}
		b.Payments.Captured = captured
		got := judge("s", "f", 1, r, b)
		got.Examples = nil
		want.System, want.Fault, want.Faults, want.Accepted, want.Sold = "s", "f", 1, r.Accepted, i.Held+i.Confirmed
		if got.UnitsLost != want.UnitsLost || got.Oversold != want.Oversold || got.OrdersLost != want.OrdersLost || got.ToldWrong != want.ToldWrong ||
			got.ForNothing != want.ForNothing || got.Violations != want.Violations || got.AtLeast != want.AtLeast {
			t.Errorf("%s: %+v, want %+v", what, got, want)
		}
	}
	f("clean", storm.Report{Accepted: 12, PeakHeld: 10}, item{Allocated: 10, Confirmed: 10}, map[string]int{"paid": 10, "cancelled": 2}, 10*stormPrice, finding{})
	f("units lost", storm.Report{Accepted: 7}, item{Allocated: 10, Confirmed: 7}, map[string]int{"paid": 7}, 7*stormPrice, finding{UnitsLost: 3})
	f("twice in the books", storm.Report{Accepted: 7}, item{Allocated: 10, Free: 5, Confirmed: 7}, map[string]int{"paid": 7}, 7*stormPrice, finding{Oversold: 2})
	f("promised without a unit", storm.Report{Accepted: 11}, item{Allocated: 10, Confirmed: 10}, map[string]int{"paid": 10, "refused": 1}, 10*stormPrice,
		finding{Oversold: 1, ToldWrong: 1})
	f("too many at once", storm.Report{Accepted: 12, PeakHeld: 12}, item{Allocated: 10, Confirmed: 10}, map[string]int{"paid": 10, "cancelled": 2}, 10*stormPrice,
		finding{Oversold: 2})
	f("lost, by the sentences", storm.Report{Accepted: 10, Violations: []string{
		"lost order: u0000001 got a receipt for order 5, and there is no such order",
		"order 6 of u0000002 was answered pending, and the shop never said whether it is held (not there in the end)",
		"order 5 cannot be read by its owner u0000001: 404", "u0000003 was charged 1 × 1999 EUR for order 7, and the shop knows of 0", "and 3 more",
	}}, item{Allocated: 10, Confirmed: 10}, map[string]int{"paid": 10}, 10*stormPrice,
		finding{OrdersLost: 2, ToldWrong: 3, ForNothing: 1, Violations: 7, AtLeast: true})
	f("lost, by the rows", storm.Report{Accepted: 12}, item{Allocated: 10, Confirmed: 10}, map[string]int{"paid": 10}, 10*stormPrice, finding{OrdersLost: 2, ToldWrong: 2})
	f("kept for nothing", storm.Report{Accepted: 10}, item{Allocated: 10, Confirmed: 10}, map[string]int{"paid": 10}, 12*stormPrice, finding{ForNothing: 2})
}
