package cluster

import (
	"slices"
	"strings"
	"time"
)

// Bounds of remembering who has gone.
const (
	GoneFor = time.Hour
	maxGone = 256 // the one seen last longest ago goes first
)

// Seen is a member, and when it was on the list last. One that died stays listed
// for its time to live.
type Seen struct {
	Member
	LastSeen time.Time
	Gone     bool // it is not on the list any more
}

// Roll remembers a list of members, and for an hour those who were on it: a
// process that has died is what people look for. The zero value is ready. It is
// for one goroutine at a time.
type Roll struct {
	all  map[string]Seen
	asOf time.Time
}

// Note takes up the list as it was at a moment. One that is older than what is
// known, by a clock that was set back, counts as well.
func (r *Roll) Note(list []Member, asOf time.Time) {
	if r.all == nil {
		r.all = make(map[string]Seen, len(list))
	}
	r.asOf = asOf
	for name, s := range r.all {
		s.Gone = true
		r.all[name] = s
	}
	for _, m := range list {
		r.all[m.Name] = Seen{Member: m, LastSeen: asOf}
	}
	var gone []Seen
	for name, s := range r.all {
		switch {
		case !s.Gone:
		case asOf.Sub(s.LastSeen) > GoneFor:
			delete(r.all, name)
		default:
			gone = append(gone, s)
		}
	}
	if len(gone) > maxGone {
		slices.SortFunc(gone, func(a, b Seen) int { return a.LastSeen.Compare(b.LastSeen) })
		for _, s := range gone[:len(gone)-maxGone] {
			delete(r.all, s.Name)
		}
	}
}

// Members are those on the list, and those who have gone, by name; and the moment
// at which it was so.
func (r *Roll) Members() (list []Seen, asOf time.Time) {
	for _, s := range r.all {
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b Seen) int { return strings.Compare(a.Name, b.Name) })
	return list, r.asOf
}
