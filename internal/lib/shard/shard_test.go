package shard_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"sluice/internal/lib/shard"
	"sluice/internal/stock"
)

// Shards are in ids that were given out and in the ranges of tables: what this
// table says can never change.
func TestOf(t *testing.T) {
	f := func(user string, want int) {
		t.Helper()
		if got := shard.Of(user); got != want {
			t.Errorf("Of(%q) = %d, want %d", user, got, want)
		}
	}
	f("", 957) // the published XXH64 of nothing is ef46db3751d8e999
	f("alice", 462)
	f("user-1", 645)
	for _, user := range []string{"", "alice", "用户", "\xff\x00"} {
		if h := shard.Hash(user); shard.OfHash(h) != shard.Of(user) || shard.OfHash(h) != int(h>>54) {
			t.Errorf("%q: OfHash(Hash) = %d, Of = %d", user, shard.OfHash(h), shard.Of(user))
		}
	}
	if shard.OfHash(0) != 0 || shard.OfHash(math.MaxUint64) != shard.Logical-1 {
		t.Error("the ends of the range are not reached")
	}
}

// populations are users as shops name them: user i, for any i.
func populations() map[string]func(i int) string {
	return map[string]func(i int) string{
		"counted":       func(i int) string { return fmt.Sprint(i) },
		"prefixed":      func(i int) string { return fmt.Sprintf("user-%d", i) },
		"padded":        func(i int) string { return fmt.Sprintf("%012d", i) },
		"every 1,024th": func(i int) string { return fmt.Sprint(i * 1024) },
		"phone numbers": func(i int) string { return fmt.Sprintf("+86138%08d", i*7) },
		"addresses":     func(i int) string { return fmt.Sprintf("shopper.%d@example.com", i) },
		"hexadecimal":   func(i int) string { return fmt.Sprintf("%032x", i) },
		"alike letters": alike,
	}
}

// alike is i in the digits a, e, i and m, which agree in their last two bits.
func alike(i int) string {
	b := []byte("aaaaaaaaaaaaaaaa")
	for at := len(b) - 1; i > 0; at, i = at-1, i/4 {
		b[at] = "aeim"[i%4]
	}
	return string(b)
}

// chi2 is how far counts are from even: the sum of (seen − expected)²/expected,
// as a number of standard deviations from what chance gives. Chi-square with k
// degrees of freedom has mean k and variance 2k.
func chi2(counts []int) float64 {
	total := 0
	for _, n := range counts {
		total += n
	}
	expected, sum := float64(total)/float64(len(counts)), 0.0
	for _, n := range counts {
		d := float64(n) - expected
		sum += d * d / expected
	}
	k := float64(len(counts) - 1)
	return (sum - k) / math.Sqrt(2*k)
}

// Chance passes five standard deviations once in millions; a hash with a fault
// passes hundreds. Far too even is a fault as well: those are not independent.
const sigmas = 5

func TestEvenlySpread(t *testing.T) {
	const users = 200 * shard.Logical
	for name, user := range populations() {
		counts := make([]int, shard.Logical)
		for i := range users {
			counts[shard.Of(user(i))]++
		}
		if d := chi2(counts); math.Abs(d) > sigmas {
			t.Errorf("%s: %.1f standard deviations from even", name, d)
		}
	}
}

// Whatever else is chosen for a user is chosen independently of the shard: every
// pair of choices comes as often as any other. Buckets of a ledger are chosen by
// another hash.
func TestIndependentChoices(t *testing.T) {
	const users = 100_000
	f := func(what string, ways int, of func(user string) int) {
		t.Helper()
		for name, user := range populations() {
			counts := make([]int, 16*ways)
			for i := range users {
				u := user(i)
				counts[shard.Of(u)*16/shard.Logical*ways+of(u)]++
			}
			if d := chi2(counts); math.Abs(d) > sigmas {
				t.Errorf("%s of %s: %.1f standard deviations from even", what, name, d)
			}
		}
	}
	f("mark", 16, func(u string) int { return int(shard.Hash(u) >> 50 & 15) })
	f("low bits", 16, func(u string) int { return int(shard.Hash(u) & 15) })
	f("shard mod 16 against its range", 16, func(u string) int { return shard.Of(u) % 16 })
	f("bucket of 2", 2, func(u string) int { return int(stock.BucketOf(stock.UserID(u), 2)) })
	f("bucket of 16", 16, func(u string) int { return int(stock.BucketOf(stock.UserID(u), 16)) })
	f("bucket of 7", 7, func(u string) int { return int(stock.BucketOf(stock.UserID(u), 7)) })
}

// A common mistake: of 4 databases with 4 tables each, both are chosen by the
// user modulo 4, and 12 of 16 tables stay empty. Ranges of shards fill all of
// them evenly, and so does any choice by other bits; the same bits twice do not,
// however good the hash is.
func TestTwoChoicesByTheSameBits(t *testing.T) {
	const users, databases, tables = 100_000, 4, 4
	f := func(how string, place func(i int) (database, table int)) (empty int, deviation float64) {
		t.Helper()
		counts := make([]int, databases*tables)
		for i := range users {
			database, table := place(i)
			counts[database*tables+table]++
		}
		for _, n := range counts {
			if n == 0 {
				empty++
			}
		}
		t.Logf("%s: %d of %d tables empty, %.1f standard deviations from even", how, empty, len(counts), chi2(counts))
		return empty, chi2(counts)
	}
	name := func(i int) string { return fmt.Sprint(i) }
	wrong := map[string]func(i int) (int, int){
		"user mod 4, twice":              func(i int) (int, int) { return i % databases, i % tables },
		"FNV-1a mod 4, twice":            func(i int) (int, int) { b := fnv(name(i)); return b % databases, b % tables },
		"shard mod 4, twice":             func(i int) (int, int) { s := shard.Of(name(i)); return s % databases, s % tables },
		"low bits of a good hash, twice": func(i int) (int, int) { b := int(shard.Hash(name(i)) & 3); return b, b },
	}
	for how, place := range wrong {
		if empty, _ := f(how, place); empty != 12 {
			t.Errorf("%s: %d tables empty: the mistake is no longer shown", how, empty)
		}
	}
	right := map[string]func(i int) (int, int){
		"ranges of shards": func(i int) (int, int) {
			place := shard.Of(name(i)) * databases * tables / shard.Logical
			return place / tables, place % tables
		},
		"database by shard, table by bits that are free": func(i int) (int, int) {
			h := shard.Hash(name(i))
			return shard.OfHash(h) % databases, int(h % tables)
		},
	}
	for how, place := range right {
		if empty, d := f(how, place); empty != 0 || math.Abs(d) > sigmas {
			t.Errorf("%s: %d tables empty, %.1f standard deviations", how, empty, d)
		}
	}
}

// Beside the choice of bits there is their quality. The lowest bits of FNV-1a
// hang on the lowest bits of the letters alone, so users who differ above them
// all meet in one of four places. Their shards are spread like any others'.
func TestLowBitsOfFNV(t *testing.T) {
	const users = 100_000
	byFNV, byShard := make([]int, 4), make([]int, 4)
	for i := range users {
		byFNV[fnv(alike(i))%4]++
		byShard[shard.Of(alike(i))%4]++
	}
	if slices.Max(byFNV) != users {
		t.Errorf("FNV-1a mod 4: %v: the pitfall is no longer shown", byFNV)
	}
	if d := chi2(byShard); math.Abs(d) > sigmas {
		t.Errorf("shard mod 4: %v, %.1f standard deviations from even", byShard, d)
	}
}

// fnv is the 32-bit FNV-1a.
func fnv(s string) int {
	h := uint32(2166136261)
	for i := range len(s) {
		h = (h ^ uint32(s[i])) * 16777619
	}
	return int(h)
}

func BenchmarkOf(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		shard.Of("0192f0c1-5e6b-7d3a-8c1e-2b1f6a9d4e77")
	}
}
