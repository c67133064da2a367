package main

import (
	"path/filepath"
	"strings"
	"testing"

	"sluice/test/overlay"
)

var root = filepath.Join("..", "..")

// Every point still fits the code that it is about.
func TestPointsFit(t *testing.T) {
	if _, err := overlay.Apply(root, edits(nil)); err != nil {
		t.Error(err)
	}
	for i := range plants {
		if _, err := overlay.Apply(root, edits(&plants[i])); err != nil {
			t.Errorf("with %q: %v", plants[i].name, err)
		}
	}
	names, count := map[string]bool{}, map[when]int{}
	for _, p := range places {
		if names[p.name] || p.most < 1 || !strings.Contains(p.edit().Text, quote(p.name)) {
			t.Errorf("%q stands twice, is passed never, or its call names another", p.name)
		}
		names[p.name] = true
		count[p.when]++
	}
	for _, w := range []when{serving, starting, founding, stopping} {
		if count[w] == 0 {
			t.Errorf("no point while %s", w)
		}
	}
}
