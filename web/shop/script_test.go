package shop

import (
	"io/fs"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"sluice/web/shop/shoptest"
)

// The modules' own tests, in the browser that they are written for.
func TestScripts(t *testing.T) {
	src, err := fs.Sub(static, "static")
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/src/", http.StripPrefix("/src/", http.FileServerFS(src)))
	mux.Handle("/testdata/", http.StripPrefix("/testdata/", http.FileServer(http.Dir("testdata"))))
	mux.HandleFunc("/{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write([]byte(`<!doctype html><html lang="en"><meta name="sluice-demo" content="0"><p id="say"></p>`))
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)

	b := shoptest.Open(t, 90*time.Second)
	b.Go(server.URL + "/")
	shoptest.Eval[bool](b, `import("/src/words.js").then((w) => w.speak("en")).then(() => true)`)
	names := shoptest.Eval[[]string](b, `import("/testdata/unit.js").then((m) => Object.keys(m))`)
	if len(names) < 10 {
		t.Fatalf("only %d tests were found: %v", len(names), names)
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			fault := shoptest.Eval[string](b, `import("/testdata/unit.js")
				.then((m) => m["`+name+`"]()).then(() => "", (e) => String(e && e.stack || e))`)
			if fault != "" {
				t.Error(fault)
			}
		})
	}
}
