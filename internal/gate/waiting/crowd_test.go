package waiting_test

import (
	"context"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/internal/gate/waiting"
)

// ledgerless gives out numbers and remembers nobody, so that what is measured is
// not the Line.
type ledgerless struct {
	waiting.Line
	next atomic.Int64
	room atomic.Pointer[waiting.Room]
}

func (l *ledgerless) Join(_ context.Context, _, _ string, e waiting.EntryID, _, _ int) (int, waiting.EntryID, error) {
	return int(l.next.Add(1) - 1), e, nil
}

func (l *ledgerless) Room(context.Context, string) (waiting.Room, error) {
	r := *l.room.Load()
	r.Joined = int(l.next.Load())
	return r, nil
}

func heapNow() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkCrowd is fifty thousand people in one process: all come in, all are
// drawn, all poll, and a step of the room while they are there.
func BenchmarkCrowd(b *testing.B) {
	const people = 50_000
	var names [people]string
	for i := range names {
		names[i] = "user-" + strconv.Itoa(i)
	}
	var join, poll, step, draw time.Duration
	var memory uint64
	for range b.N {
		now := opening.Add(-time.Minute)
		line, there := &ledgerless{}, &waiting.Local{}
		room := waiting.Room{Activity: activity, Seed: waiting.Seed{1}}
		line.room.Store(&room)
		g := waiting.NewRooms(waiting.Options{Line: line, Presence: there, Now: func() time.Time { return now },
			Activities: func() []string { return []string{activity} },
			Config: func(string) (waiting.Config, bool) {
				return waiting.Config{OpensAt: waiting.Millis(opening.UnixMilli()), Opens: time.Hour, Pass: 2 * time.Minute,
					Absent: 30 * time.Second, Most: people, Rate: 1000}, true
			},
			Stock: func(string) (waiting.Stock, bool) { return waiting.Stock{Free: 1000}, true },
		}, "bench", 2*people, waiting.NewPace(0))
		run := func() time.Duration {
			from := time.Now()
			if _, err := g.Step(b.Context()); err != nil {
				b.Fatal(err)
			}
			return time.Since(from)
		}
		all := func(each func(name string) error) time.Duration {
			from := time.Now()
			var done sync.WaitGroup
			for part := range 4 {
				done.Go(func() {
					for i := part; i < people; i += 4 {
						if err := each(names[i]); err != nil {
							b.Error(err)
						}
					}
				})
			}
			done.Wait()
			return time.Since(from)
		}
		run()
		before := heapNow()
		join += all(func(name string) error { _, err := g.Join(b.Context(), activity, name); return err })
		run()
		drawn := room
		drawn.Revision, drawn.Progress = 1, waiting.Progress{DrawnAt: 1, Drawn: people, Digest: make([]byte, 32), Steps: []waiting.Step{{At: 1}}}
		line.room.Store(&drawn)
		draw += run()
		poll += all(func(name string) error { _, err := g.Place(b.Context(), activity, name); return err })
		now = now.Add(30 * time.Second)
		all(func(name string) error { _, err := g.Place(b.Context(), activity, name); return err })
		step += run() // which tells of all
		memory += heapNow() - before
		runtime.KeepAlive(g)
	}
	b.ReportMetric(float64(join.Nanoseconds())/float64(b.N)/people, "ns/join")
	b.ReportMetric(float64(poll.Nanoseconds())/float64(b.N)/people, "ns/poll")
	b.ReportMetric(float64(draw.Microseconds())/1000/float64(b.N), "ms/draw")
	b.ReportMetric(float64(step.Microseconds())/1000/float64(b.N), "ms/step")
	b.ReportMetric(float64(memory)/float64(b.N)/people, "B/person")
	b.ReportMetric(0, "ns/op")
}

// Fifty thousand wait; each has a place of his own, and places only fall.
func TestFiftyThousand(t *testing.T) {
	const people = 50_000
	w := newWorld(t, 1)
	w.free, w.config.Rate = people, 4000
	w.gaps = true
	w.run(time.Second)
	g := w.gates[0]
	for i := range people {
		if _, err := g.Join(t.Context(), activity, strconv.Itoa(i)); err != nil {
			t.Fatal(err)
		}
	}
	last := make([]int, people)
	look := func() (wait int) {
		t.Helper()
		taken := make([]bool, people+1)
		for i := range people {
			p, err := g.Place(t.Context(), activity, strconv.Itoa(i))
			if err != nil {
				t.Fatal(err)
			}
			if p.State != waiting.Waiting {
				last[i] = 0
				continue
			}
			wait++
			if taken[p.Position] || last[i] != 0 && p.Position > last[i] {
				t.Fatalf("user %d is at %d, was at %d; somebody else is there: %v", i, p.Position, last[i], taken[p.Position])
			}
			taken[p.Position], last[i] = true, p.Position
		}
		return wait
	}
	for w.now.Before(opening) {
		look()
		w.run(3 * time.Second)
	}
	for before := people + 1; ; w.run(3 * time.Second) {
		wait := look()
		check(t, wait < before, "%d wait, %d before", wait, before)
		if before = wait; wait == 0 {
			break
		}
	}
	p := w.room().Progress
	check(t, p.Called == people, "%d called of %d", p.Called, p.Head)
}
