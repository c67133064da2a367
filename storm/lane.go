package storm

import (
	"context"
	"encoding/json"
	"errors"
	"time"
)

// lane is one connection that works through the schedule: claim a slot, wait
// until it is due, claim a user, send, judge. It never waits for anything else.
func (r *rehearsal) lane(ctx context.Context, s *schedule, t *tally) {
	at := int(r.lined.Add(1)) // users are spread over all targets
	w := newWire(r.targets[at%len(r.targets)])
	defer func() { w.close() }()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var key []byte
	for ctx.Err() == nil {
		slot, due, ok := s.next()
		if !ok || !wait(ctx, timer, due) {
			return
		}
		// More attempts than their users can follow up would have them pay, cancel
		// and look late, and the shop blamed for it.
		if time.Since(due) > maxLate || r.agenda.behind(due) > maxBehind {
			t.count(&t.unsent)
			continue
		}
		user, generation, ok := r.crowd.next()
		if !ok {
			t.count(&t.unwanted)
			continue
		}
		try := tryID{user, generation}
		key = try.appendKey(key[:0])
		if !r.attempt(w, t, uint64(slot), due, try, key) {
			// The server cannot be reached at all: go to the next, and do not spin.
			w.close()
			at++
			w = newWire(r.targets[at%len(r.targets)])
			wait(ctx, timer, time.Now().Add(5*time.Millisecond))
		}
	}
}

// slack is how far ahead of its time a slot may be taken, since a timer costs
// more than that.
const slack = 100 * time.Microsecond

func wait(ctx context.Context, timer *time.Timer, until time.Time) bool {
	d := time.Until(until)
	if d < slack {
		return true
	}
	timer.Reset(d)
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// attempt is one scheduled try of a claimed user. It answers false when the
// server could not be reached.
func (r *rehearsal) attempt(w *wire, t *tally, slot uint64, due time.Time, try tryID, key []byte) bool {
	if !r.selling.Load() {
		if r.dice.hit(chooseForge, slot, r.o.Forge) {
			r.agenda.after(0, func() { r.forge(slot, try.user) })
		}
		if r.dice.hit(chooseDouble, slot, r.o.DoubleClick) {
			r.agenda.after(0, func() { r.click(try, once) })
		}
		if r.dice.hit(chooseLose, slot, r.o.Lose) {
			return r.lose(w, t, slot, try, key)
		}
	}
	sent := time.Now()
	status, body, err := w.buy(r.crowd.token(try.user), key)
	now := time.Now()
	if err != nil {
		return r.failed(t, err, try, sent, now)
	}
	v, code := judge(status, body)
	latency := now.Sub(due)
	if sent.Before(due) {
		latency = now.Sub(sent)
	}
	if v == unknown || v == unavailable || r.selling.Load() {
		latency = -1 // no answer, or not the load that was asked for
	}
	t.answered(v, code, latency)
	r.learn(v, code, status, body, try, sent, now)
	return true
}

// failed draws the conclusions from an attempt without an answer. It answers false
// when it was not even sent.
func (r *rehearsal) failed(t *tally, err error, try tryID, sent, now time.Time) bool {
	t.answered(unknown, noCode, -1)
	r.heard(unknown, noCode, try, sent, now)
	if errors.Is(err, errNotSent) {
		r.crowd.refused(try.user, try.generation)
		return false
	}
	r.oracle.unanswered(try)
	r.history.unanswered(try, sent)
	r.agenda.after(r.dice.between(uint64(try.user), 20*time.Millisecond, 200*time.Millisecond), func() { r.click(try, maxTries) })
	return true
}

// lose sends a try and drops the reply; the user tries again with the same key.
func (r *rehearsal) lose(w *wire, t *tally, slot uint64, try tryID, key []byte) bool {
	sent := time.Now()
	err := w.lose(r.crowd.token(try.user), key)
	if errors.Is(err, errNotSent) {
		t.answered(unknown, noCode, -1)
		r.heard(unknown, noCode, try, sent, time.Now())
		r.crowd.refused(try.user, try.generation)
		return false
	}
	r.oracle.unanswered(try)
	r.history.unanswered(try, sent)
	t.mu.Lock()
	t.attempts++
	t.lost++
	t.mu.Unlock()
	r.agenda.after(r.dice.between(slot, 0, 300*time.Millisecond), func() { r.click(try, maxTries) })
	return true
}

// learn draws the conclusions from a reply to a purchase: for the oracle, for
// the user, and for what the user does next.
func (r *rehearsal) learn(v verdict, code, status int, body []byte, try tryID, sent, now time.Time) {
	r.heard(v, code, try, sent, now)
	switch v {
	case accepted:
		var given Receipt
		if err := json.Unmarshal(body, &given); err != nil {
			r.oracle.broken.add("%s got a receipt that cannot be read: %v", userName(try.user), err)
			return
		}
		r.receive(try, given, sent, now)
	case refused:
		r.history.refused(try, code, sent, now)
		switch code {
		case codeSoldOut:
			r.oracle.soldOut(sent, now)
			r.oracle.scarcity.turnedAway(sent)
		case codeAllHeld:
			// Asked so closely only of a shop whose whole history is: one that cannot
			// tell sold from held takes nothing from anybody.
			if r.history != nil {
				r.oracle.allHeld(sent)
			}
			r.oracle.scarcity.turnedAway(sent)
		case codeLimit:
			// A user who has gone on to another key may hold something by that one.
			if r.crowd.generation(try.user) == try.generation&^greedy {
				r.oracle.limited(try, sent)
			}
		case codeNotOpen:
			if sent.After(r.oracle.opens.Add(time.Second + r.o.Lag)) {
				r.oracle.broken.add("not_open was told %s after the opening", sent.Sub(r.oracle.opens).Round(time.Millisecond))
			}
		}
		r.crowd.refused(try.user, try.generation)
	case unavailable:
		r.crowd.refused(try.user, try.generation)
	case unknown:
		r.oracle.unanswered(try)
		r.history.unanswered(try, sent)
		r.agenda.after(r.dice.between(uint64(try.user), 50*time.Millisecond, 300*time.Millisecond), func() { r.click(try, maxTries) })
	case broken:
		r.oracle.broken.add("a well-formed attempt of %s was answered %s", userName(try.user), answer{status, body})
		r.oracle.unanswered(try)
		r.history.unanswered(try, sent)
		r.crowd.refused(try.user, try.generation)
	}
}

// receive takes in a receipt, and lets its buyer go on.
func (r *rehearsal) receive(try tryID, given Receipt, sent, now time.Time) {
	rc, fresh := r.oracle.accepted(try, given, now)
	r.history.accepted(rc, given, sent, now)
	switch {
	case fresh:
		if try.generation&greedy == 0 {
			r.crowd.accepted(try.user, try.generation)
		}
		r.follow(rc)
	case given.State == "refused" && try.generation&greedy == 0:
		r.crowd.over(try.user, try.generation)
	}
}
