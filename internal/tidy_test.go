// Package internal holds nothing but the house rules, as a test: which room
// may import which, how big files and functions may be, and what is never
// written. A rule that must give way gets a row with its reason here.
package internal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const (
	module       = "sluice"
	maxLines     = 600 // of a file
	explainLines = 400 // a file above this needs a row in longFiles
	maxTestLines = 900
	maxFuncLines = 70
)

// room says what the packages under a path may import: of this module, besides
// themselves, paths with all that is below them; of others, client modules.
type room struct {
	path    string
	imports []string
	clients []string // "*" = any
}

// business is every room whose rules are the shop's.
var business = []string{
	"internal/sale", "internal/groupbuy", "internal/bargain", "internal/coupon", "internal/pricing",
	"internal/stock", "internal/warehouse", "internal/order", "internal/payment", "internal/catalog",
	"internal/search", "internal/proof", "internal/bucket",
}

// rooms is the import table. The longest path that fits a package is its room;
// a package without a room fails. "internal/lib" as an import is all of it.
var rooms = []room{
	{path: "cmd/sluice", imports: []string{"internal", "storm", "web"}, clients: []string{"*"}},
	{path: "internal"}, // the house rules themselves
	{path: "internal/app", imports: []string{"internal", "web", "examples"}, clients: []string{"*"}},
	{path: "internal/api", imports: doors("internal/gate", "internal/lib", "web"), clients: []string{"*"}},
	{path: "internal/console", imports: doors("internal/gate", "internal/lib", "web"), clients: []string{"*"}},

	{path: "internal/sale", imports: []string{"internal/stock", "internal/pricing", "internal/coupon", "internal/lib/id",
		"internal/catalog"}}, // catalog: a view of an activity shows its products, an offer quotes their version
	{path: "internal/groupbuy", imports: []string{"internal/sale", "internal/stock", "internal/pricing"}},
	{path: "internal/bargain", imports: []string{"internal/sale", "internal/stock", "internal/pricing"}},
	{path: "internal/coupon", imports: []string{"internal/stock", "internal/pricing"}},
	{path: "internal/pricing"},
	{path: "internal/stock"},
	{path: "internal/stock/stocktest", imports: []string{"internal/stock"}, clients: []string{"*"}},
	{path: "internal/warehouse", imports: []string{"internal/stock"}},
	{path: "internal/order", imports: []string{"internal/stock", "internal/pricing", "internal/coupon", "internal/payment",
		"internal/lib/outbox", "internal/lib/saga"}},
	{path: "internal/order/ordertest", imports: []string{"internal/order", "internal/stock", "internal/pricing",
		"internal/payment", "internal/lib/outbox"}, clients: []string{"*"}},
	{path: "internal/bucket", imports: []string{"internal/stock", "internal/order", "internal/lib"}}, // lands, and so works with orders and leases
	{path: "internal/payment", imports: []string{"internal/pricing"}},
	{path: "internal/payment/paymenttest", imports: []string{"internal/payment", "internal/pricing"}, clients: []string{"*"}},
	{path: "internal/catalog", imports: []string{"internal/stock", "internal/pricing", "internal/lib/cache"}},
	{path: "internal/search", imports: []string{"internal/catalog", "internal/lib/cache"}},
	{path: "internal/proof", imports: []string{"internal/stock", "internal/order", "internal/payment", "internal/pricing",
		"internal/warehouse", "internal/sale", "internal/lib/outbox"}}, // outbox: an undelivered event excuses a difference
	{path: "internal/gate", imports: []string{"internal/stock", "internal/lib/limit", "internal/lib/call", "internal/lib/cache"},
		clients: []string{"github.com/golang-jwt/jwt/v5", "github.com/expr-lang/expr"}}, // a token format and a language of conditions, not servers

	{path: "internal/gate/waiting", imports: []string{"internal/lib"}},
	{path: "internal/gate/challenge", imports: []string{"internal/gate"}, clients: []string{"github.com/wenlng/go-captcha"}},
	{path: "internal/gate/entrance", imports: []string{"internal/gate", "internal/stock"}},
	{path: "internal/gate/waiting/linetest", imports: []string{"internal/gate/waiting"}, clients: []string{"*"}},

	{path: "internal/backend", imports: append([]string{"internal/lib", "internal/gate/waiting"}, business...), clients: []string{"*"}},
	{path: "internal/lib", imports: []string{"internal/lib"}, clients: []string{"*"}}, // at most one: see below

	{path: "storm", imports: []string{"internal/gate", "internal/lib", "internal/backend/sqlstore", "internal/order",
		"internal/proof", "internal/stock", "internal/pricing"}, clients: []string{"*"}},
	{path: "sim", imports: []string{"internal"}, clients: []string{"*"}},                                                        // drives the parts that app puts together
	{path: "test/servers", clients: []string{"github.com/go-sql-driver/mysql", "github.com/twmb/franz-go", "golang.org/x/sys"}}, // replication is set up in SQL, and only a client knows when brokers know each other
	{path: "test/faultproxy"},
	{path: "test/overlay"},                                                   // reads sources as text
	{path: "test/mutants", imports: []string{"test/overlay"}},                // builds with go
	{path: "test/kill", imports: []string{"test/overlay", "storm"}},          // a server of its own making, judged by our oracle
	{path: "test/kill/point"},                                                // called by that server only
	{path: "test/fleet", imports: []string{"test/servers", "internal/gate"}}, // real processes, met as a shopper meets them
	{path: "test/fleet/faults", imports: []string{"test/fleet", "test/servers", "test/faultproxy", "test/overlay", "storm"}},
	{path: "bench", imports: []string{"test/servers", "test/faultproxy", "internal/gate"}},                           // a store far away is a real one behind a slow network
	{path: "bench/naive", imports: []string{"test/servers", "internal/gate", "storm"}, clients: []string{"*"}},       // somebody else's design, judged by our oracle
	{path: "examples", imports: []string{"internal/sale", "internal/catalog", "internal/pricing", "internal/stock"}}, // written as what they become
	{path: "deploy"}, // files for others, and a test of them
	{path: "web"},
	{path: "web/shop/shoptest", imports: []string{"web", "test/servers"}, clients: []string{"github.com/chromedp"}},
}

func doors(more ...string) []string { return append(more, business...) }

// unmapped are exported errors of business rooms that never reach the HTTP
// table, with the reason.
var unmapped = map[string]string{}

// longFiles are files of more than explainLines lines, with the reason.
var longFiles = map[string]string{}

// longFuncs are functions of more than maxFuncLines lines, "dir.Name", with
// the reason.
var longFuncs = map[string]string{}

// skips are the files that may skip a test, with the reason. All of them say so
// loudly, and fail where CI is set.
var skips = map[string]string{
	"test/servers/servers.go":      "a server that is not installed",
	"web/shop/shoptest/browser.go": "a browser that is not installed",
}

func TestImports(t *testing.T) {
	for _, p := range packages(t) {
		dir := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
		r, found := roomOf(dir)
		if !found {
			t.Errorf("%s: no room has this path; add it to the table with what it may import", dir)
			continue
		}
		clients := map[string]bool{}
		for _, imported := range p.Imports {
			own, ours := strings.CutPrefix(imported, module+"/")
			switch {
			case ours && own != dir && !slices.ContainsFunc(append(r.imports, r.path), func(of string) bool { return within(own, of) }),
				ours && within(own, "internal/app") && !within(dir, "cmd"),
				ours && within(dir, "internal/backend") && within(own, "internal/backend") && own != dir:
				t.Errorf("%s must not import %s", dir, own)
			case !ours && strings.Contains(imported, "."):
				clients[clientOf(imported)] = true
				if !slices.Contains(r.clients, "*") && !slices.ContainsFunc(r.clients, func(m string) bool { return within(imported, m) }) {
					t.Errorf("%s must not import the client library %s", dir, imported)
				}
			}
		}
		if within(dir, "internal/lib") && len(clients) > 1 {
			t.Errorf("%s uses %d client libraries, one is allowed: %v", dir, len(clients), clients)
		}
		for _, banned := range []string{"util", "utils", "common", "helper", "helpers", "base", "types", "model", "models", "dto"} {
			if p.Name == banned || path.Base(dir) == banned {
				t.Errorf("%s: a package called %s says nothing", dir, banned)
			}
		}
	}
}

func TestFiles(t *testing.T) {
	for name, text := range tracked(t) {
		if path.Ext(name) != ".go" {
			continue
		}
		lines, test := bytes.Count(text, []byte("\n")), strings.HasSuffix(name, "_test.go")
		switch {
		case test && lines > maxTestLines:
			t.Errorf("%s has %d lines, a test may have %d", name, lines, maxTestLines)
		case !test && lines > maxLines:
			t.Errorf("%s has %d lines, a file may have %d", name, lines, maxLines)
		case !test && lines > explainLines && longFiles[name] == "":
			t.Errorf("%s has %d lines: above %d it needs a reason in longFiles", name, lines, explainLines)
		}
	}
}

func TestCode(t *testing.T) {
	for name, text := range tracked(t) {
		if path.Ext(name) != ".go" {
			continue
		}
		files := token.NewFileSet()
		tree, err := parser.ParseFile(files, name, text, parser.SkipObjectResolution)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		test := strings.HasSuffix(name, "_test.go")
		for _, d := range tree.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			lines := files.Position(f.End()).Line - files.Position(f.Pos()).Line + 1
			if full := path.Dir(name) + "." + f.Name.Name; !test && lines > maxFuncLines && longFuncs[full] == "" {
				t.Errorf("%s: %s has %d lines, a function may have %d", files.Position(f.Pos()), f.Name.Name, lines, maxFuncLines)
			}
			if f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s: no init functions: what runs is said in app", files.Position(f.Pos()))
			}
		}
		for _, fault := range calls(files, tree, name) {
			t.Error(fault)
		}
	}
}

// calls finds calls that have no place where they stand.
func calls(files *token.FileSet, tree *ast.File, name string) (faults []string) {
	test, program := strings.HasSuffix(name, "_test.go"), tree.Name.Name == "main"
	discards := rapidScopes(tree)
	ast.Inspect(tree, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		selector, ok := call.Fun.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		on := ""
		if x, ok := selector.X.(*ast.Ident); ok {
			on = x.Name
		}
		method, why := selector.Sel.Name, ""
		switch {
		case on == "time" && method == "Sleep" && test:
			why = "a test that sleeps is slow or flaky: use testing/synctest or wait for the event"
		case on == "os" && method == "Exit" && !program:
			why = "only a program's main ends the process"
		case on == "log" && strings.HasPrefix(method, "Fatal") && !program:
			why = "return the error; only a program's main ends the process"
		case (method == "Skip" || method == "Skipf" || method == "SkipNow") && skips[name] == "" && !discards(on, call.Pos()):
			why = "call servers.Missing, which is loud and fails in CI"
		}
		if why != "" {
			faults = append(faults, fmt.Sprintf("%s: %s.%s: %s", files.Position(call.Pos()), on, method, why))
		}
		return true
	})
	return faults
}

// rapidScopes answers whether a name is a *rapid.T at a position: its Skip
// discards one drawn case and not the test.
func rapidScopes(tree *ast.File) func(name string, at token.Pos) bool {
	type scope struct {
		name     string
		from, to token.Pos
	}
	var scopes []scope
	note := func(f *ast.FuncType, n ast.Node) {
		for _, field := range f.Params.List {
			star, ok := field.Type.(*ast.StarExpr)
			if !ok {
				continue
			}
			selector, ok := star.X.(*ast.SelectorExpr)
			if !ok || selector.Sel.Name != "T" {
				continue
			}
			if x, ok := selector.X.(*ast.Ident); ok && x.Name == "rapid" {
				for _, id := range field.Names {
					scopes = append(scopes, scope{id.Name, n.Pos(), n.End()})
				}
			}
		}
	}
	ast.Inspect(tree, func(n ast.Node) bool {
		switch f := n.(type) {
		case *ast.FuncDecl:
			note(f.Type, f)
		case *ast.FuncLit:
			note(f.Type, f)
		}
		return true
	})
	return func(name string, at token.Pos) bool {
		return slices.ContainsFunc(scopes, func(s scope) bool { return s.name == name && s.from <= at && at < s.to })
	}
}

// TestTheRulesBite shows that the checks find what they are for.
func TestTheRulesBite(t *testing.T) {
	f := func(name, body string, want int) {
		t.Helper()
		files := token.NewFileSet()
		tree, err := parser.ParseFile(files, name, body, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		if got := calls(files, tree, name); len(got) != want {
			t.Errorf("%s: %s: found %q, want %d", name, body, got, want)
		}
	}
	f("a_test.go", `package a; func f() { time.Sleep(1) }`, 1)
	f("a.go", `package a; func f() { time.Sleep(1) }`, 0)
	f("a.go", `package a; func f() { os.Exit(1); log.Fatalf("") }`, 2)
	f("main.go", `package main; func main() { os.Exit(1) }`, 0)
	f("a_test.go", `package a; func f(t *testing.T) { t.Skip("later") }`, 1)
	f("a_test.go", `package a; func f(t *testing.T) { g(func(t *rapid.T) { t.Skip() }) }`, 0)
	f("a_test.go", `package a; func f(t *testing.T) { g(func(t *rapid.T) {}); t.Skip() }`, 1)
	f("test/servers/servers.go", `package servers; func f(t TB) { t.Skipf("") }`, 0)

	g := func(dir, want string) {
		t.Helper()
		if got, _ := roomOf(dir); got.path != want {
			t.Errorf("%s is in room %q, want %q", dir, got.path, want)
		}
	}
	g("internal/stock/stocktest", "internal/stock/stocktest")
	g("internal/stock/deeper", "internal/stock")
	g("internal/stockpile", "")
	g("internal/nowhere", "")
	g("bench", "bench")

	h := func(what *regexp.Regexp, text string, want bool) {
		t.Helper()
		if got := what.MatchString(text); got != want {
			t.Errorf("%v on %q: %v", what, text, got)
		}
	}
	h(unfinished, "// TO"+"DO: later", true)
	h(unfinished, "mastodon", false)
	h(machine, "open /ro"+"ot/x", true)
	h(machine, `"/ho`+`me/me"`, true)
	h(machine, "a/wor"+"k/b", false)
	h(registry, "https://reg"+"istry.example", true)
	h(registry, "https://files-are-here.example", false)
}

func TestErrorsHaveAStatus(t *testing.T) {
	const table = "internal/api/errors.go"
	files := token.NewFileSet()
	tree, err := parser.ParseFile(files, filepath.Join("..", table), nil, parser.SkipObjectResolution)
	if errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("%s is missing: it is the only error → status table", table)
	} else if err != nil {
		t.Fatal(err)
	}
	mapped := map[string]bool{}
	ast.Inspect(tree, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := s.X.(*ast.Ident); ok {
				mapped[x.Name+"."+s.Sel.Name] = true
			}
		}
		return true
	})
	exported := map[string]bool{}
	for name, text := range tracked(t) {
		dir := path.Dir(name)
		if path.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go") || !slices.Contains(append([]string{"internal/gate"}, business...), dir) {
			continue
		}
		for _, id := range exportedErrors(t, name, text) {
			full := path.Base(dir) + "." + id
			exported[full] = true
			if !mapped[full] && unmapped[full] == "" {
				t.Errorf("%s: %s has no row in %s", name, full, table)
			}
		}
	}
	for full := range unmapped {
		if !exported[full] || mapped[full] {
			t.Errorf("unmapped[%q] is out of date", full)
		}
	}
}

// exportedErrors are the package-level Err… variables of a file.
func exportedErrors(t *testing.T, name string, text []byte) (found []string) {
	t.Helper()
	tree, err := parser.ParseFile(token.NewFileSet(), name, text, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range tree.Decls {
		if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.VAR {
			for _, spec := range g.Specs {
				for _, id := range spec.(*ast.ValueSpec).Names {
					if strings.HasPrefix(id.Name, "Err") {
						found = append(found, id.Name)
					}
				}
			}
		}
	}
	return found
}

// unfinished, machine and registry find what must not be committed. They are
// written in pieces so that this file does not find itself.
var (
	unfinished = regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X|HA` + `CK)\b`)
	machine    = regexp.MustCompile(`(^|[\s"'=:(` + "`" + `])/(work|home|root|Users)/\w`)
	registry   = regexp.MustCompile(`https?://(registry|proxy|repo1?|deb|files)\.|"resolved": *"http`)
)

func TestText(t *testing.T) {
	top, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	source := []string{".go", ".js", ".ts", ".tsx", ".css", ".html", ".lua", ".sql", ".sh"}
	for name, text := range tracked(t) {
		if bytes.IndexByte(text, 0) >= 0 {
			continue // not text
		}
		number := 0
		for line := range bytes.Lines(text) {
			number++
			switch {
			case slices.Contains(source, path.Ext(name)) && unfinished.Match(line):
				t.Errorf("%s:%d: unfinished: %s", name, number, bytes.TrimSpace(line))
			case machine.Match(line) || bytes.Contains(line, []byte(top+"/")):
				t.Errorf("%s:%d: a path of one machine: %s", name, number, bytes.TrimSpace(line))
			case registry.Match(line):
				t.Errorf("%s:%d: the address of a package registry: %s", name, number, bytes.TrimSpace(line))
			}
		}
	}
}

// pkg is what go list tells about a package.
type pkg struct {
	ImportPath string
	Name       string
	Imports    []string
}

func packages(t *testing.T) (list []pkg) {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Name,Imports", "./...")
	cmd.Dir, cmd.Stderr = "..", os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
	if len(list) < 10 {
		t.Fatalf("go list found %d packages", len(list))
	}
	return list
}

// tracked reads the files that are or would be committed, by slash path from
// the top. Outside of a checkout every file counts that is not under a dot.
func tracked(t *testing.T) map[string][]byte {
	t.Helper()
	var names []string
	cmd := exec.Command("git", "ls-files", "-z", "-co", "--exclude-standard")
	cmd.Dir = ".."
	if out, err := cmd.Output(); err == nil && len(out) > 0 {
		names = strings.Split(strings.Trim(string(out), "\x00"), "\x00")
	} else {
		walk := fs.WalkDir(os.DirFS(".."), ".", func(name string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case d.IsDir() && (name == "bin" || name == "data" || name == "bench/out" || d.Name() == "node_modules" || len(name) > 1 && d.Name()[0] == '.'):
				return fs.SkipDir
			case d.Type().IsRegular():
				names = append(names, name)
			}
			return nil
		})
		if walk != nil {
			t.Fatal(walk)
		}
	}
	files := make(map[string][]byte, len(names))
	for _, name := range names {
		text, err := os.ReadFile(filepath.Join("..", filepath.FromSlash(name)))
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed, and not yet from the index
		} else if err != nil {
			t.Fatal(err)
		}
		files[name] = text
	}
	return files
}

func roomOf(dir string) (best room, found bool) {
	for _, r := range rooms {
		if within(dir, r.path) && len(r.path) >= len(best.path) && (r.path != "internal" || dir == "internal") {
			best, found = r, true
		}
	}
	return best, found
}

// within says whether a path is dir or below it.
func within(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

// clientOf is roughly the module of an import path outside of the standard
// library: host and the two names after it, or host and one for vanity hosts.
func clientOf(imported string) string {
	parts := strings.Split(imported, "/")
	n := 2
	if parts[0] == "github.com" || parts[0] == "golang.org" {
		n = 3
	}
	return strings.Join(parts[:min(n, len(parts))], "/")
}
