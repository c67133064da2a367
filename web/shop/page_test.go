package shop

import (
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// What a page must have before anybody can hear or read it.
func TestShellIsSound(t *testing.T) {
	_, shell := bundle(t)
	page := string(shell.Body)
	f := func(pattern string, want int) {
		t.Helper()
		if n := len(regexp.MustCompile(pattern).FindAllString(page, -1)); n != want {
			t.Errorf("%s occurs %d times, want %d", pattern, n, want)
		}
	}
	f(`(?i)^<!doctype html>`, 1)
	f(`<html lang="en">`, 1)
	f(`<h1[ >]`, 1)
	f(`<main `, 1)
	f(`<title>[^<]+</title>`, 1)
	f(`name="viewport"`, 1)
	f(`aria-live="polite"`, 1)
	f(`class="skip" href="#main"`, 1)
	f(`<button type="button" lang="(en|zh-CN)"`, 2)
	// The policy forbids inline code and style.
	f(`<style| style=| on[a-z]+=|<script[^>]*>[^<]`, 0)

	open := []string{}
	void := map[string]bool{"meta": true, "link": true, "!doctype": true}
	for _, m := range regexp.MustCompile(`<(/?)([!a-z0-9]+)[^>]*>`).FindAllStringSubmatch(page, -1) {
		switch {
		case void[m[2]]:
		case m[1] == "":
			open = append(open, m[2])
		case len(open) == 0 || open[len(open)-1] != m[2]:
			t.Fatalf("</%s> closes %v", m[2], open)
		default:
			open = open[:len(open)-1]
		}
	}
	if len(open) > 0 {
		t.Errorf("never closed: %v", open)
	}
}

// Data must never be parsed as markup, nor text as code.
func TestNoMarkupFromData(t *testing.T) {
	var body []byte
	for _, name := range scripts {
		joined, err := source(name)
		if err != nil {
			t.Fatal(err)
		}
		body = append(body, joined...)
	}
	for _, danger := range []string{"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", ".style.", "srcdoc"} {
		if strings.Contains(string(body), danger) {
			t.Errorf("a script uses %s", danger)
		}
	}
}

// Both languages say everything that is said, the error table included.
func TestLanguages(t *testing.T) {
	entry := regexp.MustCompile(`(?m)^  (\w+): *\n? *(.*)$`)
	words := func(names ...string) map[string]string {
		out := map[string]string{}
		for _, name := range names {
			body, err := readSource(name)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range entry.FindAllStringSubmatch(string(body), -1) {
				if out[m[1]] != "" {
					t.Errorf("%s says %s again", name, m[1])
				}
				out[m[1]] = m[2]
			}
		}
		return out
	}
	en, zh := words("en.js", "gateen.js"), words("zh.js", "gatezh.js")
	for key := range en {
		if zh[key] == "" {
			t.Errorf("zh.js lacks %s", key)
		}
	}
	for key, text := range zh {
		if en[key] == "" {
			t.Errorf("en.js lacks %s", key)
		}
		if !regexp.MustCompile(`\p{Han}`).MatchString(text) {
			t.Errorf("zh.js: %s is not Chinese: %s", key, text)
		}
	}
	// Those that only a fault of the page itself can cause share the one of invalid_request.
	codes := `invalid_request unauthenticated not_eligible no_such_activity no_such_sku no_such_order no_such_reservation
		not_open ended sold_out all_held insufficient limit_reached order_state idempotency_mismatch rate_limited internal
		overloaded paused not_ready unknown network
		challenge_required challenge_failed ticket_required no_ticket_needed queued not_queued no_queue queue_full
		registration_closed read_only`
	for _, code := range strings.Fields(codes) {
		if en["e_"+code] == "" {
			t.Errorf("no sentence for the code %s", code)
		}
	}
	for _, name := range scripts {
		js, err := source(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`\bt\("(\w+)"`).FindAllStringSubmatch(string(js), -1) {
			if en[m[1]] == "" && !strings.HasSuffix(m[1], "_") {
				t.Errorf("%s says %s, which has no words", name, m[1])
			}
		}
	}
	for _, state := range strings.Fields("registered waiting called lapsed over") {
		if en["q_"+state] == "" || (en["r_"+state] == "" && state != "waiting") {
			t.Errorf("no words for the place %s", state)
		}
	}
	for _, state := range strings.Fields("pending held paid fulfilled cancelled expired refunded refused") {
		if en["s_"+state] == "" || en["d_"+state] == "" {
			t.Errorf("no words for the state %s", state)
		}
	}
}

// Text meets WCAG AA, 4.5:1, in both schemes.
func TestContrast(t *testing.T) {
	css, err := readSource("shop.css")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile(`(?s):root \{(.*?)\}`).FindAllStringSubmatch(string(css), -1)
	if len(blocks) != 2 {
		t.Fatalf("%d palettes, want light and dark", len(blocks))
	}
	for i, block := range blocks {
		colour := map[string]float64{}
		for _, m := range regexp.MustCompile(`--([a-z-]+): #([0-9a-f]+);`).FindAllStringSubmatch(block[1], -1) {
			colour[m[1]] = luminance(t, m[2])
		}
		f := func(ink, paper string) {
			t.Helper()
			a, b := colour[ink], colour[paper]
			if ratio := (math.Max(a, b) + .05) / (math.Min(a, b) + .05); ratio < 4.5 {
				t.Errorf("palette %d: %s on %s has a contrast of %.2f", i, ink, paper, ratio)
			}
		}
		for _, paper := range []string{"paper", "wash"} {
			for _, ink := range []string{"ink", "soft", "now", "good"} {
				f(ink, paper)
			}
		}
		f("on-now", "now")
	}
}

// luminance is the relative luminance of WCAG 2.2.
func luminance(t *testing.T, hex string) float64 {
	t.Helper()
	if len(hex) == 3 {
		hex = string([]byte{hex[0], hex[0], hex[1], hex[1], hex[2], hex[2]})
	}
	n, err := strconv.ParseUint(hex, 16, 32)
	if err != nil || len(hex) != 6 {
		t.Fatalf("colour %q: %v", hex, err)
	}
	channel := func(shift uint) float64 {
		c := float64(n>>shift&0xff) / 255
		if c <= 0.04045 {
			return c / 12.92
		}
		return math.Pow((c+0.055)/1.055, 2.4)
	}
	return 0.2126*channel(16) + 0.7152*channel(8) + 0.0722*channel(0)
}
