package storm

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

func TestOutages(t *testing.T) {
	at := func(ms int) time.Time { return time.Unix(100, 0).Add(time.Duration(ms) * time.Millisecond) }
	var o outage
	if !o.clearSince(at(0)) {
		t.Error("not clear before anything has happened")
	}
	o.down(at(10))
	o.failed(at(12))
	o.down(at(50)) // dead again before it has answered
	o.answered(at(9), at(60))
	o.answered(at(70), at(90))
	o.down(at(200))
	if o.clearSince(at(150)) || !o.active() {
		t.Error("clear while the server is dead")
	}
	o.answered(at(201), at(230))
	if got := o.lengths(); len(got) != 2 || got[0] != 80 || got[1] != 30 {
		t.Errorf("outages of %v ms", got)
	}
	if d, ok := o.length(); !ok || d != 80*time.Millisecond {
		t.Errorf("the longest lasted %s, %v", d, ok)
	}
	if o.clearSince(at(220)) || !o.clearSince(at(231)) {
		t.Error("clear since the wrong time")
	}
}

// The rush lasts as long as the supervisor works, and after each Up promises
// are asked for again.
func TestSupervisor(t *testing.T) {
	t.Parallel()
	_, o := openStall(t, honest)
	const spell = 400 * time.Millisecond
	o.Duration = time.Minute
	o.Supervisor = func(ctx context.Context, w *Watch) error {
		for range 3 {
			select {
			case <-time.After(spell):
			case <-ctx.Done():
				return ctx.Err()
			}
			w.Down(time.Now())
			w.Up()
		}
		<-time.After(spell / 4) // somebody must be answered after the last one
		return nil
	}
	report, err := rehearse(t.Context(), o, hasty, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Violations) != 0 || report.Sold != o.Stock {
		t.Errorf("sold %d of %d; %s", report.Sold, o.Stock, strings.Join(report.Violations, "\n"))
	}
	if report.Seconds < 3*spell.Seconds()-1 || report.Seconds > 20 {
		t.Errorf("the rush lasted %.1f s", report.Seconds)
	}
	if len(report.OutagesMS) == 0 || report.UnavailableMS <= 0 || report.Rechecked <= int64(report.Accepted) {
		t.Errorf("outages %v, the longest %.1f ms; %d of %d promises asked for again", report.OutagesMS, report.UnavailableMS, report.Rechecked, report.Accepted)
	}

	// One that gives up is a violation.
	r := &rehearsal{oracle: newOracle(1, time.Now()), agenda: newAgenda(), service: newService(1)}
	r.o.Supervisor = func(context.Context, *Watch) error { return errors.New("no such server") }
	r.supervise(t.Context())
	if got := r.oracle.broken.list(); len(got) != 1 || !strings.Contains(got[0], "no such server") {
		t.Errorf("said %q", got)
	}
}

// Fresh promises are all asked for, of the older ones a part, another each time.
func TestUp(t *testing.T) {
	r := &rehearsal{oracle: newOracle(1, time.Now()), agenda: newAgenda(), service: newService(1)}
	w := &Watch{r: r}
	f := func(more int, want int64) {
		t.Helper()
		for range more {
			r.oracle.order = append(r.oracle.order, &receipt{})
		}
		before := r.rechecked.Load()
		w.Up()
		if got := r.rechecked.Load() - before; got != want {
			t.Errorf("%d promises are asked for, want %d", got, want)
		}
	}
	f(0, 0)
	f(100, 100)
	f(20, 120)
	f(0, 120)
	f(480, 480+120)
	f(0, 150) // every fourth of 600
}
