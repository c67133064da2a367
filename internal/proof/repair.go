package proof

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"sluice/internal/order"
	"sluice/internal/stock"
)

// ErrNoDrift: an audit made for the repair did not find what it is to end.
var ErrNoDrift = errors.New("the audit finds no such drift")

// Hands are the ordinary operations that repairs are made of.
type Hands struct {
	Order    func(ctx context.Context, id stock.OrderID) (order.Order, error)
	Resettle func(ctx context.Context, o order.Order) error
	GiveBack func(ctx context.Context, id stock.OrderID, capture string) error
	Redrive  func(ctx context.Context, letter int64) error
	Reland   func(ctx context.Context, id stock.ID) error
	// Rebuild has the keeper of a bucket make its engine again; nil: there are no buckets.
	Rebuild func(ctx context.Context, log stock.LogID) error
}

// audits finds the drifts of an activity: *Auditor, or *Fleet.
type audits interface {
	audit(ctx context.Context, activity stock.ActivityID) (Report, []Drift, error)
}

// repairs is where it is kept which were asked for and made.
type repairs interface {
	// Repair answers what was saved last under an id, nil if nothing was.
	Repair(ctx context.Context, activity stock.ActivityID, id string) ([]byte, error)
	SaveRepair(ctx context.Context, activity stock.ActivityID, id string, doc []byte) error
}

// RepairRequest asks for the repair of every drift of one kind that concerns
// one order, one reservation or the log of one bucket.
type RepairRequest struct {
	ID          string        `json:"id"`
	Kind        RepairKind    `json:"kind"`
	Order       stock.OrderID `json:"order,omitempty"`
	Reservation string        `json:"reservation,omitempty"`
	Log         stock.LogID   `json:"log,omitempty"`
	Reason      string        `json:"reason"`
}

// Repair is a request and what came of it.
type Repair struct {
	RepairRequest
	Drifts  []Drift   `json:"drifts"` // what was found, and repaired
	AskedAt time.Time `json:"asked_at"`
	DoneAt  time.Time `json:"done_at,omitzero"` // zero: begun, and cut off
}

// concerns says whether this drift is to be repaired.
func (ask *RepairRequest) concerns(d Drift) bool {
	return d.Kind == ask.Kind && (ask.Order == "" || d.Order == ask.Order) &&
		(ask.Reservation == "" || d.Reservation == ask.Reservation) && (ask.Log == "" || d.Log == ask.Log)
}

// Repairer repairs what the auditor finds. It takes nobody's word for a drift:
// each repair begins with an audit. Safe for concurrent use; one at a time.
type Repairer struct {
	mu      sync.Mutex
	auditor audits
	hands   Hands
	kept    repairs
	now     func() time.Time
}

// NewRepairer needs all its arguments.
func NewRepairer(a audits, h Hands, kept repairs, now func() time.Time) *Repairer {
	return &Repairer{auditor: a, hands: h, kept: kept, now: now}
}

// Repair makes a repair once: the same id again answers what came of it, and
// finishes one that was cut off; for something else it is stock.ErrConflict.
// ErrNoDrift when the audit finds nothing to repair; what the operation itself
// answers when it is refused (order.ErrState, stock.ErrOutcome,
// stock.ErrTruncated), and then the same id may be used again.
func (r *Repairer) Repair(ctx context.Context, activity stock.ActivityID, ask RepairRequest) (Repair, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	is, begun, err := r.known(ctx, activity, ask)
	if err != nil || begun && !is.DoneAt.IsZero() {
		return is, err
	}
	_, drifts, err := r.auditor.audit(ctx, activity)
	if err != nil {
		return Repair{}, err
	}
	found := []Drift{}
	for _, d := range drifts {
		if ask.concerns(d) {
			found = append(found, d)
		}
	}
	if !begun {
		if len(found) == 0 {
			return Repair{}, fmt.Errorf("%w: nothing about order %q, reservation %q, log %q needs %s", ErrNoDrift, ask.Order, ask.Reservation, ask.Log, ask.Kind)
		}
		is = Repair{RepairRequest: ask, Drifts: found, AskedAt: r.time()}
		if err := r.save(ctx, activity, is); err != nil {
			return Repair{}, err
		}
	}
	for _, d := range found {
		if err := r.end(ctx, d); err != nil {
			return Repair{}, fmt.Errorf("%s of %s: %w", d.Kind, d.of(), err)
		}
	}
	is.DoneAt = r.time()
	return is, r.save(ctx, activity, is)
}

func (r *Repairer) time() time.Time { return r.now().UTC().Truncate(time.Millisecond) }

// known finds a repair that was asked for before.
func (r *Repairer) known(ctx context.Context, activity stock.ActivityID, ask RepairRequest) (is Repair, begun bool, err error) {
	if ask.Order == "" && ask.Reservation == "" && ask.Log == "" {
		return is, false, fmt.Errorf("%w: name an order, a reservation or a bucket's log", stock.ErrInvalid)
	}
	doc, err := r.kept.Repair(ctx, activity, ask.ID)
	if err != nil || doc == nil {
		return is, false, err
	}
	if err := json.Unmarshal(doc, &is); err != nil {
		return is, false, fmt.Errorf("repair %s: %w", ask.ID, err)
	}
	if is.RepairRequest != ask {
		return is, false, fmt.Errorf("%w: repair %s", stock.ErrConflict, ask.ID)
	}
	return is, true, nil
}

func (r *Repairer) save(ctx context.Context, activity stock.ActivityID, is Repair) error {
	doc, err := json.Marshal(is)
	if err != nil {
		return fmt.Errorf("repair %s: %w", is.ID, err)
	}
	return r.kept.SaveRepair(ctx, activity, is.ID, doc)
}

// end makes the operation that ends one drift. Each is idempotent by itself.
func (r *Repairer) end(ctx context.Context, d Drift) error {
	switch d.Kind {
	case Resettle:
		o, err := r.hands.Order(ctx, d.Order)
		if err != nil {
			return err
		}
		return r.hands.Resettle(ctx, o)
	case Refund:
		return r.hands.GiveBack(ctx, d.Order, d.Capture)
	case Redrive:
		return r.hands.Redrive(ctx, d.Letter)
	case Reland:
		id, err := stock.ParseID(d.Reservation)
		if err != nil {
			return err
		}
		return r.hands.Reland(ctx, id)
	case Rebuild:
		return r.hands.Rebuild(ctx, d.Log)
	}
	return fmt.Errorf("%w: repair of kind %q", stock.ErrInvalid, d.Kind)
}
