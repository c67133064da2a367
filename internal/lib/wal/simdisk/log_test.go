package simdisk

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"sluice/internal/lib/wal"
)

// small makes a log rotate every few records.
var small = wal.Options{SegmentSize: 1200, MaxRecord: 200, MaxStaged: 4096}

// history is what was asked of a log and what it has promised.
type history struct {
	staged  [][]byte // record i+1; what may turn up
	acked   uint64   // reported durable
	trimmed uint64   // records below may be gone
}

func (h *history) record(rng *rand.Rand) []byte {
	b := make([]byte, 1+rng.IntN(150))
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// check opens an image and holds it against the history: everything promised
// is there unaltered, what is missing is a suffix of what was not, and the log
// goes on from there. It answers the opened log.
func (h *history) check(image *Disk) (*wal.Log, error) {
	l, err := wal.Open(image, "d", small)
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	last := l.Durable()
	switch {
	case last < h.acked:
		return nil, fmt.Errorf("%d records, %d were acknowledged", last, h.acked)
	case last > uint64(len(h.staged)):
		return nil, fmt.Errorf("%d records, only %d were ever staged", last, len(h.staged))
	case l.First() > max(h.trimmed, 1):
		return nil, fmt.Errorf("starts at %d, trimmed before %d", l.First(), h.trimmed)
	}
	next := l.First()
	for rec, err := range l.Read(next) {
		if err != nil {
			return nil, fmt.Errorf("read %d: %w", next, err)
		}
		if rec.Seq != next || !bytes.Equal(rec.Data, h.staged[next-1]) {
			return nil, fmt.Errorf("record %d reads as %d, or altered", next, rec.Seq)
		}
		next++
	}
	if next != last+1 {
		return nil, fmt.Errorf("reads end before %d of %d", next, last)
	}
	return l, nil
}

// survives checks an image, writes on, and checks images of that disk too: the
// second power cut, with everything unsynced lost and with a random choice.
func (h *history) survives(image *Disk, rng *rand.Rand) error {
	l, err := h.check(image)
	if err != nil {
		return err
	}
	on := &history{staged: append([][]byte(nil), h.staged[:l.Durable()]...), acked: l.Durable(), trimmed: h.trimmed}
	for range 2 {
		for range 1 + rng.IntN(6) {
			b := on.record(rng)
			if _, err := l.Stage(b); err != nil {
				return fmt.Errorf("stage after recovery: %w", err)
			}
			on.staged = append(on.staged, b)
		}
		if on.acked, err = l.Commit(); err != nil || on.acked != uint64(len(on.staged)) {
			return fmt.Errorf("commit after recovery: %d of %d, %w", on.acked, len(on.staged), err)
		}
	}
	for what, choose := range map[string]Chooser{"nothing unsynced": func(int) int { return 0 }, "at random": Random(rng)} {
		if _, err := on.check(image.Image(choose)); err != nil {
			return fmt.Errorf("second power cut (%s): %w", what, err)
		}
	}
	return nil
}

// TestEveryCrashImage runs workloads of stage, commit, prepare, trim and
// rotation, and takes every image of every prefix of what reaches the disk.
func TestEveryCrashImage(t *testing.T) {
	seeds, steps := uint64(3), 22
	if testing.Short() {
		seeds = 1
	}
	images, prefixes := 0, 0
	for seed := range seeds {
		rng := rand.New(rand.NewPCG(seed, 1))
		d, h := New(), &history{}
		d.Saw(func(op Op) {
			prefixes++
			for label, image := range d.Images(seed, 24) {
				images++
				if err := h.survives(image, rand.New(rand.NewPCG(seed, uint64(op.Number)))); err != nil {
					t.Fatalf("seed %d, power cut after %v, image %s: %v", seed, op, label, err)
				}
			}
		})
		l, err := wal.Open(d, "d", small)
		must(t, err)
		work(t, l, h, rng, steps)
		if l.First() == 1 {
			t.Fatal("nothing was trimmed")
		}
		must(t, l.Close())
	}
	t.Logf("%d crash images of %d prefixes", images, prefixes)
}

// work is the workload. A fault of the disk may end it.
func work(t *testing.T, l *wal.Log, h *history, rng *rand.Rand, steps int) {
	t.Helper()
	for range steps {
		for range 1 + rng.IntN(8) {
			b := h.record(rng)
			if _, err := l.Stage(b); errors.Is(err, wal.ErrFailed) {
				return
			} else if err != nil {
				t.Fatal(err)
			}
			h.staged = append(h.staged, b)
		}
		if rng.IntN(3) == 0 {
			_, err := l.Prepare()
			failed(t, l, err)
		}
		durable, err := l.Commit()
		if durable < h.acked {
			t.Fatalf("durable went back from %d to %d", h.acked, durable)
		}
		h.acked = durable
		if failed(t, l, err) {
			return
		}
		if rng.IntN(4) == 0 && h.acked > 12 {
			// Before the call: a power cut within it finds some of it done.
			h.trimmed = h.acked - 10
			if failed(t, l, l.TrimBefore(h.trimmed)) {
				return
			}
		}
	}
}

// failed says whether the log has ended; any error it does not explain is the test's.
func failed(t *testing.T, l *wal.Log, err error) bool {
	t.Helper()
	if err != nil && !errors.Is(err, wal.ErrFailed) && !errors.Is(err, wal.ErrNoRoom) && !errors.Is(err, ErrFull) && !errors.Is(err, ErrIO) {
		t.Fatal(err)
	}
	return l.Failed() != nil
}

// TestFaultsThenPowerCut lets one operation fail in each way at each place,
// kills the process or cuts the power, and recovers.
func TestFaultsThenPowerCut(t *testing.T) {
	faults := map[string]func(d *Disk, at int, rng *rand.Rand) func(Op) Verdict{
		"EIO at a sync": func(_ *Disk, at int, _ *rand.Rand) func(Op) Verdict {
			return func(o Op) Verdict {
				if o.Number >= at && (o.Kind == Sync || o.Kind == SyncDir) {
					return Verdict{Err: ErrIO}
				}
				return Verdict{}
			}
		},
		"short write": func(_ *Disk, at int, rng *rand.Rand) func(Op) Verdict {
			return func(o Op) Verdict {
				if o.Number >= at && o.Kind == Write {
					return Verdict{Err: ErrIO, Bytes: rng.IntN(o.Len + 1)}
				}
				return Verdict{}
			}
		},
		"disk full": func(d *Disk, at int, rng *rand.Rand) func(Op) Verdict {
			return func(o Op) Verdict {
				if o.Number == at {
					d.Fill(int64(rng.IntN(2000)))
				}
				return Verdict{}
			}
		},
	}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			fired := 0
			for at := 8; at < 120; at += 3 {
				rng := rand.New(rand.NewPCG(uint64(at), 2))
				d, h := New(), &history{}
				l, err := wal.Open(d, "d", small)
				must(t, err)
				d.Judge(fault(d, at, rng))
				work(t, l, h, rng, 12)
				if l.Failed() != nil || name == "disk full" {
					fired++
				}
				d.Judge(nil)
				d.Fill(-1)
				for round := range 6 {
					image := d.Kill()
					if round > 0 {
						image = d.Image(Random(rng))
					}
					if err := h.survives(image, rng); err != nil {
						t.Fatalf("fault at operation %d, image %d: %v", at, round, err)
					}
				}
				// Killed, recovered, and only then the power fails: what the page
				// cache showed to the second process must have been made durable.
				second := d.Kill()
				if l, err = h.check(second); err != nil {
					t.Fatalf("fault at operation %d, killed: %v", at, err)
				}
				on := &history{staged: h.staged[:l.Durable()], acked: l.Durable(), trimmed: h.trimmed}
				if _, err := on.check(second.Image(func(int) int { return 0 })); err != nil {
					t.Fatalf("fault at operation %d, power cut after recovery: %v", at, err)
				}
			}
			if fired < 10 {
				t.Errorf("only %d runs met the fault", fired)
			}
		})
	}
}
