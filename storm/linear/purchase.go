package linear

import "fmt"

// purchase is a key that was accepted once, or may have been: its effect is
// one thing, though any number of requests may have caused it or shown it. A key
// whose purchase an engine has lost may buy once more: that is another one.
type purchase struct {
	user, key, sku, id string // id "": nothing has named its reservation
	quantity           int

	from, by  int64 // the effect: not before, not after; by = Forever: it may never have been
	notBefore int64 // time alone may end it from then on; Forever = never
	cancelled int64 // a cancel was sent; Forever = none
	paid      int64 // money was sent off; Forever = none
	heldAt    int64 // the latest look that showed it held was asked for then
	confirmed int64 // the first look that showed it sold was answered then; Forever = none
	released  int64 // the same for its end
	final     string
	finalBy   int64
	promised  bool // more was shown of it than that it is pending
	lossy     bool // it was never promised, and an engine may have lost it
}

func (p *purchase) String() string {
	return fmt.Sprintf("reservation %s of %s (key %s)", p.id, p.user, p.key)
}

// purchase finds or makes that of a key: the one with the operation's
// reservation, or one of which no reservation is known.
func (r *record) purchase(op Op) *purchase {
	b := r.buyer(op.User)
	for _, p := range b.purchases {
		if p.key == op.Key && op.Key != "" && (p.id == op.Reservation || p.id == "" || op.Reservation == "") {
			return p
		}
	}
	p := &purchase{
		user: op.User, key: op.Key, sku: op.SKU, quantity: max(op.Quantity, 1),
		from: Forever, by: Forever, notBefore: Forever, cancelled: Forever, paid: Forever, confirmed: Forever, released: Forever, finalBy: Forever,
	}
	b.purchases = append(b.purchases, p)
	s := r.shelves[op.SKU]
	s.purchases = append(s.purchases, p)
	return p
}

// of answers the purchase of a key, the one that stands if there are several.
func (b *buyer) of(key string) (found *purchase) {
	for _, p := range b.purchases {
		if p.key == key && key != "" && (found == nil || !p.losable()) {
			found = p
		}
	}
	return found
}

// introduce gives a purchase its reservation.
func (r *record) introduce(p *purchase, id string) {
	if other := r.byID[id]; other != nil && other != p {
		r.faults = append(r.faults, fmt.Sprintf("reservation %s was given to %s (key %s) and to %s (key %s)", id, other.user, other.key, p.user, p.key))
		return
	}
	if p.id == "" {
		p.id = id
		r.byID[id] = p
		r.buckets[bucketOf(id)] = true
	}
}

// losable: nothing that was shown says that it may not have been lost.
func (p *purchase) losable() bool {
	return p.id != "" && !p.promised && (p.final == "" || p.final == Refused)
}

// separate keeps the purchases of a key that an engine may have lost apart from
// the one that stands. A second one that stands is the wrong receipt of the
// first, for the user's view to find. Which of the key's requests each of them
// was nobody knows.
func (r *record) separate() {
	for _, b := range r.buyers {
		stands, asked := map[string]*purchase{}, map[string]int64{}
		kept := b.purchases[:0]
		for _, p := range b.purchases {
			p.promised = r.promised[p.id]
			if at, known := asked[p.key]; !known || p.from < at {
				asked[p.key] = p.from
			}
			if first := stands[p.key]; p.key != "" && !p.losable() {
				if first != nil {
					first.from, first.by = min(first.from, p.from), min(first.by, p.by)
					p.from = Forever
					delete(r.byID, p.id)
					continue
				}
				stands[p.key] = p
			}
			kept = append(kept, p)
		}
		for _, p := range kept {
			if p.key != "" {
				p.from = min(p.from, asked[p.key])
			}
		}
		b.purchases = kept
	}
	for _, s := range r.shelves {
		s.forget()
	}
}

// forget drops the purchases that turned out not to be any.
func (s *shelf) forget() {
	kept := s.purchases[:0]
	for _, p := range s.purchases {
		if p.from != Forever {
			kept = append(kept, p)
		}
	}
	s.purchases = kept
}

// conclude uses that a complete history has no other purchases than those found
// in the end, and none that was promised is missing or refused.
func (r *record) conclude(complete bool) {
	for _, s := range r.shelves {
		for _, p := range s.purchases {
			p.lossy = p.losable()
			switch {
			case p.final == Refused && p.promised:
				r.faults = append(r.faults, fmt.Sprintf("%s was promised and is refused in the end", p))
			case !complete || p.finalBy != Forever || p.lossy:
			case p.by != Forever:
				r.faults = append(r.faults, fmt.Sprintf("%s was accepted and is not among the orders in the end", p))
			default:
				p.from = Forever // its requests bought nothing
			}
		}
		s.forget()
	}
}

// end is how and when a purchase ended; by = Forever: it may not have.
type end struct {
	class    class
	from, by int64
	lost     bool // an engine lost it: it gave back what it may have held
}

// ends of a purchase, by what was found in the end or else seen on the way.
// Without either it may have been paid if money was sent off, and released if
// a cancel was or its time was over.
func (p *purchase) ends() []end {
	sold := end{class: confirm, from: p.paid, by: min(p.confirmed, p.finalBy)}
	over := end{class: give, from: min(p.cancelled, p.notBefore), by: min(p.released, p.finalBy)}
	if sold.from == Forever { // money that nobody is known to have sent
		sold.from = p.from
	}
	if over.from == Forever {
		over.from = p.from
	}
	var all []end
	switch {
	case p.lossy, p.final == Held, p.final == Refused:
	case p.final == Confirmed, p.final == "" && p.confirmed != Forever:
		all = append(all, sold)
	case p.final == Released, p.final == "" && p.released != Forever:
		all = append(all, over)
	default:
		if p.paid != Forever {
			all = append(all, sold)
		}
		if p.cancelled != Forever || p.notBefore != Forever {
			all = append(all, over)
		}
	}
	for i := range all {
		e := &all[i]
		e.from = min(max(e.from, p.heldAt), e.by) // a look that shows it held after its end is for the user's view
	}
	if p.lossy {
		all = append(all, end{class: give, from: p.from, by: Forever, lost: true})
	}
	return all
}
