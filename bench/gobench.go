package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
)

// goBench is one result of `go test -bench`: the median of its runs per unit.
type goBench struct {
	name    string
	metrics map[string]float64 // by unit: "ns/op", "records/s", …
}

// suite is a package's benchmarks that belong into the report.
type suite struct {
	dir, pattern, benchtime string
	count                   int
}

func (s suite) args() []string {
	return []string{"test", "-run", "^$", "-bench", s.pattern, "-benchtime", s.benchtime,
		"-count", strconv.Itoa(s.count), "-cpu", "1", "-timeout", "5m", s.dir}
}

// String is the suite as a shell command.
func (s suite) String() string {
	words := slices.Clone(s.args())
	for i, w := range words {
		if strings.ContainsAny(w, "^$|") {
			words[i] = "'" + w + "'"
		}
	}
	return "go " + strings.Join(words, " ")
}

func (s suite) run(ctx context.Context, top string) ([]goBench, error) {
	cmd := exec.CommandContext(ctx, "go", s.args()...)
	cmd.Dir, cmd.Stderr = top, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go test -bench in %s: %w\n%s", s.dir, err, out)
	}
	return parseGoBench(out)
}

// parseGoBench reads lines such as "BenchmarkLand  1000  4021 ns/op  7 x/s".
func parseGoBench(out []byte) (list []goBench, err error) {
	runs := map[string]map[string][]float64{}
	var order []string
	for line := range bytes.Lines(out) {
		fields := strings.Fields(string(line))
		if len(fields) < 4 || !strings.HasPrefix(fields[0], "Benchmark") {
			continue
		}
		name := strings.TrimPrefix(fields[0], "Benchmark")
		if runs[name] == nil {
			runs[name] = map[string][]float64{}
			order = append(order, name)
		}
		for i := 2; i+1 < len(fields); i += 2 {
			value, err := strconv.ParseFloat(fields[i], 64)
			if err != nil {
				return nil, fmt.Errorf("%q: %w", line, err)
			}
			runs[name][fields[i+1]] = append(runs[name][fields[i+1]], value)
		}
	}
	for _, name := range order {
		b := goBench{name, map[string]float64{}}
		for unit, values := range runs[name] {
			slices.Sort(values)
			b.metrics[unit] = values[len(values)/2]
		}
		list = append(list, b)
	}
	return list, nil
}

// rateOf is how often a second a benchmark did its thing: of the metric if it
// reports one that ends in "/s", else operations.
func (b goBench) rateOf(unit string) float64 {
	if v, ok := b.metrics[unit]; ok {
		return v
	}
	return 1e9 / b.metrics["ns/op"]
}

// best is the highest rate among benchmarks whose name begins with prefix.
func best(list []goBench, prefix, unit string) (rate float64, name string) {
	for _, b := range list {
		if r := b.rateOf(unit); strings.HasPrefix(b.name, prefix) && r > rate {
			rate, name = r, b.name
		}
	}
	return rate, name
}
