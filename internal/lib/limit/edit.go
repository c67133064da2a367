package limit

// Edit changes the rate of every key from now on and keeps what each has used;
// at no moment is a key fresh because of an edit. Windows of the same algorithm
// and Per keep their counts, whatever the limit becomes. In all other cases
// what counts against the key now is carried over:
//
//	into a window  as taken in the present one, a part of a permit as a whole
//	into a bucket  as debt at the new rate; at most the new capacity, so that
//	               after a cut nobody waits longer than for one full bucket
//
// So a cut that is taken back gives at most what it had cut off the capacity
// of a bucket that was emptier than that.
//
// An edit visits each place once, a stripe at a time: it holds each lock for
// about places/256 × 10 ns, and until it returns some keys go by the new rate
// and some by the old. The error is ErrRate, and then nothing changed.
func (l *Limiter) Edit(r Rate, now int64) error {
	p, err := newPlan(r)
	if err != nil {
		return err
	}
	l.editing.Lock() // of two edits at once one is the last, on all stripes
	defer l.editing.Unlock()
	for i := range l.stripes {
		st := &l.stripes[i]
		st.mu.Lock()
		l.restate(i, p, l.time(i, now))
		st.mu.Unlock()
	}
	return nil
}

// restate carries the keys of a stripe from its plan and latest time to others.
// The stripe is locked.
func (l *Limiter) restate(at int, to plan, now int64) {
	st := &l.stripes[at]
	then, from := st.latest, st.plan
	st.plan, st.latest = to, now
	if then == now && from.keeps(to) {
		return
	}
	for i := at; i < len(l.sets); i += len(l.stripes) {
		s := &l.sets[i]
		for way, k := range s.keys {
			if k == 0 {
				continue
			}
			used := from.charged(s.cells[way], then)
			if used == 0 {
				s.keys[way], s.cells[way] = 0, cell{}
				continue
			}
			s.cells[way] = to.charge(used, now)
		}
	}
}

// keeps says that cells of one plan are cells of another.
func (p plan) keeps(to plan) bool {
	a, b := p.rate, to.rate
	if a.Algorithm == FixedWindow || a.Algorithm == SlidingWindow {
		a.Limit, b.Limit = 0, 0
	}
	return a == b
}
