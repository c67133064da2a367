package shoptest

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// openWithin bounds the wait for the sale to open.
const openWithin = 60 * time.Second

// BuyAndPay clicks through the whole story on the demo at baseURL: the list,
// the sale, the countdown until the button arms, a double click, a reload, the
// payment on the sandbox's page, the result, and the order in the list. It
// checks that all that was one purchase. Pictures of each stage, on phone and
// desktop, light and dark, in both languages, go to dir; none if it is empty.
func BuyAndPay(t *testing.T, baseURL, dir string) {
	t.Helper()
	b := Open(t, 3*time.Minute)
	b.Go(baseURL + "/")
	b.Wait(".sales a.sale .digits", 20*time.Second)
	b.Album(dir, "1-list", ".sales a.sale .digits", "")

	b.Click(".sales a.sale")
	b.Wait(".card .buy", 20*time.Second)
	before := Eval[string](b, `document.querySelector("main").dataset.phase`)
	if before == "before" && b.Count(`.buy[aria-disabled=false]`) > 0 {
		t.Error("a button is armed before the sale is open")
	}
	b.Album(dir, "2-sale-"+before, ".card .buy", "")

	armed := `.card:has([data-level=plenty], [data-level=few]) .buy[aria-disabled=false]`
	b.Wait(armed, openWithin)
	sku := Eval[string](b, `document.querySelector(`+quote(armed)+`).closest(".card").dataset.sku`)
	buy := `[data-sku="` + sku + `"] .buy`
	b.Do(chromedp.ScrollIntoView(chromedp.CSS(buy)), chromedp.DoubleClick(chromedp.CSS(buy)))
	held := `.slip[data-status=held]`
	b.Wait(held, 20*time.Second)
	if got := Eval[string](b, `document.activeElement.textContent`); got != Eval[string](b, `document.querySelector(".slip h2").textContent`) {
		t.Errorf("after the purchase the focus is on %q, not on the slip", got)
	}
	order := Eval[string](b, `document.querySelector(".slip dd.id").textContent`)

	b.Do(chromedp.Reload())
	b.Wait(held, 20*time.Second)
	b.Click(buy) // the same wish again is the same reservation
	b.Wait(buy+`[aria-disabled=false]`, 20*time.Second)
	b.Album(dir, "3-held", held, "")
	if n, again := b.Count(".slip"), Eval[string](b, `document.querySelector(".slip dd.id").textContent`); n != 1 || again != order {
		t.Errorf("after a reload: %d slips, order %s, want 1 and %s", n, again, order)
	}
	keys := b.Keys()
	for _, key := range keys {
		if key != keys[0] {
			t.Errorf("double click, reload and retry sent different keys: %v", keys)
		}
	}

	b.Click(held + " .go")
	b.Click(`button[name=action][value=pay]`)
	b.Wait(`.slip[data-status=paid]`, 30*time.Second)
	b.Album(dir, "4-paid", `.slip[data-status=paid]`, "")

	b.Go(baseURL + "/")
	b.Wait(`.order[data-status=paid]`, 20*time.Second)
	if n := b.Count(".order"); n != 1 {
		t.Errorf("%d orders in the list, want the one", n)
	}
	b.Album(dir, "5-orders", `.order[data-status=paid]`, "#orders")
}

// Album takes the stage's pictures in both languages, from the top or of the
// element in view, and leaves the tab as it was: desktop, light, English. Each change
// of language shows the view anew; it is complete when the element settled is there.
func (b *Browser) Album(dir, stage, settled, view string) {
	b.t.Helper()
	if dir == "" {
		return
	}
	for _, lang := range []string{"zh", "en"} {
		b.Click(`[data-lang=` + lang + `]`)
		b.Wait(`[data-lang=`+lang+`][aria-pressed=true]`, 5*time.Second)
		b.Wait(`main:not([aria-busy])`, 10*time.Second)
		b.Wait(settled, 10*time.Second)
		b.Shots(dir, stage, lang, view)
	}
}

// Shots takes the stage's pictures on phone and desktop, light and dark, and
// leaves the tab on the light desktop. Nothing may stick out of the page.
func (b *Browser) Shots(dir, stage, lang, view string) {
	b.t.Helper()
	if dir == "" {
		return
	}
	screens := []struct {
		width, height int64
		phone         bool
	}{{390, 844, true}, {1280, 800, false}}
	b.settleImages()
	for _, s := range screens {
		for _, scheme := range []string{"dark", "light"} {
			media := []*emulation.MediaFeature{
				{Name: "prefers-color-scheme", Value: scheme},
				{Name: "prefers-reduced-motion", Value: "reduce"},
			}
			Call(b, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
				Width: s.width, Height: s.height, DeviceScaleFactor: 1, Mobile: s.phone,
			})
			Call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: media})
			wide := Eval[float64](b, `document.documentElement.scrollWidth`)
			if wide > float64(s.width) {
				b.t.Errorf("%s, %s: the page is %v wide on a screen of %d", stage, lang, wide, s.width)
			}
			if view != "" {
				Eval[bool](b, `!document.querySelector(`+quote(view)+`).scrollIntoView()`)
			}
			b.Shoot(dir, fmt.Sprintf("%s.%dx%d.%s.%s", stage, s.width, s.height, scheme, lang))
		}
	}
	Call(b, emulation.ClearDeviceMetricsOverride, cdp.Empty{})
	Call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{})
}

// settleImages waits until every picture is loaded.
func (b *Browser) settleImages() {
	b.t.Helper()
	Eval[bool](b, `Promise.all([...document.images].map((i) => i.decode().catch(() => {}))).then(() => true)`)
}

func quote(s string) string { return strconv.Quote(s) }
