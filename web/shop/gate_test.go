package shop

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"sluice/web/shop/shoptest"
)

// soon bounds what the page does by itself.
const soon = 10 * time.Second

const speaker = `[data-sku=field-speaker]`

func visit(t *testing.T, s *scripted) *shoptest.Browser {
	t.Helper()
	b := shoptest.Open(t, 2*time.Minute)
	b.Go(s.url + "/a/" + saleID)
	b.Wait(".card .buy", 20*time.Second)
	return b
}

func reads(t *testing.T, b *shoptest.Browser, selector, want string) {
	t.Helper()
	b.Until(`(document.querySelector(`+strconv.Quote(selector)+`)?.innerText ?? "").replace(/\s+/g, " ").includes(`+strconv.Quote(want)+`)`, soon)
}

// From the queue's opening to the reservation, with all that is seen on the way.
func TestQueue(t *testing.T) {
	shots := os.Getenv("SLUICE_SHOTS")
	s := script(t, 10*time.Minute, "queue", "challenge")
	s.challenge = "slider"
	place := s.drawn(1234, 17)
	commitment := s.draw["commitment"].(string)
	whole := s.draw
	s.draw = document{"commitment": commitment, "joined": 1234, "drawn": false, "algorithm": "sha256-sort"}
	b := visit(t, s)

	// Closing the check gives the button back; a wrong answer brings another one.
	reads(t, b, speaker+" .buy", "Join the queue")
	b.Album(shots, "q1-before", speaker+" .buy", "")
	b.Click(speaker + " .buy")
	b.Wait("dialog.check[open] .piece", soon)
	b.Press(kb.Escape)
	reads(t, b, speaker+" .note", "Without the check")
	if got := b.Text(":focus"); !strings.Contains(got, "Join the queue") {
		t.Errorf("after the dialog the focus is on %q", got)
	}
	b.Press(kb.Enter)
	b.Wait(`dialog.check[open] input[type=range]:focus`, soon)
	b.Shots(shots, "q2-slider", "en", "")
	b.Press(kb.Enter)
	reads(t, b, ".check .fault", "Here is another one")
	solve(t, s, b)

	b.Wait(`.room[data-state=registered]`, soon)
	reads(t, b, ".room h2", "You are in")
	reads(t, b, ".room", "People in 1,234")
	reads(t, b, ".room", "Reserved for you when you are called: Field speaker × 1")
	reads(t, b, speaker+" .buy", "In the queue")
	b.Click(".room summary")
	reads(t, b, ".fair dl", commitment)
	reads(t, b, ".fair", "after the draw")
	b.Album(shots, "q3-registered", `.room[data-state=registered]`, "")

	// The place is the server's: a reload asks for it, and joins no second time.
	joins := s.count("POST /queue")
	b.Do(chromedp.Reload())
	b.Wait(`.room[data-state=registered]`, soon)
	reads(t, b, speaker+" .buy", "In the queue")
	if n := s.count("POST /queue"); n != joins {
		t.Errorf("a reload joined again: %d times, then %d", joins, n)
	}

	s.set(func() { s.draw = whole })
	s.at("waiting", document{"position": place, "eta_seconds": 180, "eta_error_seconds": 60, "outlook": "good"})
	b.Wait(`.room[data-state=waiting]`, soon)
	reads(t, b, ".room .digits", comma(place))
	reads(t, b, ".room", "About 2 to 4 minutes to your turn.")
	b.Until(`document.title.startsWith("`+comma(place)+` · ")`, soon)
	b.Click(".room summary")
	b.Click(".fair button")
	reads(t, b, ".verdict", "Checked: your place "+comma(place)+" of 1,234 follows from the seed.")
	b.Shots(shots, "q4-checked", "en", ".room")
	s.at("waiting", document{"position": max(2, place/3), "eta_seconds": 40, "eta_error_seconds": 8, "outlook": "unlikely"})
	reads(t, b, ".outlook", "More people are before you")
	reads(t, b, ".room", "About 30 to 50 seconds to your turn.")
	b.Album(shots, "q5-waiting", `.room[data-state=waiting]`, "")

	// Another choice, the same place.
	b.Click("[data-sku=aurora-headphones] .buy")
	reads(t, b, ".room .chosen", "Aurora")
	reads(t, b, speaker+" .buy", "Choose this")
	b.Click(speaker + " .buy")
	reads(t, b, ".room .chosen", "Field speaker")

	s.at("called", document{"pass": "p.17", "expires_at": stamp(time.Now().Add(2 * time.Minute))})
	b.Wait(`.slip[data-status=held]`, soon)
	b.Until(`document.querySelector(".room").hidden`, soon)
	b.Album(shots, "q6-held", `.slip[data-status=held]`, "")
	if got := s.bought(); len(got) != 1 || got[0].pass != "p.17" || got[0].clearance != "" {
		t.Errorf("purchases sent: %+v, want one with the pass", got)
	}
	b.Do(chromedp.Reload())
	b.Wait(`.slip[data-status=held]`, soon)
	if n := b.Count(".room:not([hidden])"); n != 0 {
		t.Error("the waiting room is back after the purchase")
	}
}

// solve moves the piece by keyboard and by pointer into its gap.
func solve(t *testing.T, s *scripted, b *shoptest.Browser) {
	t.Helper()
	piece := `document.querySelector(".check .piece")`
	b.Until(piece+` && document.querySelector(".stage").getAttribute("aria-busy") === "false"`, soon)
	b.Do(chromedp.Focus(chromedp.CSS(".check input")))
	b.Press(kb.ArrowRight, chromedp.ModifierShift)
	b.Press(kb.ArrowRight + kb.ArrowRight + kb.ArrowLeft)
	if got := shoptest.Eval[string](b, piece+`.getAttribute("x") + " " + document.activeElement.getAttribute("aria-valuenow")`); got != "11 11" {
		t.Errorf("after the arrow keys the piece is at %s", got)
	}
	s.mu.Lock()
	want := s.answer
	s.mu.Unlock()
	at := shoptest.Eval[[]float64](b, `(() => { const r = `+piece+`.getBoundingClientRect(), s = document.querySelector(".stage svg").getBoundingClientRect();
		return [r.x + r.width / 2, r.y + r.height / 2, s.width / 320]; })()`)
	to := at[0] + float64(want-11)*at[2]
	b.Do(
		chromedp.MouseEvent("mousePressed", at[0], at[1], chromedp.ButtonLeft, chromedp.ClickCount(1)),
		chromedp.MouseEvent("mouseMoved", (at[0]+to)/2, at[1]+3, chromedp.ButtonLeft),
		chromedp.MouseEvent("mouseMoved", to, at[1], chromedp.ButtonLeft),
		chromedp.MouseEvent("mouseReleased", to, at[1], chromedp.ButtonLeft, chromedp.ClickCount(1)),
	)
	if got := shoptest.Eval[string](b, piece+`.getAttribute("x")`); got != strconv.Itoa(want) {
		t.Errorf("dragged to %s, want %d", got, want)
	}
	b.Click(".check .go")
}

func comma(n int) string {
	if n < 1000 {
		return strconv.Itoa(n)
	}
	return strconv.Itoa(n/1000) + "," + strconv.Itoa(1000 + n%1000)[1:]
}

// Where event streams do not get through, the page asks as often as the server wants.
func TestQueuePolls(t *testing.T) {
	s := script(t, -time.Minute, "queue")
	s.silent = true
	b := visit(t, s)
	s.at("waiting", document{"position": 90, "eta_seconds": 12, "eta_error_seconds": 3, "outlook": "good"})
	b.Do(chromedp.Reload()) // a place taken elsewhere is taken up
	reads(t, b, ".room .digits", "90")
	reads(t, b, ".room", "so that it can be reserved the moment you are called")
	b.Click(speaker + " .buy")
	reads(t, b, ".room .chosen", "Field speaker")
	s.at("waiting", document{"position": 2, "eta_seconds": 2, "eta_error_seconds": 2, "outlook": "good"})
	reads(t, b, ".room .digits", "2")
	reads(t, b, ".room", "Any moment now.")
	s.at("called", document{"pass": "p.17", "expires_at": stamp(time.Now().Add(time.Minute))})
	b.Wait(`.slip[data-status=held]`, soon)
	if got := s.bought(); len(got) != 1 || got[0].pass != "p.17" {
		t.Errorf("purchases sent: %+v", got)
	}
}

// Called on a device where nothing was chosen; not in time; again; sold out.
func TestQueueEnds(t *testing.T) {
	shots := os.Getenv("SLUICE_SHOTS")
	s := script(t, -time.Minute, "queue")
	s.at("called", document{"pass": "p.17", "expires_at": stamp(time.Now().Add(90 * time.Second))})
	b := visit(t, s)
	b.Wait(`.room[data-state=called]`, soon)
	reads(t, b, ".room", "Choose an item below")
	reads(t, b, ".room", "Buy within")
	reads(t, b, speaker+" .buy", "Buy now")
	b.Shots(shots, "q7-called", "en", "")

	s.at("called", document{"pass": "p.17", "expires_at": stamp(time.Now().Add(1500 * time.Millisecond))})
	b.Do(chromedp.Reload())
	b.Wait(`.room[data-state=lapsed]`, soon) // by the page's own clock
	s.at("lapsed", nil)
	reads(t, b, ".room", "Your turn has passed")
	b.Shots(shots, "q8-lapsed", "en", "")
	b.Click(".room .go")
	b.Wait(`.room[data-state=registered]`, soon)
	b.Click(speaker + " .buy")
	reads(t, b, speaker+" .buy", "In the queue")
	s.at("lapsed", nil)
	b.Wait(`.room[data-state=lapsed]`, soon)
	reads(t, b, speaker+" .note", "Your turn has passed.")
	b.Click(".room .go") // with what was chosen
	b.Wait(`.room[data-state=registered]`, soon)
	reads(t, b, ".room .chosen", "Field speaker")
	s.at("over", nil)
	b.Wait(`.room[data-state=over]`, soon)
	reads(t, b, speaker+" .buy", "Sold out")
	b.Shots(shots, "q9-over", "en", "")
	b.Click(".room .do button")
	b.Until(`document.querySelector(".room").hidden`, soon)
	if n := len(s.bought()); n != 0 {
		t.Errorf("%d purchases were sent", n)
	}
}

// Leaving takes two presses, and a pass that is refused asks for the place again.
func TestQueueLeave(t *testing.T) {
	s := script(t, -time.Minute) // the page learns of the queue by a refusal
	s.queue = true
	b := visit(t, s)
	b.Click(speaker + " .buy")
	b.Wait(`.room[data-state=registered]`, soon)
	first := s.bought()
	b.Click(".room .do button")
	reads(t, b, ".room .do", "You would lose your place.")
	b.Click(".room .do .go")
	reads(t, b, ".room .do", "Leave the queue")
	s.refused = func() { s.place = document{"state": "waiting", "number": 17, "entry": entryOf(17), "position": 8} }
	s.at("called", document{"pass": "p.old", "expires_at": stamp(time.Now().Add(time.Minute))})
	b.Wait(`.room[data-state=waiting]`, soon)
	reads(t, b, ".room", "How long it takes is not known yet.")
	b.Click(".room .do button")
	b.Click(".room .do button:not(.go)")
	b.Until(`document.querySelector(".room").hidden`, soon)
	reads(t, b, speaker+" .note", "You have left the queue.")
	if n := s.count("POST /queue/leave"); n != 1 {
		t.Errorf("left %d times", n)
	}
	if got := s.bought(); len(got) != 2 || got[1].key != first[0].key || got[1].pass != "p.old" {
		t.Errorf("the same wish under other keys: %+v", got)
	}
}

// Too early to join: the page does it when the queue opens.
func TestQueueOpensLater(t *testing.T) {
	s := script(t, time.Hour, "queue")
	s.tooEarly = document{"queue_opens_at": stamp(time.Now().Add(4 * time.Second)), "opens_at": s.sale["opens_at"]}
	b := visit(t, s)
	reads(t, b, speaker+" .buy", "Join the queue")
	b.Click(speaker + " .buy")
	b.Wait(`.room[data-state=early]`, soon)
	reads(t, b, ".room", "The queue opens at")
	reads(t, b, ".room .chosen", "Field speaker")
	b.Shots(os.Getenv("SLUICE_SHOTS"), "q0-early", "en", "")
	s.set(func() { s.tooEarly = nil })
	b.Wait(`.room[data-state=registered]`, 15*time.Second)
	reads(t, b, speaker+" .buy", "In the queue")
}

// The ticket comes without being seen; the check for it is offered before the opening.
func TestTicket(t *testing.T) {
	shots := os.Getenv("SLUICE_SHOTS")
	s := script(t, 8*time.Second, "ticket", "challenge")
	s.challenge = "slider"
	s.ticketsAt = time.Now().Add(time.Second)
	b := visit(t, s)
	b.Wait("div.notice button", soon)
	reads(t, b, ".notices", "Do it now and you are ready")
	b.Shots(shots, "t1-offer", "en", "")
	b.Click("div.notice button")
	b.Wait("dialog.check[open] .piece", soon)
	solve(t, s, b)
	b.Until(`!document.querySelector("dialog") && !document.querySelector("div.notice")`, soon)
	if got := s.bought(); len(got) != 0 {
		t.Errorf("bought before the opening: %+v", got)
	}
	b.Wait(speaker+` .buy[aria-disabled=false]`, 15*time.Second)
	b.Click(speaker + " .buy")
	b.Wait(`.slip[data-status=held]`, soon)
	if got := s.bought(); len(got) != 1 || got[0].ticket != "t.1" || got[0].clearance != "" {
		t.Errorf("purchases sent: %+v, want one with the ticket", got)
	}

	// Without a word in the document, the refusal asks for it.
	s = script(t, -time.Minute)
	s.ticket = true
	b.Go(s.url + "/a/" + saleID)
	b.Click(speaker + " .buy")
	b.Wait(`.slip[data-status=held]`, soon)
	if got := s.bought(); len(got) != 2 || got[1].ticket != "t.1" || got[0].key != got[1].key {
		t.Errorf("purchases sent: %+v, want the second with the ticket, under the same key", got)
	}
}

// A purchase that is challenged is sent again under its key, with the clearance.
func TestChallenge(t *testing.T) {
	s := script(t, -time.Minute)
	s.challenge = "arithmetic"
	b := visit(t, s)
	b.Click(speaker + " .buy")
	b.Wait(`dialog.check[open] .sum input`, soon)
	b.Until(`document.activeElement.matches(".sum input")`, soon)
	b.Press(kb.Enter)
	reads(t, b, ".fault", "Enter the result as a number.")
	b.Press("1")
	b.Press(kb.Enter)
	reads(t, b, ".fault", "That was not right.")
	b.Click(`.check .do button:nth-child(2)`)
	b.Until(`document.querySelector(".fault").innerText === "" && document.querySelector(".stage").getAttribute("aria-busy") === "false"`, soon)
	b.Shots(os.Getenv("SLUICE_SHOTS"), "c1-sum", "en", "")
	// The dialog keeps the focus to itself.
	for range 8 {
		b.Press(kb.Tab)
		if !shoptest.Eval[bool](b, `document.activeElement === document.body || !!document.activeElement.closest("dialog")`) {
			t.Error("the focus has left the dialog")
		}
	}
	b.Do(chromedp.Focus(chromedp.CSS(".sum input")))
	s.mu.Lock()
	answer := s.answer
	s.mu.Unlock()
	b.Press(strconv.Itoa(answer) + kb.Enter)
	b.Wait(`.slip[data-status=held]`, soon)
	got := s.bought()
	if len(got) != 2 || got[0].key != got[1].key || got[1].clearance != "c.3" {
		t.Errorf("purchases sent: %+v, want the second under the same key with the clearance", got)
	}
}

// What is switched off is said, in both languages.
func TestDegraded(t *testing.T) {
	s := script(t, -time.Minute)
	s.sale["degraded"] = []string{"stock_tight", "hide_counts"}
	b := visit(t, s)
	reads(t, b, ".notices", "Stock is tight.")
	if n := b.Count(".notice"); n != 1 {
		t.Errorf("%d notices, want one", n)
	}
	b.Album(os.Getenv("SLUICE_SHOTS"), "d1-tight", ".notice", "")
	b.Click("[data-lang=zh]")
	reads(t, b, ".notices", "库存紧张")
}
