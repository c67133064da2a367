package shop

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// budget is what a first visit may cost, compressed, without pictures: the shell
// and all that it brings by itself. What a page asks for later, when a sale has a
// waiting room, a ticket or a challenge, has a budget of its own.
const (
	budget     = 15_000
	lateBudget = 15_000
)

func bundle(t *testing.T) (map[string]Asset, Asset) {
	t.Helper()
	assets, err := Assets()
	if err != nil {
		t.Fatal(err)
	}
	shell, err := Shell(false)
	if err != nil {
		t.Fatal(err)
	}
	return assets, shell
}

// asset finds the asset made from a source file.
func asset(t *testing.T, assets map[string]Asset, source string) Asset {
	t.Helper()
	ext := path.Ext(source)
	for p, a := range assets {
		if strings.HasPrefix(p, "/assets/"+strings.TrimSuffix(source, ext)+".") && path.Ext(p) == ext {
			return a
		}
	}
	t.Fatalf("no asset made from %s", source)
	return Asset{}
}

func TestBudget(t *testing.T) {
	assets, shell := bundle(t)
	f := func(language string) {
		t.Helper()
		total := len(shell.Gzip)
		for _, name := range []string{"app.js", "shop.css", "icon.svg", language} {
			a := asset(t, assets, name)
			if a.Gzip == nil {
				t.Fatalf("%s is not compressed", a.Path)
			}
			total += len(a.Gzip)
		}
		t.Logf("first visit with %s: %d bytes", language, total)
		if total >= budget {
			t.Errorf("a first visit with %s costs %d bytes, the budget is %d", language, total, budget)
		}
	}
	f("en.js")
	f("zh.js")

	late := func(words string) {
		t.Helper()
		total := 0
		for _, name := range []string{"gate.js", "gate.css", "captcha.js", "draw.js", words} {
			size := len(asset(t, assets, name).Gzip)
			t.Logf("%s: %d bytes", name, size)
			total += size
		}
		if total >= lateBudget {
			t.Errorf("the gate with %s costs %d bytes, the budget is %d", words, total, lateBudget)
		}
	}
	late("gateen.js")
	late("gatezh.js")

	// Nothing but the language is imported before the page asks for it.
	imports := regexp.MustCompile(`import\("[^"]*"\)`).FindAll(asset(t, assets, "app.js").Body, -1)
	if want := []string{"en", "zh", "gate"}; len(imports) != len(want) {
		t.Errorf("app.js loads %s, want %v: is the budget of a first visit still what is loaded at first?", imports, want)
	}
}

// Modules that are loaded later bring no second copy of one with a state of its own.
func TestLateModulesAreStateless(t *testing.T) {
	within := func(name string) []string {
		j := joiner{owner: map[string]string{}}
		if err := j.add(name); err != nil {
			t.Fatal(err)
		}
		return j.done
	}
	state := regexp.MustCompile(`(?m)^(?:export )?let \w+`)
	first := within("app.js")
	for _, name := range scripts[1:] {
		for _, module := range within(name) {
			src, err := readSource(module)
			if err != nil {
				t.Fatal(err)
			}
			if found := state.Find(src); slices.Contains(first, module) && found != nil {
				t.Errorf("%s brings a second %s, with its %q", name, module, found)
			}
		}
	}
}

func TestAssets(t *testing.T) {
	assets, shell := bundle(t)
	named := regexp.MustCompile(`^/assets/[a-z]+\.[0-9a-f]{10}\.(js|css|svg)$`)
	tags := map[string]string{}
	for p, a := range assets {
		if p != a.Path || !named.MatchString(p) || !a.Immutable || a.ContentType == "" {
			t.Errorf("asset %q: %q %q immutable=%v", p, a.Path, a.ContentType, a.Immutable)
		}
		if other, dup := tags[a.ETag]; dup {
			t.Errorf("%s and %s share the tag %s", p, other, a.ETag)
		}
		tags[a.ETag] = p
		checkGzip(t, a)
	}
	checkGzip(t, shell)
	if shell.Immutable {
		t.Error("the shell must be revalidated")
	}
	again, shellAgain := bundle(t)
	for p, a := range assets {
		if again[p].ETag != a.ETag || !bytes.Equal(again[p].Gzip, a.Gzip) {
			t.Errorf("%s differs when built again", p)
		}
	}
	if shellAgain.ETag != shell.ETag {
		t.Error("the shell differs when built again")
	}
}

func checkGzip(t *testing.T, a Asset) {
	t.Helper()
	r, err := gzip.NewReader(bytes.NewReader(a.Gzip))
	if err != nil {
		t.Fatalf("%s: %v", a.Path, err)
	}
	body, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(body, a.Body) {
		t.Errorf("%s: the compressed form is not the body (%v)", a.Path, err)
	}
}

// Every file that a file refers to exists under the name it uses.
func TestReferences(t *testing.T) {
	assets, shell := bundle(t)
	used := regexp.MustCompile(`"((?:\./|/assets/)[^"]*)"`)
	check := func(a Asset) (n int) {
		for _, m := range used.FindAllSubmatch(a.Body, -1) {
			name := "/assets/" + path.Base(string(m[1]))
			if _, ok := assets[name]; !ok {
				t.Errorf("%s refers to %s, which is not there", a.Path, name)
			}
			n++
		}
		return n
	}
	if check(shell) < 3 {
		t.Error("the shell should refer to the icon, the style and the script")
	}
	for _, a := range assets {
		check(a)
	}
	f := func(name string, want int) {
		t.Helper()
		if n := check(asset(t, assets, name)); n != want {
			t.Errorf("%s refers to %d files, want %d", name, n, want)
		}
	}
	f("app.js", 3)  // two languages and the gate
	f("gate.js", 6) // its words, its style, and what it loads when it is needed
}

func TestShellDemo(t *testing.T) {
	_, plain := bundle(t)
	demo, err := Shell(true)
	if err != nil {
		t.Fatal(err)
	}
	f := func(a Asset, want string) {
		t.Helper()
		if !bytes.Contains(a.Body, []byte(`<meta name="sluice-demo" content="`+want+`">`)) {
			t.Errorf("the shell does not say sluice-demo=%s", want)
		}
	}
	f(plain, "0")
	f(demo, "1")
	if demo.ETag == plain.ETag {
		t.Error("two shells, one tag")
	}
}

// scripts are the modules that are files of their own once joined.
var scripts = []string{"app.js", "gate.js", "captcha.js", "draw.js"}

func words(name string) bool { return regexp.MustCompile(`^(gate)?(en|zh)\.js$`).MatchString(name) }

func TestJoin(t *testing.T) {
	var body []byte
	for _, root := range scripts {
		joined, err := source(root)
		if err != nil {
			t.Fatal(err)
		}
		body = append(body, joined...)
	}
	files, err := static.ReadDir("static")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if path.Ext(f.Name()) != ".js" || words(f.Name()) {
			continue
		}
		src, err := readSource(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(src)) {
			if m := declaration.FindStringSubmatch(line); m != nil {
				if n := len(regexp.MustCompile(`(?m)^(?:export )?(?:async )?(?:const|let|class|function\*?) `+m[1]+`\b`).FindAll(body, -1)); n < 1 {
					t.Errorf("%s of %s is not in the joined file", m[1], f.Name())
				}
			}
		}
	}
	for _, left := range []string{"\nimport{", "\nimport ", "\n//"} {
		if bytes.Contains(body, []byte(left)) {
			t.Errorf("the joined file still holds %q", left)
		}
	}
	app, err := source("app.js")
	if err != nil || bytes.Contains(app, []byte("\nexport ")) {
		t.Errorf("app.js exports to nobody (%v)", err)
	}
	if _, err := source("none.js"); !errors.Is(err, ErrSource) {
		t.Errorf("a module that is not there: %v, want ErrSource", err)
	}
}

func TestJoinRefuses(t *testing.T) {
	f := func(module, line string) {
		t.Helper()
		j := joiner{owner: map[string]string{"get": "api.js"}}
		if _, err := j.keep(module, line); !errors.Is(err, ErrSource) {
			t.Errorf("%q in %s: %v, want ErrSource", line, module, err)
		}
	}
	f("list.js", "const get = 1;\n")
	f("list.js", "export async function get() {\n")
	f("list.js", "  const text = `over\n")
}

func TestSqueezeLine(t *testing.T) {
	f := func(line, want string) {
		t.Helper()
		if got := squeezeLine(line); got != want {
			t.Errorf("%s\n got %s\nwant %s", line, got, want)
		}
	}
	f(`const a = (b, c) => { return b + c; }`, `const a=(b,c)=>{return b + c;}`)
	f(`say("one, { two }  = three"); // why`, `say("one, { two }  = three");`)
	f(`x = "a \" , b" + 'c = "d'`, `x="a \" , b" + 'c = "d'`)
	f(`if (/^ [/ "] , $/.test(x)) return /a b/;`, `if(/^ [/ "] , $/.test(x))return /a b/;`)
	f(`return / , "/.test(x)`, `return / , "/.test(x)`)
	f(`a = b / c; d = e / f;`, `a=b / c;d=e / f;`)
	f("f(a, `x = ${b ? 1 : 2}`, c)", "f(a,`x = ${b ? 1 : 2}`, c)")
	f(`return "https://x.y" in z`, `return "https://x.y" in z`)
	f(`// nothing`, ``)
	f(`n + +m - -o`, `n + +m - -o`)
	f(`async function* events(body) {`, `async function* events(body){`)
}
