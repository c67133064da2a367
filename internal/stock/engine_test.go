package stock_test

import (
	"fmt"
	"math"
	"testing"

	"sluice/internal/stock"
)

// What this table says can never change while a bucket has reservations.
func TestBucketOf(t *testing.T) {
	f := func(user stock.UserID, n, want uint16) {
		t.Helper()
		if got := stock.BucketOf(user, n); got != want {
			t.Errorf("%q in %d buckets is in %d, want %d", user, n, got, want)
		}
	}
	// FNV-1a of "" is 0x811c9dc5, of "a" 0xe40c292c, of "foobar" 0xbf9cf968; mixed
	// these are 0xab3e7c0b, 0x1a80b1b3 and 0x0c0da6dc.
	f("", 256, 0x0b)
	f("a", 256, 0xb3)
	f("foobar", 256, 0xdc)
	f("foobar", 16, 12)
	f("foobar", 1, 0)
	f("foobar", 0, 0)
}

// Users who are counted, as shops name them, spread over any number of buckets like
// users named by chance. By FNV-1a alone, which is what the mixing is there for,
// they do not.
func TestUsersSpreadOverBuckets(t *testing.T) {
	const users = 100_000
	// deviation is chi-square as a number of standard deviations from what chance
	// gives: with k degrees of freedom its mean is k and its variance 2k.
	deviation := func(n uint16, bucket func(user string) uint16) float64 {
		counts := make([]int, n)
		for i := range users {
			counts[bucket(fmt.Sprint(i))]++
		}
		expected, sum, k := float64(users)/float64(n), 0.0, float64(n-1)
		for _, c := range counts {
			sum += (float64(c) - expected) * (float64(c) - expected) / expected
		}
		return (sum - k) / math.Sqrt(2*k)
	}
	// Chance passes five once in millions.
	const sigmas = 5
	for _, n := range []uint16{2, 3, 4, 7, 16, 58, 64, 100, 125, 128, 250, 256, 1000} {
		if d := deviation(n, func(user string) uint16 { return stock.BucketOf(stock.UserID(user), n) }); math.Abs(d) > sigmas {
			t.Errorf("%d buckets: %.1f standard deviations from even", n, d)
		}
	}
	unmixed := func(user string) uint16 {
		h := uint32(2166136261)
		for i := range len(user) {
			h = (h ^ uint32(user[i])) * 16777619
		}
		return uint16(h % 125)
	}
	if d := deviation(125, unmixed); d < 10*sigmas {
		t.Errorf("FNV-1a over 125 buckets: %.1f standard deviations: the pitfall is no longer shown", d)
	}
}
