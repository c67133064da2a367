package shoptest

import (
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// listening keeps the challenges that the page is shown, for who solves them.
const listening = `(() => {
	const real = window.fetch;
	window.fetch = async (...request) => {
		const answer = await real(...request);
		if (String(request[0]).endsWith("/challenges")) answer.clone().json().then((c) => (window.lastChallenge = { ...c, at: performance.now() }), () => {});
		return answer;
	};
})()`

// QueueAndBuy goes through an activity with a waiting room and a slider challenge,
// on the demo at baseURL, that opens within a minute; the shop has to have units of
// sku for two. The first shopper joins before the opening, comes back as if on
// another device, sees the draw, checks it, chooses and buys; the second joins after
// it and has what was chosen bought when called. solve answers a challenge of a
// user. Pictures go to dir; none if it is empty.
func QueueAndBuy(t *testing.T, baseURL, activity, sku, dir string, solve func(user, challenge string) int) {
	t.Helper()
	b := Open(t, 4*time.Minute)
	Call(b, page.Enable, page.EnableParams{})
	Call(b, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: listening})
	buy := `[data-sku="` + sku + `"] .buy`
	join := func() {
		t.Helper()
		b.Until(`!!document.querySelector(`+quote(buy+`[aria-disabled=false]`)+`)`, 20*time.Second)
		b.Click(buy)
		b.slide(dir, solve)
	}

	b.Go(baseURL + "/a/" + activity)
	b.Wait(buy, 20*time.Second)
	join()
	b.Wait(`.room[data-state=registered]`, 20*time.Second)
	b.Album(dir, "6-registered", `.room[data-state=registered]`, "")
	b.Click(`.room summary`)
	b.Until(`/^[0-9a-f]{64}$/m.test(document.querySelector(".fair dl").innerText)`, 20*time.Second)

	// Another device knows the shopper and nothing else.
	Eval[bool](b, `Object.keys(localStorage).filter((k) => k.startsWith("sluice/") && k !== "sluice/shopper").every((k) => (localStorage.removeItem(k), true))`)
	b.Do(chromedp.Reload())
	b.Wait(`.room[data-state=registered]`, 20*time.Second)
	b.Wait(`.room[data-state=called]`, 90*time.Second)
	b.Click(`.room summary`)
	b.Click(`.fair button`)
	b.Wait(`.fair[data-checked]`, 20*time.Second)
	if got := Eval[string](b, `document.querySelector(".fair").dataset.checked`); got != "ok" {
		t.Errorf("the draw: %s: %s", got, b.Text(".verdict"))
	}
	b.Album(dir, "7-called", `.room[data-state=called]`, "")
	if n := len(b.Keys()); n != 0 {
		t.Errorf("%d purchases were sent before anything was chosen", n)
	}
	b.Click(buy)
	b.Wait(`.slip[data-status=held]`, 20*time.Second)
	b.Until(`document.querySelector(".room").hidden`, 5*time.Second)

	first := Eval[string](b, `localStorage.getItem("sluice/shopper")`)
	b.Click(`#who button`)
	b.Until(`localStorage.getItem("sluice/shopper") !== `+quote(first)+` && !document.querySelector(".slip")`, 20*time.Second)
	join()
	b.Wait(`.slip[data-status=held]`, 60*time.Second)
	b.Album(dir, "8-called-and-held", `.slip[data-status=held]`, "")
	if keys := b.Keys(); len(keys) != 2 || keys[0] == keys[1] {
		t.Errorf("keys of purchases: %v, want two, one of each shopper", keys)
	}
}

// slide solves the slider on show with the keyboard alone, and no sooner than a
// person could.
func (b *Browser) slide(dir string, solve func(user, challenge string) int) {
	b.t.Helper()
	b.Wait(`dialog.check[open] .piece`, 20*time.Second)
	b.Until(`document.activeElement.matches(".check input[type=range]") && document.querySelector(".stage").getAttribute("aria-busy") === "false"`, 10*time.Second)
	b.Shots(dir, "6-challenge", "en", "")
	x := solve(Eval[string](b, `localStorage.getItem("sluice/shopper")`), Eval[string](b, `window.lastChallenge.challenge`))
	b.Until(`performance.now() - window.lastChallenge.at > 500`, 10*time.Second)
	b.Press(strings.Repeat(kb.ArrowRight, x/10), chromedp.ModifierShift)
	b.Press(strings.Repeat(kb.ArrowRight, x%10) + kb.Enter)
	b.Until(`!document.querySelector("dialog")`, 10*time.Second)
}
