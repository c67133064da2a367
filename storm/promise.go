package storm

import "time"

// A receipt says "held", and is a promise, or "pending": then its buyer asks
// until it is held or refused. What was held is never refused. What was refused,
// or lost with an engine, holds nothing and is never held again; its key may
// answer it for ever, or buy anew, under another id and in a later epoch.

// accepted records a receipt that arrived at now. fresh says that it is the
// first of its reservation; otherwise it was compared with the first.
func (o *oracle) accepted(try tryID, given Receipt, now time.Time) (r *receipt, fresh bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.expire(now)
	if r := o.earlier(try, given, now); r != nil {
		o.compare(r, given)
		o.shows(r, "a replay", given.State, now)
		return r, false
	}
	o.scarcity.took()
	r = o.record(try, given, now)
	if lost := o.receipts[try]; lost != nil {
		o.refuse(lost, "its key, which bought anew", now)
	}
	o.receipts[try] = r
	switch given.State {
	case "held", "confirmed":
		o.promise(r, given.State, now)
	case "refused":
		o.refuse(r, "its first receipt", now)
	case "pending":
		o.pending++
	default: // what became of it is for its buyer to read
		r.promised = now
	}
	return r, true
}

// earlier finds the receipt with which a new one must agree, if there is one.
func (o *oracle) earlier(try tryID, given Receipt, now time.Time) *receipt {
	first := o.receipts[try]
	if first == nil || first.given.Reservation == given.Reservation {
		return first
	}
	if other := o.byReserve[given.Reservation]; other != nil && other.try == try {
		return other // that of the key before it bought anew
	}
	was, ok1 := placeOf(first.given.Reservation)
	is, ok2 := placeOf(given.Reservation)
	switch {
	case !ok1 || !ok2 || was.bucket != is.bucket || was.epoch == is.epoch:
	case is.epoch > was.epoch && first.promised.IsZero():
		return nil // bought anew
	case is.epoch < was.epoch && given.State != "held" && given.State != "confirmed":
		late := o.record(try, given, now) // an old reply, overtaken by a new one
		o.refuse(late, "its key, which bought anew", now)
		return late
	}
	return first
}

// record makes a receipt known.
func (o *oracle) record(try tryID, given Receipt, now time.Time) *receipt {
	r := &receipt{try: try, given: given, acked: now}
	o.inspect(r, now)
	o.byOrder[given.Order] = r
	o.byReserve[given.Reservation] = r
	o.byUser[try.user] = append(o.byUser[try.user], r)
	o.order = append(o.order, r)
	return r
}

// inspect checks a first receipt on its own and against all others.
func (o *oracle) inspect(r *receipt, now time.Time) {
	g, who := r.given, userName(r.try.user)
	if g.Reservation == "" || g.Order == "" {
		o.broken.add("the receipt of %s with key %s names no reservation or no order", who, r.try.key())
	}
	if other := o.byOrder[g.Order]; other != nil {
		o.broken.add("order %s was given to %s (key %s) and to %s (key %s)", g.Order, userName(other.try.user), other.try.key(), who, r.try.key())
	}
	if other := o.byReserve[g.Reservation]; other != nil {
		o.broken.add("reservation %s was given to %s (key %s) and to %s (key %s)", g.Reservation, userName(other.try.user), other.try.key(), who, r.try.key())
	}
	if g.Total != (Money{price, currency}) {
		o.broken.add("order %s of %s costs %d %s instead of %d %s", g.Order, who, g.Total.Amount, g.Total.Currency, price, currency)
	}
	if now.Before(o.opens.Add(-expiryMargin)) {
		o.broken.add("order %s of %s was accepted %s before the sale opens", g.Order, who, o.opens.Sub(now).Round(time.Millisecond))
	}
	var err error
	if r.expires, err = time.Parse(time.RFC3339Nano, g.ExpiresAt); err != nil {
		o.broken.add("order %s of %s has no readable expires_at: %q", g.Order, who, g.ExpiresAt)
	}
	r.expires = r.expires.Add(-o.ahead)
	// Its expiry tells when it was accepted, whichever of its replies this is.
	if told := o.soldOutAt.Load(); told != 0 && o.hold > 0 {
		if after := r.expires.Add(-o.hold).Sub(time.Unix(0, told)); after > expiryMargin {
			o.broken.add("order %s of %s was accepted %s after sold_out had been told", g.Order, who, after.Round(time.Millisecond))
		}
	}
	if p, ok := placeOf(g.Reservation); ok && o.buckets > 1 && p.bucket != bucketOf(who, o.buckets) {
		o.astray++
	}
}

// compare checks that the same key still gets what it got first. The state
// may have moved on.
func (o *oracle) compare(r *receipt, again Receipt) {
	first := r.given
	again.State = first.State
	if again != first {
		o.broken.add("key %s of %s got reservation %s, order %s, %d %s, expiry %s first, and reservation %s, order %s, %d %s, expiry %s later",
			r.try.key(), userName(r.try.user), first.Reservation, first.Order, first.Total.Amount, first.Total.Currency, first.ExpiresAt,
			again.Reservation, again.Order, again.Total.Amount, again.Total.Currency, again.ExpiresAt)
	}
}

// shows: a reservation was shown in this state, by a replay or a look at it.
func (o *oracle) shows(r *receipt, by, state string, now time.Time) {
	switch state {
	case "held", "confirmed", "returned":
		o.promise(r, state, now)
	case "released", "expired":
		o.promise(r, state, now)
		o.over(r, by, state, now)
	case "refused":
		o.refuse(r, by, now)
	}
}

// promise: the shop has shown r in a state in which it is more than pending.
// From now on it counts as holding a unit, if its time is not over.
func (o *oracle) promise(r *receipt, state string, now time.Time) {
	if !r.promised.IsZero() {
		return
	}
	name, who := r.given.Order, userName(r.try.user)
	if r.refused {
		o.broken.add("order %s of %s is held although it had been shown as refused by %s, %s before", name, who, r.endedBy, now.Sub(r.ended).Round(time.Microsecond))
	}
	r.promised = now
	if r.denied != "" {
		o.broken.add("false refusal: key %s of %s has order %s, which is held, and was answered %s", r.try.key(), who, name, r.denied)
	}
	if r.ended.IsZero() && (state == "confirmed" || state == "held" && now.Before(r.expires.Add(-expiryMargin))) {
		o.limit(r)
		o.keep(r)
	}
}

// refuse: the shop has shown that r is refused, or bought anew with its key.
func (o *oracle) refuse(r *receipt, by string, now time.Time) {
	if !r.promised.IsZero() {
		o.broken.add("order %s of %s was promised by a receipt and is refused, says %s", r.given.Order, userName(r.try.user), by)
	}
	if r.refused {
		return
	}
	r.refused = true
	o.refusals++
	if r.ended.IsZero() {
		r.ended, r.endedBy = now, by
	}
	o.uncount(r)
}

// outcome of a receipt, as far as it was shown.
type outcome uint8

const (
	waiting outcome = iota // it is pending
	promised
	turnedDown
)

// outcomeOf also says for how long the receipt was pending, if it was promised.
func (o *oracle) outcomeOf(r *receipt) (is outcome, took time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case r.refused:
		return turnedDown, 0
	case r.promised.IsZero():
		return waiting, 0
	}
	return promised, r.promised.Sub(r.acked)
}

// stands says whether r is still the receipt of its key.
func (o *oracle) stands(r *receipt) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.receipts[r.try] == r
}

// shown compares a look at the reservation of r, asked for at sent, with its
// receipt. Of a refused one there may be no more left than its id.
func (o *oracle) shown(r *receipt, by string, seen Receipt, sent, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.expire(now)
	first := r.given
	if seen.State == "refused" {
		first = Receipt{Reservation: first.Reservation}
		seen = Receipt{Reservation: seen.Reservation, State: "refused"}
	}
	if first.State = seen.State; seen != first {
		o.broken.add("reservation %s of %s is shown by %s as %+v, its receipt said %+v", r.given.Reservation, userName(r.try.user), by, seen, r.given)
	}
	o.takenBack(r, seen.State, sent)
	o.shows(r, by, seen.State, now)
}

// repeated: the key of r was sent again at sent and answered with a receipt.
func (o *oracle) repeated(r *receipt, given Receipt, sent time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if given.Reservation == r.given.Reservation {
		o.takenBack(r, given.State, sent)
	}
}

// denied: a key whose receipt had arrived before the request was sent got
// another answer than that receipt. One that is only pending may have been lost;
// but then it is held no more.
func (o *oracle) denied(r *receipt, what string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if r.promised.IsZero() {
		r.denied = what
		return
	}
	o.broken.add("false refusal: key %s of %s has order %s and was answered %s", r.try.key(), userName(r.try.user), r.given.Order, what)
}
