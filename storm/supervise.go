package storm

import (
	"context"
	"time"
)

// Supervisor runs beside the rush. It may kill the server and start it again as
// often as it likes, and says so to the watch. It returns with the server up;
// the rush ends when it does, and ctx ends when the rush is over otherwise. An
// error counts as a violation: the server did not come back.
type Supervisor func(ctx context.Context, w *Watch) error

// Watch is where a Supervisor tells the storm what has become of the server.
// It belongs to the supervisor's goroutine.
type Watch struct {
	r       *rehearsal
	checked int // receipts that had arrived at the last Up
	ups     int
}

// Bounds of what is checked at each Up: it must fit between two kills.
const (
	freshChecks = 600 // promises made since the Up before
	olderChecks = 150 // and a sample of all others
)

// Down says that the server is dead since at. Failures are expected from now on.
func (w *Watch) Down(at time.Time) { w.r.outage.down(at) }

// Broken says that a part of the shop is away since at, dead, paused or cut off,
// while others go on. The report tells by its name for how long shoppers were
// not served. Until Up, orders may wait to be landed, and the ledger may learn
// late of those that have ended.
func (w *Watch) Broken(part string, at time.Time) {
	w.r.oracle.troubles.begin(at)
	w.r.service.broken(part, at, w.r.oracle.opens)
}

// Up says that the server, or every part of the shop, is ready: what was promised must be there. The keys
// of receipts are sent again, those of the last life and some of the older ones.
func (w *Watch) Up() {
	now := time.Now()
	w.r.oracle.troubles.end(now)
	w.r.service.mended(now)
	all := w.r.oracle.known()
	w.r.replaySome(all[w.checked:], freshChecks, w.ups)
	w.r.replaySome(all[:w.checked], olderChecks, w.ups)
	w.checked = len(all)
	w.ups++
}

// supervise lets the supervisor work until the rush is over.
func (r *rehearsal) supervise(rush context.Context) {
	if err := r.o.Supervisor(rush, &Watch{r: r}); err != nil {
		r.oracle.broken.add("the server did not come back: %v", err)
	}
}
