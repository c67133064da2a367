package main

import (
	"math"
	"slices"
)

// estimate is a median with an interval that holds the true median with at
// least 95 % probability, whatever the distribution: it lies between two order
// statistics, and how often that many of n samples fall on one side of the
// median is binomial. With fewer than six samples no such interval exists; then
// it spans all of them and Covers says how little that is worth.
type estimate struct {
	Median, Low, High float64
	Covers            float64 // probability, 0..1
	N                 int
}

func estimateOf(samples []float64) estimate {
	n := len(samples)
	if n == 0 {
		return estimate{Median: math.NaN(), Low: math.NaN(), High: math.NaN()}
	}
	sorted := slices.Sorted(slices.Values(samples))
	// Leave out k samples on each side while 2·P(fewer than k+1 on one side) ≤ 5 %.
	k, outside, tail := 0, math.Pow(0.5, float64(n)), math.Pow(0.5, float64(n))
	for k+1 < n-1-k-1 {
		tail *= float64(n-k) / float64(k+1)
		if 2*(outside+tail) > 0.05 {
			break
		}
		outside += tail
		k++
	}
	return estimate{
		Median: (sorted[(n-1)/2] + sorted[n/2]) / 2,
		Low:    sorted[k],
		High:   sorted[n-1-k],
		Covers: 1 - 2*outside,
		N:      n,
	}
}

// ratios are a[i] / b[i]: both were measured within the same round, so that
// what slows the whole machine for a while slows both.
func ratios(a, b []float64) []float64 {
	out := make([]float64, 0, len(a))
	for i := range min(len(a), len(b)) {
		out = append(out, a[i]/b[i])
	}
	return out
}
