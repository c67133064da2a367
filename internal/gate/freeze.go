package gate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"sluice/internal/stock"
)

// Freeze is a window in which the shop's configuration stays as it is. What
// operators need in an emergency is never frozen; see the ops API.
type Freeze struct {
	ID   string       `json:"id"` // given when it is planned
	From stock.Millis `json:"from"`
	To   stock.Millis `json:"to"` // not any more at this moment
	Why  string       `json:"why"`
	By   string       `json:"by"` // an operator
}

// Bounds of freezes.
const (
	MaxFreezes = 50 // that are not over
	maxWhy     = 200
	maxFrozen  = 31 * 24 * time.Hour
)

var (
	// ErrFrozen: the configuration is frozen. It is in every Frozen.
	ErrFrozen = errors.New("the configuration is frozen")
	// ErrNoSuchFreeze: no window that is planned or in force has this id.
	ErrNoSuchFreeze = errors.New("no such freeze")
)

// Frozen is the refusal of a change by a freeze.
type Frozen struct{ Freeze }

// Error says until when, and why.
func (f *Frozen) Error() string {
	return fmt.Sprintf("%v until %s: %s", ErrFrozen, f.To.Time().Format(time.RFC3339), f.Why)
}

// Unwrap is ErrFrozen.
func (f *Frozen) Unwrap() error { return ErrFrozen }

// fault answers the first fault of a window that is to be planned, a *RuleError.
func (f *Freeze) fault(now stock.Millis) error {
	switch {
	case f.To <= f.From:
		return &RuleError{"to", "must be after from"}
	case f.To <= now:
		return &RuleError{"to", "is over already"}
	case f.To-f.From > stock.Millis(maxFrozen.Milliseconds()):
		return &RuleError{"to", fmt.Sprintf("a freeze lasts for at most %s", maxFrozen)}
	case f.Why == "" || !textOf(f.Why, maxWhy):
		return &RuleError{"why", fmt.Sprintf("must have 1 to %d characters", maxWhy)}
	}
	return nil
}

// FrozenAt is the window in force at a moment, of several the one that ends
// last, or nil.
func (s *Shelf) FrozenAt(now stock.Millis) (in *Freeze) {
	for i := range s.Freezes {
		if f := &s.Freezes[i]; f.From <= now && now < f.To && (in == nil || f.To > in.To) {
			in = f
		}
	}
	return in
}

// Frozen answers the freeze in force, nil if there is none. It asks the store
// whether there is news, so that what one process has planned binds all at once.
func (p *Playbooks) Frozen(ctx context.Context) (*Freeze, error) {
	if _, err := p.Step(ctx); err != nil {
		return nil, err
	}
	return p.Shelf().FrozenAt(p.moment()), nil
}

// Freeze plans a window; a From that is 0 or has passed is now. By is taken
// from f, ID is given. The error is a *RuleError, or the store's.
func (p *Playbooks) Freeze(ctx context.Context, f Freeze) (Freeze, error) {
	now := p.moment()
	f.From = max(f.From, now)
	if err := f.fault(now); err != nil {
		return Freeze{}, err
	}
	_, err := p.edit(ctx, func(s *Shelf) (*PlaybookChange, error) {
		s.Freezes = slices.DeleteFunc(s.Freezes, func(old Freeze) bool { return old.To <= now })
		if len(s.Freezes) >= MaxFreezes {
			return nil, &RuleError{"from", fmt.Sprintf("%d windows are planned already; lift one", MaxFreezes)}
		}
		f.ID = fmt.Sprintf("f%d", s.Version+1)
		s.Freezes = append(s.Freezes, f)
		slices.SortStableFunc(s.Freezes, func(a, b Freeze) int { return cmp.Compare(a.From, b.From) })
		return &PlaybookChange{Action: FreezePlanned, Subject: f.ID, By: f.By, Note: f.Why, Freeze: &f}, nil
	})
	if err != nil {
		return Freeze{}, err
	}
	return f, nil
}

// Lift ends a window now, or gives up one that has not begun. Errors are
// ErrNoSuchFreeze, also where it is over, and the store's.
func (p *Playbooks) Lift(ctx context.Context, id, by, note string) error {
	now := p.moment()
	_, err := p.edit(ctx, func(s *Shelf) (*PlaybookChange, error) {
		i := slices.IndexFunc(s.Freezes, func(f Freeze) bool { return f.ID == id && f.To > now })
		if i < 0 {
			return nil, fmt.Errorf("%w: %s", ErrNoSuchFreeze, id)
		}
		f := s.Freezes[i]
		s.Freezes = slices.Delete(s.Freezes, i, i+1)
		return &PlaybookChange{Action: FreezeLifted, Subject: id, By: by, Note: note, Freeze: &f}, nil
	})
	return err
}
