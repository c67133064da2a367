package storm

import (
	"context"
	"fmt"
	"net/url"
	"time"
)

// Third is what purchases were answered in one third of a rush: before a playbook
// was pulled, while it was, and after it was reverted.
type Third struct {
	When     string            `json:"when"`
	Seconds  float64           `json:"seconds"`
	Attempts uint64            `json:"attempts"`
	Accepted uint64            `json:"accepted"`
	Refused  map[string]uint64 `json:"refused"` // by code
}

// underPlaybook pulls a playbook for the middle third of the rush.
func (r *rehearsal) underPlaybook(ctx context.Context) {
	pulled := false
	operate := func(what string) {
		path := r.shop.ops + "/v1/playbooks/" + url.PathEscape(r.o.Playbook) + "/" + what
		if err := r.shop.read("POST", path, []byte(r.shop.opsToken), []byte("{}"), nil); err != nil {
			r.notes.add("%s the playbook %s: %v", what, r.o.Playbook, err)
			return
		}
		pulled = what == "pull"
	}
	defer func() {
		if pulled {
			operate("revert")
		}
	}()
	third := r.o.Duration / 3
	before, from := r.meter.soFar(), time.Now()
	for i, then := range []struct{ when, act string }{{"before", "pull"}, {"pulled", "revert"}, {"after", ""}} {
		over := time.NewTimer(time.Until(r.began.Add(third * time.Duration(i+1))))
		select {
		case <-over.C:
		case <-ctx.Done():
		}
		over.Stop()
		now, at := r.meter.soFar(), time.Now()
		r.thirds = append(r.thirds, thirdOf(then.when, before, now, at.Sub(from)))
		before, from = now, at
		if then.act != "" && ctx.Err() == nil {
			operate(then.act)
		}
	}
}

func thirdOf(when string, before, now counts, took time.Duration) Third {
	t := Third{When: when, Seconds: took.Seconds(), Attempts: now.attempts - before.attempts, Accepted: now.accepted - before.accepted,
		Refused: map[string]uint64{}}
	for i, n := range now.refused {
		if n -= before.refused[i]; n > 0 {
			t.Refused[codes[i]] = n
		}
	}
	return t
}

// String is a line of the report.
func (t Third) String() string {
	return fmt.Sprintf("%.1f s: %d attempts, %d accepted, refused %s", t.Seconds, t.Attempts, t.Accepted, ranked(t.Refused, 5))
}
