package sim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"sluice/internal/order"
	"sluice/internal/payment"
	"sluice/internal/pricing"
	"sluice/internal/stock"
)

// provider is a payment provider that forgets nothing and misbehaves: its
// calls fail before or after their effect, its callbacks come never, twice,
// late, in another order, or from somebody else. Its own books are the truth
// about money.
type provider struct {
	w        *world
	payments map[string]*paid
	ids      []string // of the payments, in order
	captures []*captured
	queue    []report // callbacks under way
	later    []visit  // shoppers who pay later
}

// paid is one payment at the provider.
type paid struct {
	id     string
	amount pricing.Money
	state  payment.State
	closed bool // no shopper can pay any more
}

// captured is money that arrived.
type captured struct {
	id, payment string
	amount      pricing.Money
	refund      string // id of the refund that took it back
	pending     bool   // the refund is not through yet
}

// report is one callback.
type report struct {
	body []byte
	due  time.Duration // not before
	left int           // attempts
}

// visit is a shopper at a pay page.
type visit struct {
	payment, what string
	due           time.Duration
}

func newProvider(w *world) *provider { return &provider{w: w, payments: map[string]*paid{}} }

// Name implements payment.Provider.
func (p *provider) Name() string { return "sim" }

// trouble is what every call may meet instead of an answer.
func (p *provider) trouble(ctx context.Context, kind string) error {
	w := p.w
	switch {
	case w.faults.dark:
		return payment.ErrProvider
	case w.quiet || !w.chance(1, 6):
		return nil
	case w.chance(1, 4):
		w.fire("provider hangs")
		<-ctx.Done()
		return fmt.Errorf("%w: %w", payment.ErrProvider, ctx.Err())
	}
	w.fire(kind)
	return fmt.Errorf("%w: connection reset", payment.ErrProvider)
}

// Start implements payment.Provider.
func (p *provider) Start(ctx context.Context, r payment.StartRequest) (string, error) {
	w := p.w
	if w.faults.dark {
		return "", payment.ErrProvider
	}
	known := p.payments[r.ID]
	if known == nil && !w.quiet && w.chance(1, 15) {
		w.fire("start refused")
		return "", fmt.Errorf("%w: this card never", payment.ErrRefused)
	}
	before := w.chance(1, 2)
	if before {
		if err := p.trouble(ctx, "start fails"); err != nil {
			return "", err
		}
	}
	switch {
	case known == nil:
		p.payments[r.ID] = &paid{id: r.ID, amount: r.Amount, state: payment.Open}
		p.ids = append(p.ids, r.ID)
	case known.amount != r.Amount:
		w.violate("payment %s was started with %v and then with %v", r.ID, known.amount, r.Amount)
	}
	if !before {
		if err := p.trouble(ctx, "start fails"); err != nil {
			return "", err
		}
	}
	return "pay://" + r.ID, nil
}

// Query implements payment.Provider.
func (p *provider) Query(ctx context.Context, id string) (payment.Status, error) {
	if err := p.trouble(ctx, "query fails"); err != nil {
		return payment.Status{}, err
	}
	if p.payments[id] == nil {
		return payment.Status{}, payment.ErrNoSuchPayment
	}
	return p.status(id), nil
}

func (p *provider) status(id string) payment.Status {
	st := payment.Status{PaymentID: id, State: p.payments[id].state}
	for _, c := range p.captures {
		if c.payment == id {
			st.Captures = append(st.Captures, payment.Capture{ID: c.id, Amount: c.amount})
		}
	}
	return st
}

// Refund implements payment.Provider.
func (p *provider) Refund(ctx context.Context, r payment.RefundRequest) (payment.RefundState, error) {
	w := p.w
	if w.faults.dark {
		return "", payment.ErrProvider
	}
	at := slices.IndexFunc(p.captures, func(c *captured) bool { return c.id == r.CaptureID })
	if at < 0 || p.captures[at].payment != r.PaymentID || p.captures[at].amount != r.Amount {
		w.violate("refund %s asks for capture %s of payment %s and %v, which is not there", r.ID, r.CaptureID, r.PaymentID, r.Amount)
		return "", payment.ErrRefused
	}
	c := p.captures[at]
	switch {
	case c.refund != "" && c.refund != r.ID:
		w.violate("capture %s was refunded as %s, and is asked for again as %s", c.id, c.refund, r.ID)
		return "", payment.ErrRefused
	case c.refund == "" && !w.quiet && w.chance(1, 12):
		w.fire("refund refused")
		return "", fmt.Errorf("%w: account closed", payment.ErrRefused)
	}
	before := w.chance(1, 2)
	if before {
		if err := p.trouble(ctx, "refund call times out"); err != nil {
			return "", err
		}
	}
	if c.refund == "" {
		c.refund, c.pending = r.ID, !w.quiet && w.chance(1, 4)
		w.tell("  provider refunds %s: %v of %s", r.ID, r.Amount, c.id)
		if c.pending {
			w.fire("refund pending")
			return payment.RefundPending, nil
		}
	}
	if !before {
		if err := p.trouble(ctx, "refund answer lost"); err != nil {
			return "", err
		}
	}
	c.pending = false
	return payment.RefundDone, nil
}

// Parse implements payment.Provider.
func (p *provider) Parse(header func(string) string, body []byte) (payment.Status, error) {
	if header("signature") != "genuine" {
		return payment.Status{}, payment.ErrForged
	}
	var st payment.Status
	if err := json.Unmarshal(body, &st); err != nil {
		return payment.Status{}, payment.ErrMalformed
	}
	return st, nil
}

// visit is what a shopper does at the pay page of a payment.
func (p *provider) visit(id, what string) {
	w, at := p.w, p.payments[id]
	if at == nil || at.closed {
		return
	}
	w.tell("  shopper at the pay page of %s: %s", id, what)
	switch what {
	case "fail":
		if at.state == payment.Open {
			at.state, at.closed = payment.Failed, true
			w.fire("payment fails")
			p.report(id, nil, false)
		}
	case "wrong amount":
		w.fire("wrong amount")
		p.capture(at, pricing.Money{Amount: at.amount.Amount + 1 - 2*int64(w.rng.IntN(2)), Currency: at.amount.Currency})
	case "wrong currency":
		w.fire("wrong currency")
		p.capture(at, pricing.Money{Amount: at.amount.Amount, Currency: "USD"})
	case "twice":
		w.fire("captured twice")
		p.capture(at, at.amount)
		p.capture(at, at.amount)
	default:
		p.capture(at, at.amount)
	}
}

func (p *provider) capture(at *paid, amount pricing.Money) {
	if amount.Amount == 0 || len(p.status(at.id).Captures) >= payment.MaxCaptures {
		return
	}
	already := at.state == payment.Paid
	at.state = payment.Paid
	c := &captured{id: fmt.Sprintf("cap%d", len(p.captures)+1), payment: at.id, amount: amount}
	p.captures = append(p.captures, c)
	p.w.oracle.captured(c)
	p.report(at.id, c, already)
}

// report sends a callback: of one capture, or of all, or none at all. sure is
// for money that arrives after the payment was paid: nobody asks any more then,
// so this provider promises to tell.
func (p *provider) report(id string, c *captured, sure bool) {
	w := p.w
	st := p.status(id)
	if c != nil && w.chance(1, 2) {
		st.Captures = []payment.Capture{{ID: c.id, Amount: c.amount}}
	}
	body, err := json.Marshal(st)
	if err != nil {
		panic(err)
	}
	r := report{body: body, due: w.elapsed(), left: 1 + w.rng.IntN(4)}
	if sure {
		r.left = 1 << 20
	}
	switch w.rng.IntN(8) {
	case 0, 1:
		if !sure {
			w.fire("callback never")
			return
		}
	case 2:
		w.fire("callback twice")
		p.queue = append(p.queue, r)
	case 3, 4:
		w.fire("callback late")
		r.due += time.Duration(1+w.rng.IntN(1800)) * time.Second
	}
	p.queue = append(p.queue, r)
}

func header(signature string) func(string) string {
	return func(name string) string {
		if name == "signature" {
			return signature
		}
		return ""
	}
}

// callback delivers one report that is due, in no particular order.
func (p *provider) callback() {
	var due []int
	for i, r := range p.queue {
		if r.due <= p.w.elapsed() {
			due = append(due, i)
		}
	}
	if len(due) == 0 {
		return
	}
	i := pick(p.w, due)
	if i != due[0] {
		p.w.fire("callback reordered")
	}
	p.send(i)
}

func (p *provider) send(i int) {
	w := p.w
	r := p.queue[i]
	p.queue = slices.Delete(p.queue, i, i+1)
	err := w.e.orders.Callback(context.Background(), "sim", header("genuine"), r.body)
	w.tell("  callback %s: %v", r.body, err)
	if err != nil || w.faults.dark {
		if r.left--; r.left > 0 {
			r.due = w.elapsed() + time.Duration(w.rng.IntN(60))*time.Second
			p.queue = append(p.queue, r)
		}
		return
	}
	var st payment.Status
	_ = json.Unmarshal(r.body, &st)
	w.oracle.acknowledged(st)
}

// forge sends what is not the provider's. It must change nothing.
func (p *provider) forge() {
	w := p.w
	if len(p.ids) == 0 {
		return
	}
	id := pick(w, p.ids)
	body := fmt.Sprintf(`{"payment":%q,"state":"paid","captures":[{"id":"forged","amount":{"amount":%d,"currency":"CNY"}}]}`, id, p.payments[id].amount.Amount)
	signature, want, kind := "stolen", payment.ErrForged, "callback forged"
	if w.chance(1, 2) {
		signature, want, kind = "genuine", payment.ErrMalformed, "callback malformed"
		body = pick(w, []string{"", "{", `{"payment":"` + id + `","state":"paid","captures":[{"id":"","amount":{"amount":1,"currency":"CNY"}}]}`,
			`{"payment":"` + id + `","state":"paid","captures":[{"id":"x1","amount":{"amount":-5,"currency":"CNY"}}]}`})
	}
	w.fire(kind)
	err := w.e.orders.Callback(context.Background(), "sim", header(signature), []byte(body))
	if !errors.Is(err, want) && !w.faults.dark && !errors.Is(err, order.ErrNoSuchOrder) && !errors.Is(err, errStore) {
		w.violate("%s answered %v: %s", kind, err, body)
	}
}

// tick lets shoppers pay who wanted to pay later.
func (p *provider) tick() {
	for i := 0; i < len(p.later); {
		v := p.later[i]
		if v.due > p.w.elapsed() {
			i++
			continue
		}
		p.later = slices.Delete(p.later, i, i+1)
		p.visit(v.payment, v.what)
	}
}

// closeShop ends all that is open: nobody pays any more, and what was reported
// wrongly so far is reported rightly.
func (p *provider) closeShop() {
	p.later = nil
	for _, id := range p.ids {
		at := p.payments[id]
		at.closed = true
		if at.state == payment.Open {
			at.state = payment.Failed
		}
	}
}

// orderOf is the order that a payment was started for.
func orderOf(payment string) stock.OrderID {
	for i := len(payment) - 1; i > 0; i-- {
		if payment[i] == '-' {
			return stock.OrderID(payment[:i])
		}
	}
	return ""
}
