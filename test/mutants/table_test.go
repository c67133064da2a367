package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Every planted bug still fits the code it is about. Whether it is caught is
// for make mutants to show: that takes minutes.
func TestMutantsFit(t *testing.T) {
	names := map[string]bool{}
	for _, m := range mutants {
		source, err := os.ReadFile(filepath.Join("..", "..", m.file))
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(source), m.old); n != 1 {
			t.Errorf("%s: its old text stands %d times in %s, want once", m.name, n, m.file)
		}
		if m.old == m.new || names[m.name] || m.packages == "" {
			t.Errorf("%s: changes nothing, stands twice, or is tested by nobody", m.name)
		}
		names[m.name] = true
	}
	if len(mutants) < 20 {
		t.Errorf("%d planted bugs", len(mutants))
	}
}
