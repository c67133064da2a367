package storm

import (
	"encoding/json"
	"time"
)

// afterExpiry is how long after its order's expiry money that comes late is
// taken at the earliest.
const afterExpiry = time.Second

// choose is the button of a payer.
func (r *rehearsal) choose(n uint64) button {
	if !r.dice.hit(chooseMishap, n, r.o.Misbehave) {
		return buttonPay
	}
	return mishaps[r.dice.bits(chooseButton, n)%uint64(len(mishaps))]
}

// start asks where to pay. page is "" when there is no such place now; what is
// to be done about that is done.
func (r *rehearsal) start(rc *receipt, left int, again func(left int)) (page string) {
	a, err := r.shop.order(r.crowd.token(rc.try.user), rc.given.Order, "/payments")
	var doc struct {
		PayURL string `json:"pay_url"`
	}
	switch {
	case err != nil || a.again():
		r.retry(left, again)
	case a.ok() && json.Unmarshal(a.body, &doc) == nil && doc.PayURL != "":
		return doc.PayURL
	case a.status == 409:
		r.oracle.unpayable(rc, a.String(), time.Now())
		r.watch(rc, maxTries)
	default:
		r.oracle.broken.add("starting a payment for order %s of %s was answered %s", rc.given.Order, userName(rc.try.user), a)
	}
	return ""
}

// pay starts a payment and presses a button on the provider's page.
func (r *rehearsal) pay(rc *receipt, b button, left int) {
	page := r.start(rc, left, func(left int) { r.pay(rc, b, left) })
	if page == "" {
		return
	}
	var delay time.Duration
	if b == buttonLate { // whole seconds
		delay = max(time.Until(rc.expires)+afterExpiry, 0).Truncate(time.Second) + time.Second
		r.expectMoney(time.Now().Add(delay))
	}
	r.press(rc, page, b, delay, maxTries)
}

// payAgain pays an order whose payment failed: it stays payable until its
// expiry, by another payment.
func (r *rehearsal) payAgain(rc *receipt, failed string, left int) {
	const pace = 100 * time.Millisecond
	page := r.start(rc, left, func(left int) { r.payAgain(rc, failed, left) })
	switch {
	case page == "":
	case page != failed:
		r.press(rc, page, buttonPay, 0, maxTries)
	case left > 1: // the shop may not have heard of it yet
		if now := time.Now(); r.outage.clearSince(now.Add(-2*r.wait.news)) && r.oracle.troubles.clearSince(now.Add(-2*r.wait.news)) {
			r.oracle.failedStill(rc, failed, r.wait.news, now)
		}
		r.agenda.after(pace, func() { r.payAgain(rc, failed, left-1) })
	default:
		r.agenda.at(rc.expires.Add(50*time.Millisecond), func() { r.watch(rc, maxTries) })
	}
}

// press presses a button on the provider's page. When the page cannot be
// reached the money may have gone through all the same; the order tells.
func (r *rehearsal) press(rc *receipt, page string, b button, delay time.Duration, left int) {
	now := time.Now()
	r.oracle.pressing(rc, b, page, delay, now)
	r.history.paying(rc, b, now)
	a, err := r.shop.press(page, b, delay)
	next := func() { r.watch(rc, maxTries) }
	switch {
	case err != nil || a.again():
		if left > 1 {
			r.retry(left, func(left int) { r.press(rc, page, b, delay, left) })
			return
		}
	case a.ok() || a.status == 303 || a.status == 302:
		r.oracle.charged(rc, page, time.Now())
		switch b {
		case buttonFail:
			next = func() { r.payAgain(rc, page, maxTries) }
		case buttonWrong:
			r.agenda.at(rc.expires.Add(50*time.Millisecond), next)
			return
		}
	default: // a page may refuse a payment that has expired meanwhile
		r.oracle.unpayable(rc, a.String(), time.Now())
	}
	r.agenda.after(delay+20*time.Millisecond, next)
}

// expectMoney keeps the audit waiting for money that is on its way.
func (r *rehearsal) expectMoney(at time.Time) {
	for ns := at.UnixNano(); ; {
		old := r.lastMoney.Load()
		if old >= ns || r.lastMoney.CompareAndSwap(old, ns) {
			return
		}
	}
}
