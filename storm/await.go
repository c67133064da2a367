package storm

import (
	"encoding/json"
	"errors"
	"time"
)

// What buyers do whose receipt says "pending": they ask until they know, by
// looking at the reservation, by its events, or with their key again.

const (
	streamTime = 2 * time.Second // one reading of a reservation's events
	pollLeast  = 5 * time.Millisecond
	pollMost   = 250 * time.Millisecond
)

// await asks for the n-th time what has become of a pending receipt, and plans
// to ask again, in another way. There is one chain of these errands for each.
func (r *rehearsal) await(rc *receipt, n int) {
	switch (r.dice.bits(chooseAwait, uint64(rc.try.user)<<24|uint64(rc.try.generation)) + uint64(n)) % 3 {
	case 0:
		r.lookAt(rc)
	case 1:
		r.replay(rc, once)
	default:
		r.listen(rc)
	}
	switch is, took := r.oracle.outcomeOf(rc); is {
	case promised:
		r.landings.note(took)
		r.goOn(rc)
	case turnedDown:
		r.giveWay(rc)
	case waiting:
		now := time.Now()
		if since, open := r.oracle.troubles.last(rc.acked); !open && now.Sub(since) > r.wait.pending {
			r.oracle.broken.add("order %s of %s has been pending for %s", rc.given.Order, userName(rc.try.user), now.Sub(rc.acked).Round(time.Millisecond))
			return
		}
		r.agenda.after(min(max(now.Sub(rc.acked)/4, pollLeast), pollMost), func() { r.await(rc, n+1) })
	}
}

// lookAt reads the reservation.
func (r *rehearsal) lookAt(rc *receipt) {
	sent := time.Now()
	a, err := r.shop.reservation(r.crowd.token(rc.try.user), rc.given.Reservation)
	now := time.Now()
	var seen Receipt
	switch {
	case err != nil || a.again():
	case !a.ok() || json.Unmarshal(a.body, &seen) != nil:
		r.oracle.broken.add("reservation %s cannot be read by its owner %s: %s", rc.given.Reservation, userName(rc.try.user), a)
	default:
		r.see(rc, "a look at it", seen, sent, now)
	}
}

func (r *rehearsal) see(rc *receipt, by string, seen Receipt, sent, now time.Time) {
	r.oracle.shown(rc, by, seen, sent, now)
	r.history.looked(rc, seen.State, sent, now)
}

// listen follows the reservation's events for a while.
func (r *rehearsal) listen(rc *receipt) {
	select {
	case r.streams <- struct{}{}: // each keeps one who does errands from others
	default:
		r.lookAt(rc)
		return
	}
	defer func() { <-r.streams }()
	sent := time.Now()
	err := r.shop.events(r.crowd.token(rc.try.user), rc.given.Reservation, streamTime, func(seen Receipt) (more bool) {
		r.see(rc, "its events", seen, sent, time.Now())
		return seen.State == "pending"
	})
	if errors.Is(err, errAnswer) {
		r.oracle.broken.add("the events of reservation %s cannot be read by its owner %s: %v", rc.given.Reservation, userName(rc.try.user), err)
	}
}

// giveWay lets the user of a refused receipt go on: with the same key, which may
// buy anew, or with the next one. What was refused cannot be paid for.
func (r *rehearsal) giveWay(rc *receipt) {
	r.agenda.after(0, func() { r.payRefused(rc, maxTries) })
	if rc.try.generation&greedy != 0 || !r.oracle.stands(rc) {
		return
	}
	n := uint64(rc.try.user)<<24 | uint64(rc.try.generation)
	if r.dice.hit(chooseAnew, n, 50) && r.crowd.retry(rc.try.user, rc.try.generation) {
		r.click(rc.try, maxTries)
		return
	}
	r.crowd.over(rc.try.user, rc.try.generation)
}

// payRefused tries to pay for what was refused.
func (r *rehearsal) payRefused(rc *receipt, left int) {
	a, err := r.shop.order(r.crowd.token(rc.try.user), rc.given.Order, "/payments")
	switch {
	case err != nil || a.again():
		r.retry(left, func(left int) { r.payRefused(rc, left) })
	case a.status == 409: // it is refused, there or lost
	default:
		r.oracle.broken.add("order %s of %s was refused, and asking to pay for it was answered %s", rc.given.Order, userName(rc.try.user), a)
	}
}
