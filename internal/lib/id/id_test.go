package id

import (
	"errors"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sluice/internal/lib/shard"
)

var start = time.UnixMilli(epoch + 1_000_000)

// Each of the 63 bits belongs to one field, where docs/decisions/0021-ids.md
// says that it does.
func TestBits(t *testing.T) {
	type fields struct {
		ms     int64
		gene   uint16
		worker int
		low    uint64
	}
	read := func(n uint64) fields {
		return fields{Time(n).UnixMilli() - 1735689600000, Gene(n), Worker(n), n & 15}
	}
	f := func(bit int, want fields) {
		t.Helper()
		n := uint64(1) << bit
		if got := read(n); got != want {
			t.Errorf("bit %d: %+v, want %+v", bit, got, want)
		}
		if got, err := Parse(Format(n)); err != nil || got != n {
			t.Errorf("bit %d: Parse(Format(%d)) = %d, %v", bit, n, got, err)
		}
	}
	for bit := range 4 {
		f(bit, fields{low: 1 << bit})
	}
	for bit := range 8 {
		f(4+bit, fields{worker: 1 << bit})
	}
	for bit := range 10 {
		f(12+bit, fields{gene: 1 << bit})
	}
	for bit := range 41 {
		f(22+bit, fields{ms: 1 << bit})
	}
	if _, err := Parse(Format(1 << 63)); !errors.Is(err, ErrMalformed) {
		t.Errorf("a 64th bit: %v", err)
	}
}

func TestLayout(t *testing.T) {
	f := func(worker int, gene uint16, ms, sequence uint64, want uint64) {
		t.Helper()
		now := time.UnixMilli(epoch)
		s := NewSource(worker, func() time.Time { return now })
		now = now.Add(time.Duration(ms) * time.Millisecond)
		var got uint64
		for range sequence + 1 {
			got = s.Next(gene)
		}
		if got != want {
			t.Errorf("got %b, want %b", got, want)
		}
		if Gene(got) != gene || Worker(got) != worker || !Time(got).Equal(now) {
			t.Errorf("%d reads back as gene %d worker %d time %v", got, Gene(got), Worker(got), Time(got))
		}
	}
	f(0, 0, 1, 0, 1<<22)
	f(0, 0, 1, 15, 1<<22|15)
	f(1, 0, 1, 0, 1<<22|1<<4)
	f(255, 0, 1, 0, 1<<22|255<<4)
	f(0, 1, 1, 0, 1<<22|1<<12)
	f(0, 1023, 1, 0, 1<<22|1023<<12)
	f(255, 1023, 1<<41-1, 15, 1<<63-1) // the largest id is the largest int64
}

// The range as the decision record states it: from when to when, how many
// workers, how many ids in a millisecond.
func TestRange(t *testing.T) {
	equal := func(what string, got, want any) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	equal("first", Time(0).Format(time.RFC3339Nano), "2025-01-01T00:00:00Z")
	equal("last", Time(1<<63-1).Format(time.RFC3339Nano), "2094-09-07T15:47:35.551Z")
	equal("workers", Workers, 256)
	equal("genes", Genes, 1024)
	f := func(marks bool, want int) {
		t.Helper()
		now := start
		s := NewSource(0, func() time.Time { return now })
		s.marks = marks
		now = now.Add(time.Second)
		n := 0
		for _, user := range userOfEachGene() {
			for Time(s.For(user)).Equal(now) {
				n++
			}
		}
		equal("ids of one worker in one millisecond", n, want)
	}
	f(false, 16*1024)
	f(true, 1024)

	// Before its time and behind it a source does not make ids that look like others.
	if millis(time.UnixMilli(epoch-1)) != 0 {
		t.Error("before 2025")
	}
	defer func() {
		if recover() == nil {
			t.Error("an id of 2095")
		}
	}()
	NewSource(0, func() time.Time { return time.UnixMilli(epoch + 1<<41) }).Next(0)
}

// userOfEachGene is a user for each gene, in its order.
func userOfEachGene() []string {
	users, found := make([]string, Genes), 0
	for i := 0; found < Genes; i++ {
		user := strconv.Itoa(i)
		if gene := GeneOf(user); users[gene] == "" {
			users[gene] = user
			found++
		}
	}
	return users
}

// "Orders of a user" and "order by id" ask the same logical shard.
func TestShardOfIDAndOfUser(t *testing.T) {
	plain, marking := NewSource(9, time.Now), NewMarkingSource(9, time.Now)
	for _, user := range append(userOfEachGene(), "", "\xff", "用户") {
		minted, err := plain.Mint(user)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range []uint64{minted, plain.For(user), marking.For(user), marking.Next(GeneOf(user))} {
			if Shard(n) != shard.Of(user) || Shard(n) != int(GeneOf(user)) {
				t.Fatalf("%q is in shard %d, its order %d in %d", user, shard.Of(user), n, Shard(n))
			}
		}
	}
}

func TestOverflowBorrowsTheNextMillisecond(t *testing.T) {
	now := start
	s := NewSource(7, func() time.Time { return now })
	now = now.Add(time.Second)
	var ids []uint64
	for range 40 {
		ids = append(ids, s.Next(3))
	}
	if !slices.IsSorted(ids) || len(slices.Compact(slices.Clone(ids))) != len(ids) {
		t.Errorf("ids do not ascend: %v", ids)
	}
	if got, want := Time(ids[39]), now.Add(2*time.Millisecond).UTC(); !got.Equal(want) {
		t.Errorf("the 40th id is of %v, want %v", got, want)
	}
	now = now.Add(2 * time.Millisecond) // paid back: the borrowed millisecond goes on where it was
	if got := s.Next(3); got != ids[39]+1 {
		t.Errorf("got %d after %d", got, ids[39])
	}
}

func TestProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := start
		worker := rapid.IntRange(0, Workers-1).Draw(t, "worker")
		s := NewSource(worker, func() time.Time { return now })
		genes := rapid.SliceOfN(rapid.Uint16Range(0, Genes-1), 1, 3).Draw(t, "genes")
		newest := map[uint16]uint64{}
		for range rapid.IntRange(1, 200).Draw(t, "ids") {
			// Steps of the clock both ways, most of them within a millisecond.
			now = now.Add(rapid.SampledFrom([]time.Duration{
				0, 0, 0, time.Microsecond, time.Millisecond, time.Hour, -time.Millisecond, -time.Hour,
			}).Draw(t, "step"))
			gene := rapid.SampledFrom(genes).Draw(t, "gene")
			n := s.Next(gene)
			if n <= newest[gene] {
				t.Fatalf("gene %d: %d after %d", gene, n, newest[gene])
			}
			newest[gene] = n
			if Gene(n) != gene || Worker(n) != worker {
				t.Fatalf("%d: gene %d worker %d, want %d and %d", n, Gene(n), Worker(n), gene, worker)
			}
			if back, err := Parse(Format(n)); err != nil || back != n {
				t.Fatalf("Parse(Format(%d)) = %d, %v", n, back, err)
			}
		}
	})
}

func TestUniqueAcrossGoroutines(t *testing.T) {
	const goroutines, each = 8, 5_000
	s := NewMarkingSource(0, time.Now)
	ids := make([][]uint64, goroutines)
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			for i := range each {
				n := s.For("alice")
				if i%2 == 0 {
					n = s.Next(uint16(i % 3)) // few genes: they collide
				}
				ids[g] = append(ids[g], n)
			}
		})
	}
	wg.Wait()
	seen := make(map[uint64]bool, goroutines*each)
	for _, own := range ids {
		last := map[uint16]uint64{}
		for _, n := range own {
			if seen[n] {
				t.Fatalf("id %d twice", n)
			}
			seen[n] = true
			if n <= last[Gene(n)] {
				t.Fatalf("a goroutine saw %d after %d", n, last[Gene(n)])
			}
			last[Gene(n)] = n
		}
	}
}

func TestMarks(t *testing.T) {
	now := start
	s, plain := NewMarkingSource(3, func() time.Time { return now }), NewSource(3, func() time.Time { return now })
	now = now.Add(time.Second)
	newest, others := uint64(0), 0
	for i := range 1000 {
		n := s.For("alice")
		if n <= newest || !Marked(n, "alice") || Gene(n) != GeneOf("alice") || Worker(n) != 3 {
			t.Fatalf("%d after %d, marked %v", n, newest, Marked(n, "alice"))
		}
		newest = n
		if Marked(n, "user-"+strconv.Itoa(i)) {
			others++
		}
	}
	if others > 2 { // one in 16,384
		t.Errorf("%d of 1000 ids could be somebody else's", others)
	}
	if n := s.Next(GeneOf("alice")); n <= newest {
		t.Errorf("Next gave %d after %d", n, newest)
	}
	// In a hurry: ids stay near the clock, and are still never the same.
	for range 30_000 {
		n := s.For("alice")
		if n <= newest {
			t.Fatalf("%d after %d", n, newest)
		}
		newest = n
	}
	if ahead := Time(newest).Sub(now); ahead > 4*time.Second {
		t.Errorf("31,000 ids at once are %s ahead of the clock", ahead)
	}
	marked := 0
	for range 160 {
		if Marked(plain.For("alice"), "alice") {
			marked++
		}
	}
	if marked != 10 { // each millisecond has one
		t.Errorf("%d of 160 ids of a source that counts are marked", marked)
	}
}

func TestParseRefuses(t *testing.T) {
	f := func(s string) {
		t.Helper()
		if n, err := Parse(s); !errors.Is(err, ErrMalformed) {
			t.Errorf("Parse(%q) = %d, %v", s, n, err)
		}
	}
	f("")
	f("-1")
	f("+1")
	f("01")
	f(" 1")
	f("1e3")
	f("0x1")
	f("1_000")
	f("9223372036854775808") // 2^63
	f("99999999999999999999999999999999")
}

func TestNewSourceRefusesForeignWorkers(t *testing.T) {
	f := func(do func()) {
		t.Helper()
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
		}()
		do()
	}
	f(func() { NewSource(-1, time.Now) })
	f(func() { NewSource(Workers, time.Now) })
	f(func() { NewSource(0, time.Now).Next(Genes) })
}
