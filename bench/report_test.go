package main

import (
	"strings"
	"testing"
	"time"
)

func TestParseGoBench(t *testing.T) {
	list, err := parseGoBench([]byte(`goos: linux
BenchmarkReserve/in-flight=512   	  100	 2000 ns/op	 500000 decisions/s	 0 B/op
BenchmarkReserve/in-flight=512   	  100	 1000 ns/op	 900000 decisions/s	 0 B/op
BenchmarkReserve/in-flight=512   	  100	 3000 ns/op	 700000 decisions/s	 0 B/op
BenchmarkLand-2   	  60000	 20000 ns/op
PASS
ok  	sluice/x	1.0s
`))
	if err != nil || len(list) != 2 {
		t.Fatalf("%v, %v", list, err)
	}
	f := func(prefix, unit, wantName string, want float64) {
		t.Helper()
		if got, name := best(list, prefix, unit); got != want || name != wantName {
			t.Errorf("best %s = %v of %q, want %v of %q", prefix, got, name, want, wantName)
		}
	}
	f("Reserve", "decisions/s", "Reserve/in-flight=512", 700000) // the median of the three
	f("Land", "orders/s", "Land-2", 50000)                       // from ns/op
	f("Absent", "x/s", "", 0)
	if _, err := parseGoBench([]byte("BenchmarkX 1 what ns/op\n")); err == nil {
		t.Error("nonsense was taken for a figure")
	}
}

func TestVerdict(t *testing.T) {
	f := func(low, high float64, want string) {
		t.Helper()
		if got := verdict(estimate{Median: (low + high) / 2, Low: low, High: high}, 0.8); got != want {
			t.Errorf("%v–%v: %s, want %s", low, high, got, want)
		}
	}
	f(0.81, 0.9, "yes")
	f(0.5, 0.79, "no")
	f(0.79, 0.9, "too close to say")
}

func TestReportSample(t *testing.T) {
	r := report{Requests: 1000, Micros: 2_000_000, Bytes: 300_000, StatusErrors: 990, P50: 1500, P99: 3000}
	f := func(refused bool, rate, other float64, good int) {
		t.Helper()
		s := r.sample(refused, time.Second, 2*time.Second)
		if s.Rate != rate || s.Good != good || s.Other < other-1e-9 || s.Other > other+1e-9 ||
			s.CPU != 1000 || s.Busy != 0.5 || s.Gen != 1 || s.P50 != 1.5 || s.Bytes != 300 {
			t.Errorf("refused %v: %+v", refused, s)
		}
	}
	f(true, 495, 0.01, 990) // what is not a refusal does not count as one
	f(false, 5, 0.99, 10)
	if _, err := parseReport([]byte("Running 1s test\n{\"requests\":0}\n")); err == nil {
		t.Error("a run without answers was taken")
	}
	if _, err := parseReport([]byte("unable to connect\n")); err == nil {
		t.Error("a run without a report was taken")
	}
}

func TestMarkdown(t *testing.T) {
	flat := func(name string, rate float64) *series {
		s := &series{name: name}
		for range 10 {
			s.samples = append(s.samples, sample{Rate: rate, CPU: 1e6 / rate})
		}
		return s
	}
	r := results{
		plan:    plan{rounds: 10, duration: time.Second},
		refuse:  []*series{flat("Sluice", 90), flat("nginx", 100), flat("chain", 40)},
		accept:  []*series{flat("Sluice", 50), flat("Sluice, refuse", 90), flat("chain", 20)},
		benches: []goBench{{"Land", map[string]float64{"ns/op": 25000}}, {"RawInsert/rows=4", map[string]float64{"ns/op": 22500}}},
	}
	r.overload = make([]*scene, 3)
	if !r.complete() {
		t.Error("not complete")
	}
	r.overload = nil // has a test of its own
	text := r.markdown(time.Now())
	for _, want := range []string{
		"| **0.90 ×** (0.90–0.90) | 1.11 × | ≥ 0.8 × | yes |",
		"| **2.25 ×** (2.25–2.25) | 0.44 × | ≥ 3 × | no |",
		"| **0.56 ×** (0.56–0.56) | 1.80 × | ≥ 0.6 × | no |",
		"0.90 × of 44444 orders/s | — | ≥ 0.8 × | yes |",
		"25 s (40000 orders/s) | — | ≤ 30 s | yes |",
		"98 % probability",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in:\n%s", want, text)
		}
	}
	if strings.Contains(text, "%!") {
		t.Errorf("a format went wrong:\n%s", text)
	}
}

func TestGateSection(t *testing.T) {
	r := &results{benches: []goBench{{"Door/a-pass", map[string]float64{"ns/op": 2541.4, "allocs/op": 15}}, {"Read", nil}}}
	var b strings.Builder
	r.gateSection(&b)
	if !strings.Contains(b.String(), "| a waiting room, its pass shown | 2541 ns | 15 |\n") || strings.Count(b.String(), "\n|") != 3 {
		t.Error(b.String())
	}
	b.Reset()
	if (&results{}).gateSection(&b); b.Len() > 0 {
		t.Error("a section about nothing")
	}
}
