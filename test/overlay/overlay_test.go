package overlay

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestApply(t *testing.T) {
	const source = "one two three two-and-a-half"
	f := func(want string, edits ...Edit) {
		t.Helper()
		got, err := apply(source, edits)
		if got != want || err != nil {
			t.Errorf("got %q, %v; want %q", got, err, want)
		}
	}
	f("one two three two-and-a-half")
	f("1 two three two-and-a-half", Edit{Anchor: "one", Text: "1"})
	f("zero one two three two-and-a-half", Edit{Anchor: "one", Where: Before, Text: "zero "})
	f("one, two three two-and-a-half", Edit{Anchor: "one", Where: After, Text: ","})
	// In any order, and beside each other.
	f("one (3) two-and-a-half", Edit{Anchor: "three", Where: After, Text: ")"}, Edit{Anchor: "two three", Text: "(3"})
	f("one two three ABtwo-and-a-half", Edit{Anchor: "two-", Where: Before, Text: "A"}, Edit{Anchor: "two-and", Where: Before, Text: "B"})

	g := func(want string, edits ...Edit) {
		t.Helper()
		if _, err := apply(source, edits); !errors.Is(err, ErrFit) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want one about %q", err, want)
		}
	}
	g("2 times", Edit{Anchor: "two"})
	g("0 times", Edit{Anchor: "four"})
	g("overlaps", Edit{Anchor: "one two"}, Edit{Anchor: "two three"})
	g("overlaps", Edit{Anchor: "one two"}, Edit{Anchor: "ne", Where: Before})
	g("0 times", Edit{Anchor: "two"}, Edit{Anchor: "four"}) // all at once
}

func TestWrite(t *testing.T) {
	root, dir := t.TempDir(), t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "a"), 0o700); err != nil {
		t.Fatal(err)
	}
	source := filepath.Join(root, "a", "x.go")
	if err := os.WriteFile(source, []byte("package a\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	path, err := Write(root, dir, []Edit{{File: "a/x.go", Anchor: "package a\n", Where: After, Text: "var b int\n"}})
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var overlay struct{ Replace map[string]string }
	if err := json.Unmarshal(text, &overlay); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(overlay.Replace[source]); string(got) != "package a\nvar b int\n" || err != nil {
		t.Errorf("%v gives %q, %v", overlay, got, err)
	}
	if got, err := os.ReadFile(source); string(got) != "package a\n" || err != nil {
		t.Errorf("the source itself is %q, %v", got, err)
	}
	if _, err := Write(root, dir, []Edit{{File: "a/y.go", Anchor: "x"}}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}
