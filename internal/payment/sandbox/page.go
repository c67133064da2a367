package sandbox

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"strconv"
	"strings"
	"time"

	"sluice/internal/payment"
	"sluice/internal/pricing"
)

//go:embed page.html
var pageHTML string

//go:embed page.css
var pageCSS string

var pageTemplate = template.Must(template.New("page").Parse(pageHTML))

// pagePolicy allows the one style sheet in the page and nothing else. It does
// not restrict form-action, because browsers apply that to the redirect that
// follows the form too, and the shop is elsewhere.
var pagePolicy = func() string {
	sum := sha256.Sum256([]byte(pageCSS))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; base-uri 'none'; frame-ancestors 'none'"
}()

// page is what the template shows.
type page struct {
	T           *words
	CSS         template.CSS
	Description string
	Amount      string
	Currency    string
	PaymentID   string
	ReturnURL   string
	Seconds     int
	State       string // open, waiting, paid, failed
	StateText   string
	Captures    []string
	Refused     bool
	OtherLang   string
	OtherName   string
}

// handlePage shows a payment, or its status to a machine client.
func (s *Server) handlePage(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	rec, ok := s.payments[s.tokens[r.PathValue("token")]]
	s.mu.Unlock()
	switch {
	case !ok:
		s.refuse(w, errNoPayment)
	case wantsJSON(r):
		answer(w, http.StatusOK, rec.status())
	default:
		s.show(w, r, rec, http.StatusOK)
	}
}

// handleAction presses a button. A browser goes back to the shop; a machine
// client gets the status.
func (s *Server) handleAction(w http.ResponseWriter, r *http.Request) {
	rec, err := s.submitted(r)
	switch {
	case errors.Is(err, errDecided) && !wantsJSON(r):
		s.show(w, r, rec, http.StatusConflict)
	case err != nil:
		s.refuse(w, err)
	case wantsJSON(r):
		answer(w, http.StatusOK, rec.status())
	case rec.ReturnURL == "":
		http.Redirect(w, r, r.URL.RequestURI(), http.StatusSeeOther) // the page itself says how it went
	default:
		http.Redirect(w, r, rec.ReturnURL, http.StatusSeeOther)
	}
}

// submitted reads the form and presses its button.
func (s *Server) submitted(r *http.Request) (*record, error) {
	if err := r.ParseForm(); err != nil {
		return nil, fmt.Errorf("%w: form: %w", errInvalid, err)
	}
	delay := s.options.LateDelay
	if raw := r.PostForm.Get("seconds"); raw != "" {
		seconds, err := strconv.Atoi(raw)
		if err != nil || seconds < 0 || seconds > int(maxLate/time.Second) {
			return nil, fmt.Errorf("%w: seconds must be 0..%d", errInvalid, int(maxLate/time.Second))
		}
		delay = time.Duration(seconds) * time.Second
	}
	return s.press(r.PathValue("token"), Action(r.PostForm.Get("action")), delay)
}

func wantsJSON(r *http.Request) bool {
	accept := r.Header.Get("Accept")
	return strings.Contains(accept, "application/json") && !strings.Contains(accept, "text/html")
}

func (s *Server) show(w http.ResponseWriter, r *http.Request, rec *record, status int) {
	t := wordsFor(r)
	p := page{
		T: t, CSS: template.CSS(pageCSS), Description: rec.Description, PaymentID: rec.ID, ReturnURL: rec.ReturnURL,
		Amount: formatAmount(rec.Amount), Currency: rec.Amount.Currency,
		Seconds: int(s.options.LateDelay / time.Second), Refused: status == http.StatusConflict,
		OtherLang: t.other, OtherName: t.otherName,
	}
	switch st := rec.status(); {
	case st.State == payment.Paid:
		p.State, p.StateText = "paid", t.Paid
		for _, c := range st.Captures {
			p.Captures = append(p.Captures, formatAmount(c.Amount)+" "+c.Amount.Currency+" · "+c.ID)
		}
	case st.State == payment.Failed:
		p.State, p.StateText = "failed", t.Failed
	case rec.LateAt != 0:
		p.State = "waiting"
		p.StateText = fmt.Sprintf(t.Waiting, time.UnixMilli(rec.LateAt).UTC().Format("15:04:05 UTC"))
	default:
		p.State = "open"
	}
	var out bytes.Buffer
	if err := pageTemplate.Execute(&out, p); err != nil {
		s.refuse(w, err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Language", t.Lang)
	h.Set("Content-Security-Policy", pagePolicy)
	h.Set("Referrer-Policy", "no-referrer") // the address lets its holder pay
	h.Set("Vary", "Accept, Accept-Language")
	w.WriteHeader(status)
	_, _ = w.Write(out.Bytes())
}

// minorDigits are the currencies whose minor unit is not a hundredth (ISO 4217).
var minorDigits = map[string]int{
	"BIF": 0, "CLP": 0, "DJF": 0, "GNF": 0, "ISK": 0, "JPY": 0, "KMF": 0, "KRW": 0, "PYG": 0, "RWF": 0, "UGX": 0,
	"VND": 0, "VUV": 0, "XAF": 0, "XOF": 0, "XPF": 0,
	"BHD": 3, "IQD": 3, "JOD": 3, "KWD": 3, "LYD": 3, "OMR": 3, "TND": 3,
}

// formatAmount writes minor units as a decimal with thousands separators.
func formatAmount(m pricing.Money) string {
	digits, ok := minorDigits[m.Currency]
	if !ok {
		digits = 2
	}
	raw := fmt.Sprintf("%0*d", digits+1, m.Amount)
	whole, fraction := raw[:len(raw)-digits], raw[len(raw)-digits:]
	var b strings.Builder
	for i, c := range whole {
		if i > 0 && (len(whole)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(c)
	}
	if digits > 0 {
		b.WriteByte('.')
	}
	return b.String() + fraction
}

// words are the texts of the page in one language.
type words struct {
	Lang, other, otherName                                           string
	Title, Sandbox, Note, Due, For, Payment, Back, Decided           string
	Pay, Fail, PayLate, Seconds, Never, Duplicate, Wrong             string
	PayHint, FailHint, LateHint, NeverHint, DuplicateHint, WrongHint string
	Mishaps, Paid, Failed, Waiting, Captured                         string
}

var english = words{
	Lang: "en", other: "zh", otherName: "中文",
	Title: "Sandbox payment", Sandbox: "Sandbox", Note: "No real money moves here.",
	Due: "Amount due", For: "For", Payment: "Payment", Back: "Back to the shop",
	Decided: "This payment was already decided. Nothing was changed.",
	Pay:     "Pay", PayHint: "The money arrives and the shop is told.",
	Mishaps: "Try what can go wrong",
	Fail:    "Fail", FailHint: "No money; the shop is told.",
	PayLate: "Pay late", Seconds: "seconds from now", LateHint: "The money arrives after the order may have expired.",
	Never: "Never call back", NeverHint: "The money arrives; the shop has to ask.",
	Duplicate: "Pay twice", DuplicateHint: "Two captures, each reported twice.",
	Wrong: "Wrong amount", WrongHint: "Another amount arrives than was asked for.",
	Paid: "Paid", Failed: "Failed. No money was taken.", Waiting: "Paying at %s", Captured: "Captured",
}

var chinese = words{
	Lang: "zh", other: "en", otherName: "English",
	Title: "沙箱支付", Sandbox: "沙箱", Note: "此处不会产生真实扣款。",
	Due: "应付金额", For: "商品", Payment: "支付单号", Back: "返回商店",
	Decided: "该支付已有结果，本次操作未做任何更改。",
	Pay:     "立即支付", PayHint: "款项到账，并通知商店。",
	Mishaps: "模拟异常情况",
	Fail:    "支付失败", FailHint: "不扣款，并通知商店。",
	PayLate: "延迟支付", Seconds: "秒后到账", LateHint: "订单可能已超时，款项才到账。",
	Never: "不发回调", NeverHint: "款项到账，商店需主动查询。",
	Duplicate: "重复支付", DuplicateHint: "扣款两次，每笔通知两遍。",
	Wrong: "金额不符", WrongHint: "到账金额与应付金额不同。",
	Paid: "支付成功", Failed: "支付失败，未扣款。", Waiting: "将于 %s 到账", Captured: "已到账",
}

// wordsFor picks the language: ?lang= first, else whichever of the two
// Accept-Language names first, else English.
func wordsFor(r *http.Request) *words {
	wish := r.URL.Query().Get("lang")
	if wish == "" {
		wish = r.Header.Get("Accept-Language")
	}
	for tag := range strings.SplitSeq(strings.ToLower(wish), ",") {
		switch tag = strings.TrimSpace(tag); {
		case strings.HasPrefix(tag, "zh"):
			return &chinese
		case strings.HasPrefix(tag, "en"):
			return &english
		}
	}
	return &english
}
