package storm

import (
	"bytes"
	"encoding/json"
	"time"
)

// Errands: what users do beside the scheduled attempts. Each is one short call
// that plans the next one; none waits. A call that fails, or is answered 503,
// is repeated by the same user with the same key, at growing distance.

// maxTries bounds the repeats of one call; with the pauses below that is
// longer than any restart a rehearsal can wait for.
const maxTries = 100

// once is for calls that their user does not repeat.
const once = 0

// pause before the next of the remaining tries: 20 ms doubling to 640 ms.
func pause(left int) time.Duration {
	return 20 * time.Millisecond << min(maxTries-left, 5)
}

func (r *rehearsal) retry(left int, do func(left int)) {
	switch {
	case left > 1:
		r.agenda.after(pause(left), func() { do(left - 1) })
	case left == 1:
		r.givenUp.Add(1)
	}
}

// follow lets the buyer of a fresh receipt go on, at once or when it is clear
// what it is worth.
func (r *rehearsal) follow(rc *receipt) {
	n := uint64(rc.try.user)<<24 | uint64(rc.try.generation)
	switch rc.given.State {
	case "pending":
		if rc.try.generation&greedy == 0 && r.dice.hit(chooseReplay, n, r.o.Replay) {
			r.agenda.after(0, func() { r.look(rc, maxTries) })
		}
		r.agenda.after(0, func() { r.await(rc, 0) })
	case "refused":
		r.agenda.after(0, func() { r.giveWay(rc) })
	default:
		r.goOn(rc)
	}
}

// goOn plans what the buyer of a promised unit will do. A second unit is left
// to its expiry.
func (r *rehearsal) goOn(rc *receipt) {
	if rc.try.generation&greedy != 0 {
		return
	}
	n := uint64(rc.try.user)<<24 | uint64(rc.try.generation)
	hold := time.Duration(r.o.Hold) * time.Second
	if r.selling.Load() {
		r.agenda.after(0, func() { r.pay(rc, buttonPay, maxTries) })
		return
	}
	weight := r.dice.unit(choosePlan, n) * (r.o.Pay + r.o.Abandon + r.o.Cancel)
	think := r.dice.between(n, 10*time.Millisecond, min(hold/4, time.Second))
	switch {
	case weight < r.o.Pay:
		b := r.choose(n)
		r.agenda.after(think, func() { r.pay(rc, b, maxTries) })
	case weight < r.o.Pay+r.o.Abandon:
		r.agenda.at(rc.expires.Add(50*time.Millisecond), func() { r.watch(rc, maxTries) })
	default:
		r.agenda.after(think, func() { r.cancel(rc, maxTries) })
	}
	if r.dice.hit(chooseReplay, n, r.o.Replay) {
		r.agenda.after(0, func() { r.look(rc, maxTries) })
		r.agenda.after(r.dice.between(n+1, 20*time.Millisecond, hold+time.Second), func() { r.replay(rc, maxTries) })
	}
	if r.dice.hit(chooseGreedy, n, r.o.Greedy) {
		for _, d := range []time.Duration{0, hold / 8, hold / 2} {
			r.agenda.after(d, func() { r.grab(rc) })
		}
	}
}

// click sends a purchase outside the schedule: the second click, or the retry
// after a lost reply.
func (r *rehearsal) click(try tryID, left int) {
	sent := time.Now()
	a, err := r.shop.buy(r.crowd.token(try.user), try.key())
	if err != nil {
		r.errands.answered(unknown, noCode, -1)
		r.heard(unknown, noCode, try, sent, time.Now())
		r.oracle.unanswered(try)
		r.history.unanswered(try, sent)
		r.retry(left, func(left int) { r.click(try, left) })
		return
	}
	v, code := judge(a.status, a.body)
	r.errands.answered(v, code, -1)
	r.learn(v, code, a.status, a.body, try, sent, time.Now())
}

// replay sends the key of a receipt again: whatever has happened since, the
// answer is that receipt. The key of a refused one is free to buy anew, which
// its user decides.
func (r *rehearsal) replay(rc *receipt, left int) {
	if is, _ := r.oracle.outcomeOf(rc); is == turnedDown {
		return
	}
	sent := time.Now()
	a, err := r.shop.buy(r.crowd.token(rc.try.user), rc.try.key())
	if err != nil || a.away() {
		r.errands.answered(unknown, noCode, -1)
		r.service.failed(r.bucketOf(rc.try), sent)
		r.retry(left, func(left int) { r.replay(rc, left) })
		return
	}
	now := time.Now()
	v, code := judge(a.status, a.body)
	r.errands.answered(v, code, -1)
	r.heard(v, code, rc.try, sent, now)
	var given Receipt
	switch {
	case v == accepted && json.Unmarshal(a.body, &given) == nil:
		r.oracle.repeated(rc, given, sent)
		r.receive(rc.try, given, sent, now)
	case v == refused && !rc.acked.Add(r.o.Lag).Before(sent):
		// A gateway may have refused by what it knew before the purchase.
		r.retry(left, func(left int) { r.replay(rc, left) })
	default:
		if v == refused {
			r.history.refused(rc.try, code, sent, now)
		}
		r.oracle.denied(rc, a.String())
	}
}

// grab tries for a second unit with another key. A receipt for it is judged by
// the oracle when it arrives.
func (r *rehearsal) grab(rc *receipt) {
	try := tryID{rc.try.user, rc.try.generation | greedy}
	r.oracle.grabbing(try, 1)
	r.click(try, once)
	r.oracle.grabbing(try, -1)
}

// look reads the order at once: it must exist for its owner even before it has landed.
func (r *rehearsal) look(rc *receipt, left int) {
	r.show(rc, left, r.look)
}

// show reads the order as its owner. State is "" when it cannot be had now;
// then again is planned.
func (r *rehearsal) show(rc *receipt, left int, again func(*receipt, int)) (shown shownOrder) {
	sent := time.Now()
	a, err := r.shop.order(r.crowd.token(rc.try.user), rc.given.Order, "")
	now := time.Now()
	if err != nil || a.again() {
		r.retry(left, func(left int) { again(rc, left) })
		return shown
	}
	if !a.ok() || json.Unmarshal(a.body, &shown) != nil {
		r.oracle.broken.add("order %s cannot be read by its owner %s: %s", rc.given.Order, userName(rc.try.user), a)
		return shownOrder{}
	}
	r.history.read(rc, shown.State, sent, now)
	if lost := shown.State == "refused" && shown.Total == (Money{}); !lost && shown.Total != rc.given.Total {
		r.oracle.broken.add("order %s of %s shows %s, its receipt said %s", rc.given.Order, userName(rc.try.user), shown.Total, rc.given.Total)
	}
	return shown
}

// watch reads the order until it has ended, one way or the other, and until
// its buyer is shown what became of money that came too late; and lets the
// user go on from there.
func (r *rehearsal) watch(rc *receipt, left int) {
	shown := r.show(rc, left, r.watch)
	if shown.State == "" {
		return
	}
	r.oracle.finished(rc, "a read", shown.State, time.Now())
	switch shown.State {
	case "paid", "fulfilled":
		r.crowd.satisfied(rc.try.user, rc.try.generation)
		return
	case "cancelled", "refunded", "refused":
		switch r.oracle.fateOf(rc, shown, time.Now()) {
		case fateOpen: // read again
		case fateBought:
			r.crowd.satisfied(rc.try.user, rc.try.generation)
			return
		default:
			r.crowd.again(rc.try.user, rc.try.generation)
			return
		}
	}
	r.retry(left, func(left int) { r.watch(rc, left) })
}

// cancel releases the reservation.
func (r *rehearsal) cancel(rc *receipt, left int) {
	r.oracle.cancelling(rc)
	sent := time.Now()
	a, err := r.shop.order(r.crowd.token(rc.try.user), rc.given.Order, "/cancel")
	r.history.cancelled(rc, err == nil && a.ok(), sent, time.Now())
	switch {
	case err != nil || a.again():
		r.retry(left, func(left int) { r.cancel(rc, left) })
	case a.ok():
		r.oracle.finished(rc, "the cancel", "cancelled", time.Now())
		r.crowd.again(rc.try.user, rc.try.generation)
	case a.status == 409: // it ended before this cancel, or an earlier try of it worked
		r.watch(rc, maxTries)
	default:
		r.oracle.broken.add("cancelling order %s of %s was answered %s", rc.given.Order, userName(rc.try.user), a)
	}
}

// forge does what must never work: a token with a wrong signature, with
// another user's claims, without a signature, or a genuine user's hands on
// somebody else's order.
func (r *rehearsal) forge(slot uint64, user int) {
	r.errands.count(&r.errands.forged)
	own := r.crowd.token(user)
	parts := bytes.Split(own, []byte("."))
	other := bytes.Split(r.crowd.token((user+1)%len(r.crowd.states)), []byte("."))
	var token []byte
	switch slot % 4 {
	case 0:
		sig := append([]byte(nil), parts[2]...)
		sig[int(slot/4)%20] ^= 1 // keeps base64url mostly valid, and always wrong
		token = bytes.Join([][]byte{parts[0], parts[1], sig}, []byte("."))
	case 1:
		if len(r.crowd.states) == 1 {
			return
		}
		token = bytes.Join([][]byte{parts[0], other[1], parts[2]}, []byte("."))
	case 2: // {"alg":"none","typ":"JWT"}
		token = bytes.Join([][]byte{[]byte("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0"), parts[1], nil}, []byte("."))
	case 3:
		r.pry(slot, user)
		return
	}
	a, err := r.shop.buy(token, tryID{user, 0}.key())
	if err == nil && !a.again() && a.status != 401 {
		r.oracle.broken.add("a forged token of kind %d was answered %s instead of 401", slot%4, a)
	}
}

// pry reads, pays or cancels somebody else's order.
func (r *rehearsal) pry(slot uint64, user int) {
	all := r.oracle.known()
	if len(all) == 0 {
		return
	}
	rc := all[r.dice.bits(chooseVictim, slot)%uint64(len(all))]
	if rc.try.user == user {
		return
	}
	action := []string{"", "/cancel", "/payments"}[slot/4%3]
	a, err := r.shop.order(r.crowd.token(user), rc.given.Order, action)
	if err == nil && !a.again() && a.status != 404 {
		r.oracle.broken.add("%s of somebody else's order %s was answered %s instead of 404", action, rc.given.Order, a)
	}
}
