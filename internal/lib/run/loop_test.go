package run

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// script is a task whose steps answer from a list; the loop is cancelled when
// the list has run out. It keeps the time of each step since the first.
type script struct {
	answers []answer
	at      []time.Duration
	log     bytes.Buffer
}

type answer struct {
	worked bool
	err    error
}

func (s *script) play(t *testing.T, task Task) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	began := time.Now()
	task.Name = "scripted"
	task.Step = func(context.Context) (bool, error) {
		a := s.answers[len(s.at)]
		s.at = append(s.at, time.Since(began))
		if len(s.at) == len(s.answers) {
			cancel()
		}
		return a.worked, a.err
	}
	Loop(ctx, slog.New(slog.NewTextHandler(&s.log, nil)), task)
}

func TestLoopPauses(t *testing.T) {
	const idle = 100 * time.Millisecond
	boom, bang := errors.New("boom"), errors.New("bang")
	busy, none, fail := answer{true, nil}, answer{}, answer{false, boom}
	last := answer{}
	f := func(answers []answer, wantMillis ...int) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			s := &script{answers: answers}
			s.play(t, Task{Idle: idle})
			var got []int
			for _, at := range s.at {
				got = append(got, int(at.Milliseconds()))
			}
			if !slices.Equal(got, wantMillis) {
				t.Errorf("steps at %v ms, want %v", got, wantMillis)
			}
		})
	}
	f([]answer{busy, busy, last}, 0, 0, 0)
	f([]answer{none, none, busy, last}, 0, 100, 200, 200)
	f([]answer{fail, fail, fail, fail, last}, 0, 100, 300, 700, 1500)
	f([]answer{fail, fail, none, fail, last}, 0, 100, 300, 400, 500) // success resets the back-off
	f([]answer{fail, {false, bang}, fail, last}, 0, 100, 300, 700)   // another error does not
	f([]answer{{true, boom}, {true, boom}, last}, 0, 100, 300)       // nor does having worked
	f(append(slices.Repeat([]answer{fail}, 10), last), 0, 100, 300, 700, 1500, 3100, 6300, 12700, 25500, 40500, 55500)
}

func TestLoopLogsOncePerChangeOfError(t *testing.T) {
	fail := func(text string) answer { return answer{false, fmt.Errorf("wrapped: %w", errors.New(text))} }
	synctest.Test(t, func(t *testing.T) {
		s := &script{answers: []answer{fail("a"), fail("a"), fail("a"), fail("b"), fail("a"), {}, {}, fail("a"), {}}}
		s.play(t, Task{Idle: time.Millisecond})
		out := s.log.String()
		if got := strings.Count(out, "task is failing"); got != 4 {
			t.Errorf("%d error lines, want 4 (a, b, a, and a after recovery):\n%s", got, out)
		}
		if got := strings.Count(out, "task has recovered"); got != 1 {
			t.Errorf("%d recoveries, want 1:\n%s", got, out)
		}
	})
}

func TestLoopWake(t *testing.T) {
	f := func(first answer, wake func(chan struct{}), want time.Duration) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			c := make(chan struct{}, 1)
			s := &script{answers: []answer{first, {}, {}}}
			wake(c)
			s.play(t, Task{Idle: time.Second, Wake: c})
			if s.at[1] != want || s.at[2] != want+time.Second {
				t.Errorf("steps at %v, want the second at %v and the third a second later", s.at, want)
			}
		})
	}
	signal := func(c chan struct{}) { c <- struct{}{} }
	f(answer{}, func(chan struct{}) {}, time.Second)
	f(answer{}, signal, 0)
	f(answer{}, func(c chan struct{}) { close(c) }, 0) // and does not spin from then on
}

func TestLoopWakeDoesNotShortenAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := make(chan struct{}, 1)
		c <- struct{}{}
		s := &script{answers: []answer{{false, errors.New("down")}, {}}}
		s.play(t, Task{Idle: time.Second, Wake: c})
		if s.at[1] != time.Second {
			t.Errorf("second step at %v, want 1s", s.at[1])
		}
	})
}

func TestLoopEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var out bytes.Buffer
		began := time.Now()
		Loop(ctx, slog.New(slog.NewTextHandler(&out, nil)), Task{Name: "slow", Step: func(ctx context.Context) (bool, error) {
			<-ctx.Done()
			return false, ctx.Err()
		}})
		if took := time.Since(began); took != time.Minute {
			t.Errorf("took %v", took)
		}
		if out.Len() != 0 {
			t.Errorf("its own interruption was logged: %s", &out)
		}
	})
}

func TestLoopDoesNotSwallowPanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("the panic of a step was swallowed")
		}
	}()
	Loop(t.Context(), slog.New(slog.DiscardHandler), Task{Step: func(context.Context) (bool, error) { panic("impossible") }})
}
