package sqlstore

import (
	"context"
	"database/sql/driver"
	"fmt"
	"strings"
	"sync"

	"sluice/internal/gate/waiting"
	"sluice/internal/stock"
)

// joins gathers those who join waiting rooms at once. The numbers of a room have no
// gap, so whoever takes one locks the room until his commit: one transaction each
// would be one sync after the other, on a server too, where other writes share
// theirs. As with the writer, the first to find nobody leading leads: he takes
// all who have come for his room along, and passes the lead on.
type joins struct {
	mu     sync.Mutex
	queues map[string][]*join // by activity; one that is there has somebody leading
	queued int
}

// join is one who joins.
type join struct {
	user          string
	entry         waiting.EntryID
	instead, most int

	number int
	given  waiting.EntryID
	err    error
	woken  chan bool // true: done; false: you lead now
}

// maxJoins bounds those who join by one transaction.
const maxJoins = 500

// Join implements waiting.Line. A caller who gives up while others are at it may
// have joined all the same, as after an answer that was lost.
func (w *Waiting) Join(ctx context.Context, activity, user string, entry waiting.EntryID, instead, most int) (int, waiting.EntryID, error) {
	me := &join{user: user, entry: entry, instead: instead, most: most, woken: make(chan bool, 1)}
	lead, err := w.joins.enter(ctx, activity, me)
	if err != nil {
		return 0, waiting.EntryID{}, err
	}
	if !lead {
		// No longer than writes take: who leads is not held up by us.
		lead = !<-me.woken
	}
	if lead {
		w.lead(activity)
	}
	return me.number, me.given, me.err
}

func (j *joins) enter(ctx context.Context, activity string, me *join) (lead bool, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	if j.queued >= maxQueued {
		return false, fmt.Errorf("store: join a waiting room: %w: %d are joining", stock.ErrOverloaded, j.queued)
	}
	if j.queues == nil {
		j.queues = map[string][]*join{}
	}
	_, led := j.queues[activity]
	j.queues[activity] = append(j.queues[activity], me)
	j.queued++
	return !led, nil
}

// lead joins for the first of a queue.
func (w *Waiting) lead(activity string) {
	w.joins.mu.Lock()
	queue := w.joins.queues[activity]
	group := queue[:min(len(queue), maxJoins)]
	w.joins.mu.Unlock()

	err := w.s.writing(context.Background(), "join a waiting room", func(c *conn) error { return joinAll(c, activity, group) })

	w.joins.mu.Lock()
	defer w.joins.mu.Unlock()
	rest := w.joins.queues[activity][len(group):]
	w.joins.queued -= len(group)
	if len(rest) > 0 {
		w.joins.queues[activity] = rest
		rest[0].woken <- false
	} else {
		delete(w.joins.queues, activity)
	}
	for i, j := range group {
		if err != nil {
			j.err = err
		}
		if i > 0 {
			j.woken <- true
		}
	}
}

// joinAll gives each of a group his number. It may run again: who has got one
// by an earlier run is found to have it.
func joinAll(c *conn, activity string, group []*join) error {
	_, there, err := c.one("SELECT 1 FROM waiting_rooms WHERE activity = ?"+c.d.forUpdate, activity)
	if err != nil {
		return err
	}
	if !there {
		return waiting.ErrNoRoom
	}
	next := 0
	row, _, err := c.one("SELECT max(number) FROM waiting_places WHERE activity = ?", activity)
	if err != nil {
		return err
	}
	if row[0] != nil {
		next = int(integer(row[0])) + 1
	}
	have, err := placesOf(c, activity, group)
	if err != nil {
		return err
	}
	var rows []args
	for _, j := range group {
		j.number, j.given, j.err = 0, waiting.EntryID{}, nil
		if p, has := have[j.user]; has && p.number != j.instead {
			j.number, j.given = p.number, p.entry
			continue
		}
		if next >= j.most {
			j.err = waiting.ErrFull
			continue
		}
		j.number, j.given = next, j.entry
		have[j.user] = waitingPlace{next, j.entry}
		next++
		var a args
		a.text(activity)
		a.int(int64(j.number))
		a.text(j.user)
		a.blob(j.given[:])
		rows = append(rows, a)
	}
	return insertPlace.all(c, rows)
}

var insertPlace = insertInto("waiting_places", "activity, number, user, entry", 4)

type waitingPlace struct {
	number int
	entry  waiting.EntryID
}

// placesOf answers the places that a group have already.
func placesOf(c *conn, activity string, group []*join) (map[string]waitingPlace, error) {
	have := make(map[string]waitingPlace, len(group))
	for at := 0; at < len(group); {
		n := min(c.d.rows, len(group)-at)
		values := make([]any, 1, n+1)
		values[0] = activity
		for _, j := range group[at : at+n] {
			values = append(values, j.user)
		}
		err := c.query(context.Background(), "SELECT user, number, entry FROM waiting_places WHERE activity = ? AND user IN "+placeholders(n),
			func(row []driver.Value) error {
				p := waitingPlace{number: int(integer(row[1]))}
				copy(p.entry[:], blob(row[2]))
				user := strings.Clone(text(row[0]))
				if old, has := have[user]; !has || old.number < p.number {
					have[user] = p
				}
				return nil
			}, values...)
		if err != nil {
			return nil, err
		}
		at += n
	}
	return have, nil
}
