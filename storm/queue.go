package storm

import "time"

// join goes into the waiting room. Whoever is in it already learns where he stands.
func join(a *actor) {
	var is queuePlace
	if !a.post("POST", a.path("/queue"), struct {
		Clearance string `json:"clearance,omitempty"`
	}{a.clearance}, &is, join) {
		return
	}
	if !a.queued {
		a.queued, a.told, a.joined = true, time.Time{}, time.Now()
		if opens := a.p.r.oracle.opens; opens.After(a.joined) {
			a.joined = opens // nobody waits for the sale because of the queue before it opens
		}
		a.p.treated(a.kind).queue(func(q *QueueReport) { q.Joined++ })
	}
	a.stands(is)
}

// stand asks where he stands.
func stand(a *actor) {
	var is queuePlace
	// Who cannot learn it now joins: who is in is told where he stands.
	if a.post("GET", a.path("/queue"), nil, &is, join) {
		a.stands(is)
	}
}

// stands goes on from a place in the queue.
func (a *actor) stands(is queuePlace) {
	now := time.Now()
	switch is.State {
	case "registered", "waiting":
		if is.State == "waiting" && is.ETA != nil && a.told.IsZero() {
			a.told = now.Add(time.Duration(*is.ETA) * time.Second)
		}
		// A page asks as it is told to, and a hand has no part in it.
		a.then(max(time.Duration(is.PollAfterMS)*time.Millisecond, pollLeast), stand)
	case "called":
		a.queued, a.pass = false, is.Pass
		a.p.treated(a.kind).called(now, now.Sub(a.joined), a.told)
		a.then(a.p.cast.react(a.dice()), buy)
	case "lapsed":
		a.queued = false
		a.p.treated(a.kind).queue(func(q *QueueReport) { q.Lapsed++ })
		a.then(a.think(), join)
	case "over":
		a.queued = false
		a.p.treated(a.kind).queue(func(q *QueueReport) { q.Over++ })
	default:
		a.p.r.oracle.broken.add("%s was told that his place in the queue is %q", userName(a.user), is.State)
	}
}
