package main

import (
	"path/filepath"
	"testing"

	"sluice/test/overlay"
)

// Every planted bug still fits the code it is about. Whether it is caught is
// for make mutants to show: that takes minutes.
func TestMutantsFit(t *testing.T) {
	names := map[string]bool{}
	for _, m := range mutants {
		if _, err := overlay.Apply(filepath.Join("..", ".."), []overlay.Edit{m.edit()}); err != nil {
			t.Error(err)
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
