package storm

import "time"

// limit checks that the user of r holds nothing else for certain.
func (o *oracle) limit(r *receipt) {
	for _, other := range o.byUser[r.try.user] {
		if other.counts {
			o.broken.add("%s got order %s with key %s while holding order %s: over the limit of one per user",
				userName(r.try.user), r.given.Order, r.try.key(), other.given.Order)
		}
	}
}

// grabbing counts requests for a second unit while they are under way.
func (o *oracle) grabbing(try tryID, n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.grabs[try] += n; o.grabs[try] == 0 {
		delete(o.grabs, try)
	}
}

// limited: a user was told limit_reached in answer to a request sent at sent,
// and has had no other key since (the caller sees to that). It is a lie if
// the user then had neither a unit nor an open question: one key alone cannot
// exceed the limit, and an order counts for nothing once the shop has shown
// that it ended, unless money for it came too late and may have bought another.
func (o *oracle) limited(try tryID, sent time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	var last *receipt
	for _, r := range o.byUser[try.user] {
		if r.try == try {
			continue
		}
		if r.ended.IsZero() || !o.heardOf(r.ended, sent) || r.awaits || r.replaced {
			return
		}
		last = r
	}
	for g := range try.generation&^greedy + 1 {
		for _, other := range []tryID{{try.user, g}, {try.user, g | greedy}} {
			if other != try && (o.grabs[other] > 0 || o.unsure[other] && o.receipts[other] == nil) {
				return
			}
		}
	}
	if last == nil {
		o.broken.add("%s was told limit_reached for key %s without having bought anything else", userName(try.user), try.key())
		return
	}
	o.broken.add("%s was told limit_reached for key %s, sent %s after order %s, the last one, had been shown as ended by %s", userName(try.user), try.key(),
		sent.Sub(last.ended).Round(time.Microsecond), last.given.Order, last.endedBy)
}
