// Package overlay builds the program from changed sources without touching
// them: the changes are handed to the compiler as an overlay (go help build).
// Planted bugs and kill points are made so; none of either stands in product
// code.
//
// An edit names its place by a piece of text that must stand in its file
// exactly once. So an edit that no longer fits is found at once, rather than
// tried out somewhere else.
package overlay

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Where an edit's text goes, seen from its anchor.
type Where int

const (
	Instead Where = iota
	Before
	After
)

// Edit is one change of one file.
type Edit struct {
	Name   string // for messages
	File   string // from the root of the module, with slashes
	Anchor string // stands in File exactly once
	Where  Where
	Text   string
}

// ErrFit: an edit's anchor is not there exactly once, or two edits overlap.
var ErrFit = errors.New("does not fit")

// Apply answers the new text of every file that the edits change, by name.
// Edits at one place keep their order. All that do not fit are told at once.
func Apply(root string, edits []Edit) (map[string]string, error) {
	byFile := map[string][]Edit{}
	for _, e := range edits {
		byFile[e.File] = append(byFile[e.File], e)
	}
	changed := map[string]string{}
	var faults []error
	for _, file := range slices.Sorted(maps.Keys(byFile)) {
		source, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(file)))
		if err == nil {
			changed[file], err = apply(string(source), byFile[file])
		}
		faults = append(faults, err)
	}
	return changed, errors.Join(faults...)
}

// change is an edit with its place found: bytes from..to become text.
type change struct {
	from, to int
	by       Edit
}

func apply(source string, edits []Edit) (string, error) {
	var changes []change
	var faults []error
	for _, e := range edits {
		if n := strings.Count(source, e.Anchor); n != 1 || e.Anchor == "" {
			faults = append(faults, fmt.Errorf("%q %w: its text stands %d times in %s, want once", e.Name, ErrFit, n, e.File))
			continue
		}
		from := strings.Index(source, e.Anchor)
		to := from + len(e.Anchor)
		switch e.Where {
		case Before:
			to = from
		case After:
			from = to
		}
		changes = append(changes, change{from, to, e})
	}
	slices.SortStableFunc(changes, func(a, b change) int { return cmp.Compare(a.from, b.from) })
	var out strings.Builder
	at := 0
	for _, c := range changes {
		if c.from < at {
			faults = append(faults, fmt.Errorf("%q %w: it overlaps another edit of %s", c.by.Name, ErrFit, c.by.File))
			continue
		}
		out.WriteString(source[at:c.from])
		out.WriteString(c.by.Text)
		at = c.to
	}
	out.WriteString(source[at:])
	return out.String(), errors.Join(faults...)
}

// Write puts the changed files into dir and answers the file to give to
// go build -overlay.
func Write(root, dir string, edits []Edit) (string, error) {
	changed, err := Apply(root, edits)
	if err != nil {
		return "", err
	}
	replace := map[string]string{}
	for i, file := range slices.Sorted(maps.Keys(changed)) {
		path, err := filepath.Abs(filepath.Join(root, filepath.FromSlash(file)))
		if err != nil {
			return "", err
		}
		replace[path] = filepath.Join(dir, fmt.Sprintf("%d-%s", i, filepath.Base(file)))
		if err := os.WriteFile(replace[path], []byte(changed[file]), 0o600); err != nil {
			return "", err
		}
	}
	text, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "overlay.json")
	return path, os.WriteFile(path, text, 0o600)
}
