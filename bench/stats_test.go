package main

import (
	"math"
	"testing"
)

func TestEstimate(t *testing.T) {
	f := func(n int, low, high, covers float64) {
		t.Helper()
		samples := make([]float64, n)
		for i := range samples {
			samples[(i*7)%n] = float64(i + 1) // 1..n, out of order
		}
		e := estimateOf(samples)
		if e.Median != float64(n+1)/2 || e.Low != low || e.High != high || math.Abs(e.Covers-covers) > 0.0005 {
			t.Errorf("n = %d: %+v, want %v..%v covering %v", n, e, low, high, covers)
		}
	}
	// Order statistics of the sign test, as in the published tables.
	f(1, 1, 1, 0)
	f(3, 1, 3, 0.750)
	f(5, 1, 5, 0.9375)
	f(6, 1, 6, 0.96875)
	f(8, 1, 8, 0.9922)
	f(9, 2, 8, 0.9609)
	f(10, 2, 9, 0.9785)
	f(12, 3, 10, 0.9614)
	f(20, 6, 15, 0.9586)
	if e := estimateOf(nil); !math.IsNaN(e.Median) {
		t.Errorf("nothing measured: %+v", e)
	}
}

func TestRatiosPairRounds(t *testing.T) {
	// The machine slows to a half in the second round: the ratio does not.
	got := ratios([]float64{100, 50, 100}, []float64{200, 100, 200})
	for _, r := range got {
		if r != 0.5 {
			t.Errorf("got %v", got)
		}
	}
}
