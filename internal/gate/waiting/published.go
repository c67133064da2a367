package waiting

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Draw answers what may be published of a room's draw by now.
func (r *Rooms) Draw(activity string) (Draw, error) {
	m, v := r.seen(activity)
	if m == nil {
		return Draw{}, fmt.Errorf("%q: %w", activity, ErrNoRoom)
	}
	d := Draw{Commitment: v.commitment, Joined: v.Joined, DrawAt: v.config.OpensAt}
	if v.drawn() {
		d.DrawAt, d.Drawn, d.Seed, d.Entries = v.Progress.DrawnAt, true, v.Seed, v.Progress.Drawn
		copy(d.Digest[:], v.Progress.Digest)
	}
	return d, nil
}

// Entries answers the entry ids drawn, in the order of their numbers from `from`
// on, at most limit (1..10,000); none before the draw. They never change.
func (r *Rooms) Entries(ctx context.Context, activity string, from, limit int) ([]EntryID, error) {
	m, v := r.seen(activity)
	if m == nil {
		return nil, fmt.Errorf("%q: %w", activity, ErrNoRoom)
	}
	if limit = min(limit, v.Progress.Drawn-from); !v.drawn() || from < 0 || limit < 1 {
		return nil, nil
	}
	return r.o.Line.Entries(ctx, activity, from, limit)
}

// Stats is how a room stands, for metrics.
type Stats struct {
	Activity    string
	Joined      int           // numbers given out
	Waiting     int           // joined and not called, those too who are not there any more
	Called      int           // people called who were there
	Absent      int           // people passed over
	Outstanding int           // called, their pass neither used nor run out
	Unused      int           // passes that ran out without having been used, those of the absent too
	Rate        float64       // people a second who are to be called
	Speed       float64       // places a second by which the line moves
	ETAError    time.Duration // mean size of the errors of estimates that have come due lately
	Known       int           // users remembered by this process
	Drawn, Over bool
}

// Stats of all rooms, by activity.
func (r *Rooms) Stats() (all []Stats) {
	rooms := *r.rooms.Load()
	for _, activity := range slices.Sorted(maps.Keys(rooms)) {
		m := rooms[activity]
		v := m.view.Load()
		p := &v.Progress
		all = append(all, Stats{
			Activity: activity, Joined: v.Joined, Waiting: v.Joined - p.Head, Called: p.Called, Absent: p.Head - p.Called,
			Outstanding: p.Outstanding, Unused: p.Concluded - p.Taken, Rate: p.Rate, Speed: v.pace.places,
			ETAError: v.meanError, Known: m.users.len(), Drawn: v.drawn(), Over: v.over(),
		})
	}
	return all
}
