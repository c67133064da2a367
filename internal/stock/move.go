package stock

import (
	"fmt"
	"strconv"
	"strings"
)

// Move carries units of a SKU from one bucket of an activity to another: a
// debit there, and a credit here once the debit is in the store. Both are
// adjustments that name the move, so each happens once however often it is
// asked for. Between the two the units are in transit.
type Move struct {
	ID       string // 1..40 bytes without '-', unique in the activity
	Activity ActivityID
	SKU      SKU
	Units    int // ≥ 1
	From, To uint16
}

// Debit takes the units from bucket From.
func (m Move) Debit(at Millis) Adjustment {
	return Adjustment{ID: fmt.Sprintf("out-%d-%s", m.To, m.ID), Activity: m.Activity, SKU: m.SKU, Delta: -m.Units, At: at}
}

// Credit gives them to bucket To.
func (m Move) Credit(at Millis) Adjustment {
	return Adjustment{ID: fmt.Sprintf("in-%d-%s", m.From, m.ID), Activity: m.Activity, SKU: m.SKU, Delta: m.Units, At: at}
}

// MoveOf reads the move of which an adjustment of bucket at is the debit or
// the credit; ok is false for every other adjustment.
func MoveOf(at uint16, a *Adjustment) (m Move, debit, ok bool) {
	kind, rest, _ := strings.Cut(a.ID, "-")
	number, id, named := strings.Cut(rest, "-")
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil || !named || id == "" {
		return Move{}, false, false
	}
	m, other := Move{ID: id, Activity: a.Activity, SKU: a.SKU}, uint16(n)
	switch {
	case kind == "out" && a.Delta < 0:
		m.Units, m.From, m.To = -a.Delta, at, other
		return m, true, true
	case kind == "in" && a.Delta > 0:
		m.Units, m.From, m.To = a.Delta, other, at
		return m, false, true
	}
	return Move{}, false, false
}
