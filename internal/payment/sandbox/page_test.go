package sandbox

import (
	"crypto/sha256"
	"encoding/base64"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"sluice/internal/pricing"
)

func (b *bench) browse(method, target, language, form string) *http.Response {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), method, target, strings.NewReader(form))
	if err != nil {
		b.t.Fatal(err)
	}
	req.Header.Set("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")
	req.Header.Set("Accept-Language", language)
	if form != "" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := b.front.Client().Transport.RoundTrip(req) // as a browser's first hop: redirects stay visible
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func read(t *testing.T, resp *http.Response) string {
	t.Helper()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func TestPageLanguages(t *testing.T) {
	b := newBench(t)
	payURL := b.start("91-1")
	f := func(query, language, want string) {
		t.Helper()
		resp := b.browse(http.MethodGet, payURL+query, language, "")
		if body := read(t, resp); resp.StatusCode != 200 || !strings.Contains(body, `<html lang="`+want+`">`) {
			t.Errorf("%q %q: %d, want %s", query, language, resp.StatusCode, want)
		}
	}
	f("", "", "en")
	f("", "zh-CN,zh;q=0.9,en;q=0.8", "zh")
	f("", "en-GB,zh;q=0.5", "en")
	f("", "fr,zh;q=0.5", "zh")
	f("", "fr", "en")
	f("?lang=zh", "en", "zh")
	f("?lang=en", "zh", "en")
}

func TestPage(t *testing.T) {
	b := newBench(t)
	payURL := b.start("92-1")
	resp := b.browse(http.MethodGet, payURL, "en", "")
	body := read(t, resp)
	for _, want := range []string{"1,299.00", "1 × &lt;b&gt;Cup&lt;/b&gt;", "92-1", `value="905"`, `href="https://shop.example/orders/1?a=b"`} {
		if !strings.Contains(body, want) {
			t.Errorf("page lacks %q", want)
		}
	}
	for _, action := range actions {
		if !strings.Contains(body, `name="action" value="`+string(action)+`"`) {
			t.Errorf("page lacks the button %s", action)
		}
	}
	// The policy must allow exactly the style sheet that the page carries.
	style := regexp.MustCompile(`(?s)<style>(.*)</style>`).FindStringSubmatch(body)
	sum := sha256.Sum256([]byte(style[1]))
	if policy := resp.Header.Get("Content-Security-Policy"); !strings.Contains(policy, base64.StdEncoding.EncodeToString(sum[:])) {
		t.Errorf("policy %q does not match the style sheet", policy)
	}
	if resp.Header.Get("Cache-Control") != "no-store" || resp.Header.Get("Referrer-Policy") != "no-referrer" {
		t.Errorf("headers: %v", resp.Header)
	}
	if missing := b.browse(http.MethodGet, payURL+"x", "en", ""); missing.StatusCode != 404 {
		t.Errorf("another token: %d", missing.StatusCode)
	}
}

func TestPageAfterwards(t *testing.T) {
	b := newBench(t)
	payURL := b.start("93-1")
	resp := b.browse(http.MethodPost, payURL+"?lang=zh", "en", "action=pay")
	if resp.StatusCode != 303 || resp.Header.Get("Location") != "https://shop.example/orders/1?a=b" {
		t.Errorf("pay: %d to %q", resp.StatusCode, resp.Header.Get("Location"))
	}
	if again := b.browse(http.MethodPost, payURL, "en", "action=pay"); again.StatusCode != 303 {
		t.Errorf("double click: %d", again.StatusCode)
	}
	other := b.browse(http.MethodPost, payURL, "en", "action=fail")
	if body := read(t, other); other.StatusCode != 409 || !strings.Contains(body, english.Decided) {
		t.Errorf("another button: %d", other.StatusCode)
	}
	f := func(id, form, want string) {
		t.Helper()
		payURL := b.start(id)
		if form != "" {
			b.browse(http.MethodPost, payURL, "en", form)
		}
		body := read(t, b.browse(http.MethodGet, payURL, "en", ""))
		if !strings.Contains(body, want) {
			t.Errorf("after %q the page lacks %q", form, want)
		}
		if form != "" && strings.Contains(body, "<form") {
			t.Errorf("after %q the page still has buttons", form)
		}
	}
	f("93-2", "action=duplicate", `class="state paid"`)
	f("93-3", "action=fail", english.Failed)
	f("93-4", "action=pay_late&seconds=60", "Paying at 12:01:00 UTC")
	f("93-5", "", `class="primary"`)
}

func TestFormatAmount(t *testing.T) {
	f := func(amount int64, currency, want string) {
		t.Helper()
		if got := formatAmount(pricing.Money{Amount: amount, Currency: currency}); got != want {
			t.Errorf("%d %s: %q, want %q", amount, currency, got, want)
		}
	}
	f(1, "CNY", "0.01")
	f(100, "CNY", "1.00")
	f(99_999, "USD", "999.99")
	f(100_000, "USD", "1,000.00")
	f(123_456_789_012, "EUR", "1,234,567,890.12")
	f(1, "JPY", "1")
	f(1_000, "JPY", "1,000")
	f(1_234_567, "KWD", "1,234.567")
	f(5, "KWD", "0.005")
}
