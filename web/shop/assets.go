// Package shop is the storefront: one static shell, a stylesheet, and plain ES
// modules, embedded in the binary. There is no build step. What a bundler would
// do is done once at start, in memory: app.js, and each part that the page loads
// only when a sale asks for it, is joined into one file with the modules that it
// imports, every file gets a name with the hash of its content, references between
// files are rewritten to those names, and each body is compressed ahead of time.
//
// Invariants: an asset's URL changes whenever its bytes do, so assets may be
// cached for ever; the shell, which names them, is always revalidated; the same
// source gives the same URLs on every node.
//
// It refuses to render data: everything a shopper sees beyond the frame comes
// from the shopper API. It knows nothing of HTTP servers either; the caller
// serves Assets and Shell.
package shop

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"regexp"
	"strings"
)

//go:embed static
var static embed.FS

// ErrSource: the embedded files do not fit together (a cycle of modules, a
// reference to a file that is not there). A fault of the build, not of the user.
var ErrSource = errors.New("storefront source")

// Asset is one file ready to be served, at Path, in either encoding.
type Asset struct {
	Path        string // URL path, "/assets/app.1a2b3c4d5e.js" or "/"
	ContentType string
	Body        []byte
	Gzip        []byte // Body compressed; nil where that gains nothing
	ETag        string // strong, quoted
	Immutable   bool   // true: the path names this content and no other
}

// Assets are the immutable files of the storefront by URL path.
func Assets() (map[string]Asset, error) {
	b, err := build()
	if err != nil {
		return nil, err
	}
	assets := make(map[string]Asset, len(b.done))
	for _, a := range b.done {
		assets[a.Path] = a
	}
	return assets, nil
}

// Shell is the page behind GET / and GET /a/{id}. With demo set it tells the
// page that POST /demo/token hands out shoppers.
func Shell(demo bool) (Asset, error) {
	b, err := build()
	if err != nil {
		return Asset{}, err
	}
	page, err := b.rewrite("shell.html", "/assets/")
	if err != nil {
		return Asset{}, err
	}
	if demo {
		page = bytes.Replace(page, []byte(`name="sluice-demo" content="0"`), []byte(`name="sluice-demo" content="1"`), 1)
	}
	return finish(Asset{Path: "/", ContentType: contentTypes[".html"], Body: page})
}

var contentTypes = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

// reference finds the file names that one source file uses for another:
// "./zh.js" in a module, "/assets/shop.css" in the shell.
var reference = regexp.MustCompile(`"(?:\./|/assets/)([a-z]+\.(?:js|css|svg))"`)

// builder makes assets. A file is named after the files it refers to, because
// their names are part of its content.
type builder struct {
	done map[string]Asset // by source name
}

// roots are the files that the shell and app.js ask for. A module brings those it
// imports, joined into it, and asks for those it names in an import() when it needs them.
var roots = []string{"app.js", "en.js", "zh.js", "shop.css", "icon.svg"}

func build() (*builder, error) {
	b := &builder{done: map[string]Asset{}}
	for _, name := range roots {
		if _, err := b.asset(name); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func (b *builder) asset(name string) (Asset, error) {
	if a, ok := b.done[name]; ok {
		return a, nil
	}
	body, err := b.rewrite(name, "./")
	if err != nil {
		return Asset{}, err
	}
	sum := sha256.Sum256(body)
	ext := path.Ext(name)
	a, err := finish(Asset{
		Path:        "/assets/" + strings.TrimSuffix(name, ext) + "." + hex.EncodeToString(sum[:5]) + ext,
		ContentType: contentTypes[ext],
		Body:        body,
		Immutable:   true,
	})
	if err != nil {
		return Asset{}, err
	}
	b.done[name] = a
	return a, nil
}

// rewrite reads a source file and puts the hashed names, after prefix, where
// it refers to others.
func (b *builder) rewrite(name, prefix string) ([]byte, error) {
	body, err := source(name)
	if err != nil {
		return nil, err
	}
	var failed error
	body = reference.ReplaceAllFunc(body, func(quoted []byte) []byte {
		a, err := b.asset(string(reference.FindSubmatch(quoted)[1]))
		if err != nil {
			failed = fmt.Errorf("%s: %w", name, err)
			return quoted
		}
		return []byte(`"` + prefix + path.Base(a.Path) + `"`)
	})
	return body, failed
}

// source reads a file as it will be served: modules joined with what they
// import, comments and indentation left out.
func source(name string) ([]byte, error) {
	switch path.Ext(name) {
	case ".js":
		j := joiner{owner: map[string]string{}}
		err := j.add(name)
		return j.out.Bytes(), err
	case ".css":
		body, err := readSource(name)
		return squeeze(body), err
	default:
		return readSource(name)
	}
}

func readSource(name string) ([]byte, error) {
	body, err := static.ReadFile("static/" + name)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSource, err)
	}
	return body, nil
}

var (
	cssComment = regexp.MustCompile(`(?s)/\*.*?\*/`)
	cssAround  = regexp.MustCompile(`\s*([{};,>]|:\s)\s*`) // a colon without a space after it may be a selector's
)

// squeeze leaves out of a stylesheet what is only there for its readers. Strings
// in it hold none of this punctuation next to a space.
func squeeze(css []byte) []byte {
	css = cssComment.ReplaceAll(css, nil)
	css = cssAround.ReplaceAllFunc(css, bytes.TrimSpace)
	return bytes.ReplaceAll(css, []byte(";}"), []byte("}"))
}

// finish adds what is derived from the body: tag and compressed form.
func finish(a Asset) (Asset, error) {
	sum := sha256.Sum256(a.Body)
	a.ETag = `"` + hex.EncodeToString(sum[:10]) + `"`
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return Asset{}, err
	}
	if _, err := w.Write(a.Body); err != nil {
		return Asset{}, err
	}
	if err := w.Close(); err != nil {
		return Asset{}, err
	}
	if out.Len() < len(a.Body) {
		a.Gzip = out.Bytes()
	}
	return a, nil
}
