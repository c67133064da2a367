package sqlstore

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/internal/lib/id"
	"sluice/internal/stock"
	"sluice/test/servers"
)

func TestSegments(t *testing.T) { checkSegments(t, openStore(t)) }

func TestSegmentsOnServer(t *testing.T) {
	checkSegments(t, onServer(t, servers.MariaDB(t), servers.SQLDatabase, ""))
}

func checkSegments(t *testing.T, s *Store) {
	f := func(row string, atLeast, size, first int64) {
		t.Helper()
		got, err := s.CutSegment(t.Context(), row, atLeast, size)
		must(t, err)
		equal(t, fmt.Sprintf("%d of %q", size, row), got, id.Segment{First: first, End: first + size})
	}
	f("a", 0, 10, 1)
	f("a", 1, 1, 11)
	f("b", 0, 5, 1) // rows are apart
	f("a", -5, 100, 12)
	f("a", 50, 1, 112) // behind
	f("a", 1000, 1, 1000)
	f("a", 1000, 1, 1001)
	f("c", 77, 1, 77)
	for _, row := range []string{"A", "a ", "ä", "\xff", strings.Repeat("x", id.MaxRow)} { // names are bytes
		f(row, 0, 1, 1)
	}
	f("far", math.MaxInt64-id.MaxSegment-1, id.MaxSegment, math.MaxInt64-id.MaxSegment-1)
	g := func(row string, size int64) {
		t.Helper()
		got, err := s.CutSegment(t.Context(), row, 1, size)
		is(t, fmt.Sprintf("%d of %q", size, row), err, stock.ErrInvalid)
		equal(t, "then", got, id.Segment{})
	}
	g("", 1)
	g(strings.Repeat("x", id.MaxRow+1), 1)
	g("a", 0)
	g("a", -1)
	g("a", id.MaxSegment+1)
	g("far", 2) // past the largest int64
	f("a", 0, 1, 1002)

	t.Run("at once", func(t *testing.T) {
		var cuts [8][]id.Segment
		var wg sync.WaitGroup
		for c := range cuts {
			wg.Go(func() {
				for range 25 {
					cut, err := s.CutSegment(t.Context(), "fresh", 1, int64(c)+1)
					if err != nil {
						t.Error(err)
						return
					}
					cuts[c] = append(cuts[c], cut)
				}
			})
		}
		wg.Wait()
		seen, numbers := map[int64]bool{}, 0
		for c, own := range cuts {
			for i, cut := range own {
				if i > 0 && cut.First < own[i-1].End {
					t.Errorf("caller %d: %v after %v", c, cut, own[i-1])
				}
				for n := cut.First; n < cut.End; n++ {
					seen[n], numbers = true, numbers+1
				}
			}
		}
		if len(seen) != numbers || numbers != 25*36 {
			t.Errorf("%d numbers, %d of them different", numbers, len(seen))
		}
		f("fresh", 1, 1, 25*36+1) // and none left out
	})
}

// Numbers are given once, whatever became of a COMMIT that was not heard of.
func TestSegmentCommitWithoutAnswer(t *testing.T) {
	d := servers.MariaDB(t)
	p := newProxy(t, d.Addr)
	s, err := OpenServer(t.Context(), strings.Replace(d.URL(servers.SQLDatabase), d.Addr, p.addr, 1), Options{})
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	for _, f := range []fate{never, done, later} {
		for _, row := range []string{"known", "fresh " + string(f)} {
			if row == "known" {
				_, err := s.CutSegment(t.Context(), row, 1, 10)
				must(t, err)
			}
			p.arm(f)
			first, err := s.CutSegment(t.Context(), row, 1, 10)
			must(t, err)
			if p.armed.Load() != nil {
				t.Errorf("%s, %s: no COMMIT came by", f, row)
			}
			next, err := s.CutSegment(t.Context(), row, 1, 10)
			must(t, err)
			if next.First < first.End || next.First > first.End+10 {
				t.Errorf("%s, %s: %v and then %v", f, row, first, next)
			}
		}
	}
}

// keepGoing steps numbers until ctx is over; that the store is away is no failure.
func keepGoing(ctx context.Context, n *id.Numbers) error {
	for ctx.Err() == nil {
		worked, err := n.Step(ctx)
		if errors.Is(err, id.ErrWentBack) {
			return err
		}
		if !worked || err != nil {
			select {
			case <-ctx.Done():
			case <-time.After(time.Millisecond):
			}
		}
	}
	return nil
}

// Two processes draw numbers while their server is killed, started again, and
// kills their connections: none comes twice, and each ascends.
func TestNumbersWhileServerIsKilled(t *testing.T) {
	d := servers.MariaDB(t)
	ctx, cancel := context.WithCancel(t.Context())
	var steps, calls sync.WaitGroup
	enough := make(chan struct{})
	var got [2][]int64
	for i := range got {
		s, err := OpenServer(t.Context(), d.URL(servers.SQLDatabase), Options{})
		must(t, err)
		t.Cleanup(func() { must(t, s.Close()) })
		s.write.patience = 50 * time.Millisecond
		n := id.NewNumbers("invoices", s, time.Now)
		steps.Go(func() {
			if err := keepGoing(ctx, n); err != nil {
				t.Error(err)
			}
		})
		calls.Go(func() {
			pace := time.NewTicker(100 * time.Microsecond)
			defer pace.Stop()
			for {
				select {
				case <-enough:
					return
				case <-pace.C:
					if number, err := n.Next(); err == nil {
						got[i] = append(got[i], number)
					}
				}
			}
		})
	}
	for range 3 {
		<-time.After(150 * time.Millisecond)
		killAll(t, d)
		<-time.After(50 * time.Millisecond)
		d.Kill()
		must(t, d.Restart())
	}
	<-time.After(150 * time.Millisecond)
	close(enough)
	calls.Wait()
	cancel()
	steps.Wait()
	seen := map[int64]bool{}
	for i, numbers := range got {
		last := int64(0)
		for _, n := range numbers {
			if n <= last || seen[n] {
				t.Fatalf("process %d: %d after %d, seen %v", i, n, last, seen[n])
			}
			seen[n], last = true, n
		}
		if len(numbers) < 300 {
			t.Errorf("process %d was given %d numbers only", i, len(numbers))
		}
	}
}

const numbersIn = "SLUICE_TEST_NUMBERS_IN"

// TestNumbersProcess is no test but the process that TestNumbersOfKilledProcesses
// kills: it says every number it is given.
func TestNumbersProcess(t *testing.T) {
	path := os.Getenv(numbersIn)
	if path == "" {
		return
	}
	s := openAt(t, path, Options{})
	n := id.NewNumbers("invoices", s, time.Now)
	for {
		if _, err := n.Step(t.Context()); err != nil {
			t.Fatal(err)
		}
		for range 20 { // often two segments are held, sometimes one
			if number, err := n.Next(); err == nil {
				fmt.Println("number", number)
			}
		}
	}
}

// A process that is killed takes the numbers it held with it: its successor gives
// out none that it had said, and goes on close behind.
func TestNumbersOfKilledProcesses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "shop.db")
	newest := int64(0)
	for life := range 6 {
		child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestNumbersProcess$")
		child.Env = append(os.Environ(), numbersIn+"="+path)
		out, err := child.StdoutPipe()
		must(t, err)
		must(t, child.Start())
		said := 0
		for lines := bufio.NewScanner(out); lines.Scan(); {
			text, ok := strings.CutPrefix(lines.Text(), "number ")
			if !ok {
				t.Fatalf("life %d said %q", life, lines.Text())
			}
			number, err := strconv.ParseInt(text, 10, 64)
			if err != nil {
				break // cut off in the middle by the kill
			}
			if number <= newest {
				t.Fatalf("life %d: %d after %d", life, number, newest)
			}
			newest = number
			if said++; said == 37*(life+1) { // then it may say what is in the pipe
				must(t, child.Process.Kill())
			}
		}
		_ = child.Wait() // killed
		if said < 37*(life+1) {
			t.Fatalf("life %d said %d numbers", life, said)
		}
	}
}

// A power cut keeps a prefix of SQLite's log. Whatever it keeps, the row stands
// behind every segment whose cut was answered by then.
func TestSegmentCrashImages(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "shop.db")
	s := openAt(t, path, Options{})
	defer func() { must(t, s.Close()) }()
	_, err := s.CutSegment(t.Context(), "invoices", 1, 10)
	must(t, err)
	_, err = s.Checkpoint(t.Context())
	must(t, err)
	database, log := read(t, path), read(t, path+"-wal")
	type answer struct {
		end int64
		log int // bytes of the log by then
	}
	answers := []answer{{11, 0}}
	for range 5 {
		cut, err := s.CutSegment(t.Context(), "invoices", 1, 10)
		must(t, err)
		after := read(t, path+"-wal")
		answers = append(answers, answer{cut.End, changed(log, after)})
		log = after
	}
	if string(read(t, path)) != string(database) {
		t.Fatal("a checkpoint of its own: this image is not what a power cut leaves")
	}
	last := answers[len(answers)-1].log
	for cut := 0; cut <= last+500; cut += last/40 + 1 {
		image := filepath.Join(dir, fmt.Sprintf("image-%d.db", cut))
		must(t, os.WriteFile(image, database, 0o600))
		must(t, os.WriteFile(image+"-wal", log[:min(cut, len(log))], 0o600))
		again := openAt(t, image, Options{})
		got, err := again.CutSegment(t.Context(), "invoices", 1, 10)
		must(t, err)
		must(t, again.Close())
		for _, a := range answers {
			if a.log <= cut && got.First < a.end {
				t.Errorf("log cut at %d: %v again, which was answered at %d: up to %d", cut, got, a.log, a.end-1)
			}
		}
	}
}

// BenchmarkCutSegment is what fetching a segment costs, and so is what each
// number would cost that is asked of the store by itself.
func BenchmarkCutSegment(b *testing.B) {
	onBoth(b, func(b *testing.B, s *Store) {
		for b.Loop() {
			if _, err := s.CutSegment(b.Context(), "invoices", 1, 1); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkNumbers is what a number costs out of segments of a real store; ns/op
// is per number, the first segments of 100 included.
func BenchmarkNumbers(b *testing.B) {
	onBoth(b, func(b *testing.B, s *Store) {
		n := id.NewNumbers("invoices", s, time.Now)
		ctx, cancel := context.WithCancel(b.Context())
		var stepping sync.WaitGroup
		stepping.Go(func() {
			if err := keepGoing(ctx, n); err != nil {
				b.Error(err)
			}
		})
		b.ReportAllocs()
		for b.Loop() {
			for _, err := n.Next(); err != nil; _, err = n.Next() {
			}
		}
		cancel()
		stepping.Wait()
	})
}

func onBoth(b *testing.B, f func(b *testing.B, s *Store)) {
	b.Run("sqlite", func(b *testing.B) { f(b, openStore(b)) })
	b.Run("mariadb", func(b *testing.B) { f(b, onServer(b, servers.MariaDB(b), servers.SQLDatabase, "")) })
}
