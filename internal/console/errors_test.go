package console

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/internal/stock"
)

// TestCausesComplete: every exported sentinel of the rooms that an operator's
// call can reach has a row in causes.
func TestCausesComplete(t *testing.T) {
	parse := func(file string) *ast.File {
		t.Helper()
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	var listed []string
	ast.Inspect(parse("errors.go"), func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok && strings.HasPrefix(s.Sel.Name, "Err") {
			listed = append(listed, fmt.Sprint(s.X, ".", s.Sel.Name))
		}
		return true
	})
	found := 0
	for _, room := range []string{"catalog", "gate", "lib/outbox", "order", "payment", "pricing", "proof", "sale", "stock"} {
		files, err := filepath.Glob("../" + room + "/*.go")
		if err != nil || len(files) == 0 {
			t.Fatalf("no files in %s: %v", room, err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			for name, object := range parse(file).Scope.Objects {
				if object.Kind != ast.Var || !strings.HasPrefix(name, "Err") {
					continue
				}
				found++
				if full := filepath.Base(room) + "." + name; !slices.Contains(listed, full) {
					t.Errorf("%s has no row in errors.go", full)
				}
			}
		}
	}
	if found < 30 {
		t.Errorf("only %d sentinels found: is this test looking in the right place?", found)
	}
}

func TestProblemOf(t *testing.T) {
	var logged bytes.Buffer
	c := &console{Config: Config{Log: slog.New(slog.NewTextHandler(&logged, nil))}}
	f := func(err error, status int, code string, available *int) {
		t.Helper()
		p := c.problemOf("test", fmt.Errorf("while testing: %w", err))
		if p.Status != status || p.Code != code {
			t.Errorf("%v: %d %s, want %d %s", err, p.Status, p.Code, status, code)
		}
		if (p.Available == nil) != (available == nil) || available != nil && *p.Available != *available {
			t.Errorf("%v: available %v, want %v", err, p.Available, available)
		}
		if retry := p.GetHeaders().Get("Retry-After"); (retry != "") != (status == 503) {
			t.Errorf("%v: Retry-After %q with %d", err, retry, status)
		}
	}
	three := 3
	f(&stock.Refusal{Err: stock.ErrInsufficient, SKU: "cup", Available: 3}, 409, "insufficient", &three)
	f(stock.ErrInsufficient, 409, "insufficient", nil)
	f(&stock.Refusal{Err: stock.ErrNoSuchSKU, SKU: "cup"}, 404, "no_such_sku", nil)
	for _, row := range causes {
		f(row.err, row.status, row.code, nil)
	}
	f(stock.ErrUnknown, 503, "unknown", nil)
	f(stock.ErrNotReady, 503, "not_ready", nil)
	f(stock.ErrOverloaded, 503, "overloaded", nil)

	logged.Reset()
	p := c.problemOf("test", errors.New("disk secret"))
	body, err := json.Marshal(p)
	if err != nil || p.Code != "internal" || strings.Contains(string(body), "secret") {
		t.Errorf("an unexpected error is told as %s, %v", body, err)
	}
	if !strings.Contains(logged.String(), "disk secret") {
		t.Error("an unexpected error is not logged")
	}
}
