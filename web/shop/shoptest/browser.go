// Package shoptest drives the storefront in a real headless Chromium, against
// any server that speaks the shopper API: it clicks what a shopper clicks, reads
// what a shopper sees, and takes pictures for people to look at.
package shoptest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// Browser is one Chromium tab with a profile of its own.
type Browser struct {
	t   testing.TB
	ctx context.Context

	mu     sync.Mutex
	keys   []string // the Idempotency-Key of every purchase sent
	faults []string // what the page threw or logged as an error
}

// Open starts a Chromium that ends with the test, or after limit. Errors that
// the page logs, exceptions and breaches of its policy fail the test. Without a
// Chromium the test is skipped, except where CI is set: there it fails.
func Open(t testing.TB, limit time.Duration) *Browser {
	t.Helper()
	path, err := find()
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("browser tests: %v", err)
		}
		t.Skipf("BROWSER TESTS NOT RUN: %v", err)
	}
	ctx, stop := context.WithTimeout(context.Background(), limit)
	t.Cleanup(stop)
	ctx, stopBrowser := chromedp.NewExecAllocator(ctx,
		chromedp.ExecPath(path),
		chromedp.UserDataDir(t.TempDir()),
		chromedp.NoFirstRun,
		chromedp.Headless,
		chromedp.NoSandbox,
		chromedp.DisableGPU,
		chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true),
		chromedp.Flag("disable-dev-shm-usage", true),
		chromedp.Flag("hide-scrollbars", true),
		chromedp.Flag("lang", "en-GB"),
		chromedp.WindowSize(1280, 800),
	)
	ctx, stopTab := chromedp.NewContext(ctx)
	b := &Browser{t: t, ctx: ctx}
	t.Cleanup(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, fault := range b.faults {
			t.Errorf("the page: %s", fault)
		}
	})
	t.Cleanup(func() {
		if err := chromedp.Cancel(ctx); err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
			t.Logf("ending the browser: %v", err)
		}
		stopTab()
		stopBrowser()
	})
	if err := chromedp.Listen(ctx, b.hear); err != nil {
		t.Fatalf("starting the browser: %v", err)
	}
	Call(b, network.Enable, network.EnableParams{})
	Call(b, log.Enable, cdp.Empty{})
	Call(b, runtime.Enable, cdp.Empty{})
	return b
}

func find() (string, error) {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("no chromium in PATH")
}

// hear runs on the browser's event loop, so it only notes things down.
func (b *Browser) hear(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		d := e.ExceptionDetails
		fault := fmt.Sprintf("%s:%d: %s", d.URL, d.LineNumber+1, d.Text)
		if d.Exception != nil {
			fault += " " + d.Exception.Description
		}
		b.faults = append(b.faults, fault)
	case *log.EventEntryAdded:
		// Refusals are ordinary answers, but the browser logs each as an error.
		if e.Entry.Level == log.EntryLevelError && e.Entry.Source != log.EntrySourceNetwork {
			b.faults = append(b.faults, fmt.Sprintf("%s: %s", e.Entry.Source, e.Entry.Text))
		}
	case *network.EventRequestWillBeSent:
		if key, ok := e.Request.Headers["Idempotency-Key"].(string); ok && e.Request.Method == "POST" {
			b.keys = append(b.keys, key)
		}
	}
}

// Keys are the Idempotency-Keys of the purchases sent so far, in order.
func (b *Browser) Keys() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.keys...)
}

// Do runs actions; an error ends the test.
func (b *Browser) Do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, actions...); err != nil {
		b.t.Fatalf("browser: %v", err)
	}
}

// Go opens a URL.
func (b *Browser) Go(url string) {
	b.t.Helper()
	b.Do(chromedp.Navigate(url))
}

// Wait waits until the selector matches something visible, at most limit.
func (b *Browser) Wait(selector string, limit time.Duration) {
	b.t.Helper()
	ctx, stop := context.WithTimeout(b.ctx, limit)
	defer stop()
	if err := chromedp.Do(ctx, chromedp.WaitVisible(chromedp.CSS(selector))); err != nil {
		text, broken := chromedp.Run(b.ctx, chromedp.Evaluate[string](`location.href + "\n" + document.body.innerText`))
		if broken != nil {
			text = "(the page does not answer)"
		}
		b.t.Fatalf("waiting for %s: %v; the page says:\n%s", selector, err, text)
	}
}

// Click clicks the first match.
func (b *Browser) Click(selector string) {
	b.t.Helper()
	b.Wait(selector, 20*time.Second)
	b.Do(chromedp.Click(chromedp.CSS(selector)))
}

// Press presses keys (package kb), one after another, on what has the focus.
func (b *Browser) Press(keys string, with ...chromedp.Modifier) {
	b.t.Helper()
	b.Do(chromedp.KeyEvent(keys, chromedp.KeyModifiers(with...)))
}

// Text is what a shopper reads in the first match.
func (b *Browser) Text(selector string) string {
	b.t.Helper()
	return Eval[string](b, `document.querySelector(`+quote(selector)+`)?.innerText ?? ""`)
}

// Until waits until a JavaScript expression is true, at most limit.
func (b *Browser) Until(expression string, limit time.Duration) {
	b.t.Helper()
	ctx, stop := context.WithTimeout(b.ctx, limit)
	defer stop()
	if _, err := chromedp.Run(ctx, chromedp.Poll[bool](expression)); err != nil {
		b.t.Fatalf("waiting until %s: %v; the page says:\n%s", expression, err, b.Text("body"))
	}
}

// Count says how many elements match.
func (b *Browser) Count(selector string) int {
	b.t.Helper()
	return int(Eval[float64](b, `document.querySelectorAll(`+quote(selector)+`).length`))
}

// Eval answers a JavaScript expression, awaited if it is a promise.
func Eval[T any](b *Browser, expression string) T {
	b.t.Helper()
	out, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("browser: %v in\n%s", err, expression)
	}
	return out
}

// Call sends a command of the DevTools protocol.
func Call[P, R any](b *Browser, command cdp.Command[P, R], params P) R {
	b.t.Helper()
	out, err := chromedp.Call(b.ctx, command, params)
	if err != nil {
		b.t.Fatalf("browser: %s: %v", command.Method, err)
	}
	return out
}

// Shoot saves a picture of the viewport as dir/name.png.
func (b *Browser) Shoot(dir, name string) {
	b.t.Helper()
	png, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		b.t.Fatalf("browser: %v", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644); err != nil {
		b.t.Fatal(err)
	}
}
