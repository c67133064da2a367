package stock

import "fmt"

// transitions are all ways a reservation may go; every other one is refused.
var transitions = map[State][]Outcome{
	Held:      {Confirmed, Released, Expired},
	Confirmed: {Returned},
}

// Settle ends a reservation and answers the outcome that stands. A nil entry
// means that nothing changed: the outcome stood already, or ErrOutcome.
func (b *Book) Settle(s Settlement) (Outcome, *Entry, error) {
	if s.Outcome != Confirmed && s.Outcome != Released && s.Outcome != Expired && s.Outcome != Returned {
		return 0, nil, fmt.Errorf("%w: outcome %s", ErrInvalid, s.Outcome)
	}
	rec, err := b.Find(s.ID)
	if err != nil {
		return 0, nil, err
	}
	if rec.State == s.Outcome || rec.State == Returned && s.Outcome == Confirmed { // it was confirmed, on its way
		return rec.State, nil, nil
	}
	if !allowed(rec.State, s.Outcome) {
		return rec.State, nil, fmt.Errorf("%w: %s is %s, asked for %s", ErrOutcome, s.ID, rec.State, s.Outcome)
	}
	s.At = max(s.At, b.last)
	b.settle(rec, s)
	e := b.entry(EntrySettled, func(e *Entry) { e.Settlement = &Settlement{ID: rec.ID, Outcome: s.Outcome, At: s.At} })
	return s.Outcome, &e, nil
}

func allowed(from State, to Outcome) bool {
	for _, o := range transitions[from] {
		if o == to {
			return true
		}
	}
	return false
}

func (b *Book) settle(rec *Record, s Settlement) {
	b.sequence++
	b.last = s.At
	for _, l := range rec.Lines {
		it := &b.items[b.find(l.SKU)]
		switch s.Outcome {
		case Confirmed:
			it.held -= l.Quantity
			it.confirmed += l.Quantity
		case Released, Expired:
			it.held -= l.Quantity
			it.free += l.Quantity
		case Returned:
			it.confirmed -= l.Quantity
			it.free += l.Quantity
			it.returned += l.Quantity
		}
	}
	rec.State = s.Outcome
}
