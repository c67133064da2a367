package waiting_test

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math"
	"slices"
	"testing"

	"sluice/internal/gate/waiting"
)

func seedOf(n int) (s waiting.Seed) {
	binary.BigEndian.PutUint64(s[8:], uint64(n)*0x9e3779b97f4a7c15)
	return s
}

func entriesOf(n, from int) (all []waiting.EntryID) {
	for i := range n {
		var e waiting.EntryID
		binary.BigEndian.PutUint64(e[:], uint64(from+i))
		all = append(all, e)
	}
	return all
}

// A draw made by hand with other tools:
//
//	seed 00…00, entries 00…00 01, 00…00 02, 00…00 03
func TestDrawByHand(t *testing.T) {
	entries := []waiting.EntryID{{15: 1}, {15: 2}, {15: 3}}
	digest := waiting.Digest(entries)
	commitment := waiting.Seed{}.Commitment()
	f := func(what string, got []byte, want string) {
		t.Helper()
		if hex.EncodeToString(got) != want {
			t.Errorf("%s: %x, want %s", what, got, want)
		}
	}
	f("commitment", commitment[:], byHandCommitment)
	f("digest", digest[:], byHandDigest)
	if got := waiting.Places(waiting.Seed{}, digest, 3); !slices.Equal(got, byHandPlaces) {
		t.Errorf("places %v, want %v", got, byHandPlaces)
	}
}

func TestPlacesArePermutation(t *testing.T) {
	for _, n := range []int{0, 1, 2, 1000, 100_000} {
		places := waiting.Places(seedOf(n), [32]byte{1}, n)
		seen := make([]bool, n)
		for _, p := range places {
			if seen[p] {
				t.Fatalf("of %d: place %d twice", n, p)
			}
			seen[p] = true
		}
	}
}

// Each number has each place equally often, whatever its number: whoever came
// first has no better chance than whoever came last.
func TestDrawIsUniform(t *testing.T) {
	const n, seeds = 8, 8000
	var counts [n][n]int
	for i := range seeds {
		for number, place := range waiting.Places(seedOf(i), waiting.Digest(entriesOf(n, 0)), n) {
			counts[number][place]++
		}
	}
	expected := float64(seeds) / n
	chi := 0.0
	for _, row := range counts {
		for _, c := range row {
			chi += (float64(c) - expected) * (float64(c) - expected) / expected
		}
	}
	// (n-1)² degrees of freedom: 49 ± 9.9.
	if freedom := float64((n - 1) * (n - 1)); math.Abs(chi-freedom) > 4*math.Sqrt(2*freedom) {
		t.Errorf("χ² is %.1f, expected %.0f", chi, freedom)
	}
	// Pairs: each is before the other half of the time.
	before := 0
	for i := range seeds {
		if p := waiting.Places(seedOf(i), [32]byte{2}, 2); p[0] < p[1] {
			before++
		}
	}
	if math.Abs(float64(before)-seeds/2) > 4*math.Sqrt(seeds)/2 {
		t.Errorf("the first number comes first %d of %d times", before, seeds)
	}
}

// With another seed, or one more entrant, everybody's place is another matter.
func TestDrawDepends(t *testing.T) {
	const n = 10_000
	base := waiting.Places(seedOf(1), waiting.Digest(entriesOf(n, 0)), n)
	f := func(what string, other []uint32) {
		t.Helper()
		same := 0
		for i := range base {
			if base[i] == other[i] {
				same++
			}
		}
		if same > 12 { // 1 is expected
			t.Errorf("%s: %d of %d have the same place", what, same, n)
		}
	}
	f("another seed", waiting.Places(seedOf(2), waiting.Digest(entriesOf(n, 0)), n))
	f("another entry", waiting.Places(seedOf(1), waiting.Digest(entriesOf(n, 1)), n))
}

func TestVerify(t *testing.T) {
	entries := entriesOf(100, 5)
	seed := seedOf(3)
	honest := waiting.Draw{Commitment: seed.Commitment(), Joined: 120, Drawn: true, Seed: seed, Entries: 100, Digest: waiting.Digest(entries)}
	f := func(what string, change func(d *waiting.Draw, list []waiting.EntryID) []waiting.EntryID, ok bool) {
		t.Helper()
		d, list := honest, slices.Clone(entries)
		list = change(&d, list)
		places, err := d.Verify(seed.Commitment(), list)
		if (err == nil) != ok || err != nil && !errors.Is(err, waiting.ErrDraw) {
			t.Errorf("%s: %v", what, err)
		}
		if ok && !slices.Equal(places, waiting.Places(seed, honest.Digest, 100)) {
			t.Errorf("%s: other places", what)
		}
	}
	type list = []waiting.EntryID
	f("honest", func(d *waiting.Draw, l list) list { return l }, true)
	f("not drawn", func(d *waiting.Draw, l list) list { d.Drawn = false; return l }, false)
	f("another seed", func(d *waiting.Draw, l list) list { d.Seed[31] ^= 1; return l }, false)
	f("another seed, with its commitment", func(d *waiting.Draw, l list) list {
		d.Seed[31] ^= 1
		d.Commitment = d.Seed.Commitment()
		return l
	}, false)
	f("an entry changed", func(d *waiting.Draw, l list) list { l[7][0] ^= 1; return l }, false)
	f("two exchanged", func(d *waiting.Draw, l list) list { l[0], l[1] = l[1], l[0]; return l }, false)
	f("one left out", func(d *waiting.Draw, l list) list { return l[1:] }, false)
	f("one added", func(d *waiting.Draw, l list) list { return append(l, l[0]) }, false)
	f("one added, and counted", func(d *waiting.Draw, l list) list { d.Entries++; return append(l, l[0]) }, false)
	f("another digest", func(d *waiting.Draw, l list) list { d.Digest[0] ^= 1; return l }, false)
}

func BenchmarkDraw(b *testing.B) {
	b.ReportAllocs()
	for range b.N {
		waiting.Places(seedOf(1), [32]byte{3}, 1_000_000)
	}
}

// Made by Python's hashlib.
const (
	byHandCommitment = "66687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925"
	byHandDigest     = "0b64f478d99c825f63acfab02a6523dbba36e29e629cbfa5f98925c7b1756077"
)

var byHandPlaces = []uint32{2, 0, 1}
