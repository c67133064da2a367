package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// diary is a roster that notes what it is told.
type diary struct {
	lines []string
	away  error
}

func (d *diary) Join(_ context.Context, m Member, ttl time.Duration) error {
	if d.away == nil {
		d.lines = append(d.lines, fmt.Sprintf("%s %q %s", m.Name, m.Ailing, ttl))
	}
	return d.away
}

func (d *diary) Leave(_ context.Context, name string) error {
	d.lines = append(d.lines, name+" left")
	return d.away
}

func TestPresence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d diary
		var health func(context.Context) error
		well := func(context.Context) error { return nil }
		health = well
		p := NewPresence(&d, Member{Name: "m"}, time.Minute, func(ctx context.Context) error { return health(ctx) }, time.Now)
		f := func(wait time.Duration, worked bool, err error, want ...string) {
			t.Helper()
			<-time.After(wait) // of the bubble: no time passes outside
			d.lines = nil
			if got, gotErr := p.Step(t.Context()); got != worked || !errors.Is(gotErr, err) || !slices.Equal(d.lines, want) {
				t.Errorf("%v, %v, %q; want %v, %v, %q", got, gotErr, d.lines, worked, err, want)
			}
		}
		f(0, false, nil, `m "" 1m0s`)
		f(19*time.Second, false, nil)
		f(time.Second, false, nil, `m "" 1m0s`)

		health = func(context.Context) error { return errors.New("no ledger") }
		f(time.Second, true, nil, `m "no ledger" 1m0s`)
		f(time.Second, false, nil)
		// A question that is not answered is an answer; the heartbeat goes on.
		health = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		f(time.Second, true, nil, `m "context deadline exceeded" 1m0s`)
		health = well
		d.away = errors.New("away")
		f(time.Second, false, d.away)
		d.away = nil
		f(time.Second, true, nil, `m "" 1m0s`)

		if err := p.Leave(t.Context()); err != nil {
			t.Error(err)
		}
		f(time.Hour, false, nil)
	})
}

func TestCheck(t *testing.T) {
	f := func(err error, want error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
	}
	f(Member{Name: "m"}.Check(), nil)
	f(Member{}.Check(), ErrInvalid)
	f(Document{Name: "d", Data: []byte(`{}`)}.Check(), nil)
	f(Document{Name: "d"}.Check(), ErrInvalid)
	f(Document{Data: []byte(`{}`)}.Check(), ErrInvalid)
}
