package waiting

// Ready answers nil when people may join the room of an activity here, else why
// not: ErrNoRoom or *TooEarly. It is for asking before anything is used up for a
// place.
func (r *Rooms) Ready(activity string) error {
	m, v := r.seen(activity)
	if m == nil {
		return r.absent(activity)
	}
	if r.o.millis() < v.config.queueOpens() && !v.over() {
		return &TooEarly{v.config.queueOpens(), v.config.OpensAt}
	}
	return nil
}
