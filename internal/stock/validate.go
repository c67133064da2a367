package stock

import (
	"fmt"
	"hash/fnv"
)

// maxHold bounds how long units may be held unpaid.
const maxHold = Millis(7 * 24 * 60 * 60 * 1000)

// Validate names the first field of an allocation that is out of range.
func (a Allocation) Validate() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: allocation: "+format, append([]any{ErrInvalid}, args...)...)
	}
	switch {
	case !validID(a.ID):
		return bad("id must be 1..%d bytes", MaxID)
	case !validID(string(a.Activity)):
		return bad("activity must be 1..%d bytes", MaxID)
	case a.Epoch == 0:
		return bad("epoch must be at least 1")
	case a.OpensAt <= 0 || a.ClosesAt <= a.OpensAt:
		return bad("the window must close after it opens")
	case a.Hold <= 0 || a.Hold > maxHold:
		return bad("hold must be 1..%d ms", maxHold)
	case a.PerUser < 0:
		return bad("per_user must not be negative")
	case len(a.Items) < 1 || len(a.Items) > MaxItems:
		return bad("items must be 1..%d", MaxItems)
	}
	seen := make(map[SKU]bool, len(a.Items))
	for _, it := range a.Items {
		switch {
		case !validID(string(it.SKU)):
			return bad("sku must be 1..%d bytes", MaxID)
		case seen[it.SKU]:
			return bad("sku %s stands twice", it.SKU)
		case it.Units < 0 || it.Units > MaxUnits:
			return bad("units of %s must be 0..%d", it.SKU, MaxUnits)
		case it.PerUser < 0 || it.PerOrder < 1 || it.PerOrder > MaxQuantity:
			return bad("limits of %s: per_user ≥ 0, per_order 1..%d", it.SKU, MaxQuantity)
		}
		seen[it.SKU] = true
	}
	return nil
}

func validID(s string) bool { return len(s) >= 1 && len(s) <= MaxID }

// Check refuses requests out of shape. Their lines are few, so comparing each
// with each is cheaper than a set.
func (r *Request) Check() error {
	switch {
	case !validID(string(r.User)):
		return fmt.Errorf("%w: user must be 1..%d bytes", ErrInvalid, MaxID)
	case len(r.Key) < 1 || len(r.Key) > MaxKey+8: // "late:" + payment id may be a little longer than a shopper's key
		return fmt.Errorf("%w: key must be 1..%d bytes", ErrInvalid, MaxKey)
	case !validID(string(r.Order)):
		return fmt.Errorf("%w: order must be 1..%d bytes", ErrInvalid, MaxID)
	case len(r.Lines) < 1 || len(r.Lines) > MaxLines:
		return fmt.Errorf("%w: items must be 1..%d", ErrInvalid, MaxLines)
	case len(r.Claims) > MaxClaims:
		return fmt.Errorf("%w: at most %d passes and tickets", ErrInvalid, MaxClaims)
	case len(r.Terms) > MaxTerms:
		return fmt.Errorf("%w: terms must be at most %d bytes", ErrInvalid, MaxTerms)
	case len(r.Late) > MaxID+4:
		return fmt.Errorf("%w: payment id must be at most %d bytes", ErrInvalid, MaxID)
	}
	for i, c := range r.Claims {
		if len(c) < 1 || len(c) > 128 {
			return fmt.Errorf("%w: a pass or ticket must be 1..128 bytes", ErrInvalid)
		}
		for _, d := range r.Claims[:i] {
			if c == d {
				return fmt.Errorf("%w: a pass or ticket stands twice", ErrInvalid)
			}
		}
	}
	for i, l := range r.Lines {
		if l.Quantity < 1 || l.Quantity > MaxQuantity {
			return fmt.Errorf("%w: quantity must be 1..%d", ErrInvalid, MaxQuantity)
		}
		for _, m := range r.Lines[:i] {
			if l.SKU == m.SKU {
				return fmt.Errorf("%w: a SKU stands twice", ErrInvalid)
			}
		}
	}
	return nil
}

// Check names the first field of an adjustment that is out of range.
func (a Adjustment) Check() error {
	bad := func(why string) error { return fmt.Errorf("%w: adjustment: %s", ErrInvalid, why) }
	switch {
	case len(a.ID) < 1 || len(a.ID) > maxAdjustmentID:
		return bad("id must be 1..72 bytes")
	case a.SKU == "" && (a.Delta != 0 || a.Limits != nil):
		return bad("a delta or limits of an item need its sku")
	case a.Delta > MaxUnits || a.Delta < -MaxUnits:
		return bad("delta out of range")
	case a.Limits != nil && (a.Limits.PerUser < 0 || a.Limits.PerOrder < 1 || a.Limits.PerOrder > MaxQuantity):
		return bad("limits: per_user ≥ 0, per_order 1..10000")
	case a.PerUser != nil && *a.PerUser < 0:
		return bad("per_user must not be negative")
	case a.OpensAt < 0 || a.ClosesAt < 0:
		return bad("times must be after 1970")
	case a.Hold < 0 || a.Hold > maxHold:
		return bad("hold out of range")
	case a.Phase > Closed:
		return bad("no such phase")
	case len(a.Reason) > 200:
		return bad("reason must be at most 200 bytes")
	}
	return nil
}

// digestAllocation covers what an allocation asks for, not when, and not of
// which authority: the same one may be asked for again after a restart. All
// logs there are were opened in epoch 1, so that is what it is taken for.
func digestAllocation(a Allocation) uint64 {
	a.At, a.Epoch = 0, 1
	return digest(appendAllocation(nil, &a))
}

// digestAdjustment likewise leaves the time and the reason out.
func digestAdjustment(a Adjustment) uint64 {
	a.At, a.Reason = 0, ""
	return digest(appendAdjustment(nil, &a))
}

func digest(p []byte) uint64 {
	h := fnv.New64a()
	h.Write(p)
	return h.Sum64()
}
