package stocktest

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"testing"
	"time"

	"sluice/internal/stock"
)

//go:embed testdata/*.txt
var scripts embed.FS

// A script is lines of "command → answer"; '#' starts a comment. Times are
// durations since the script's zero. Commands:
//
//	open ACTIVITY window=0s..1h hold=60s [per_user=N] SKU:UNITS:PER_USER:PER_ORDER…
//	at DURATION                               set the time
//	reserve KEY USER SKU QTY [SKU QTY]… [claim=C] [late=P] → held | replay STATE | REFUSAL
//	settle KEY USER confirmed|released|expired|returned    → the standing outcome [conflict]
//	adjust ID SKU ±N                          → ok | REFUSAL
//	limit ID SKU PER_USER PER_ORDER           → ok
//	per_user ID N                             → ok
//	window ID OPENS..CLOSES                   → ok
//	phase ID live|paused|draining|closed      → ok
//	count SKU                                 → free/held/confirmed/allocated LEVEL
type script struct {
	ledger   stock.Ledger
	activity stock.ActivityID
	now      stock.Millis
}

const zero = stock.Millis(1_800_000_000_000)

// Scripts runs every scenario script on a ledger.
func Scripts(t *testing.T, open func(t *testing.T) stock.Ledger) {
	names, err := fs.Glob(scripts, "testdata/*.txt")
	if err != nil || len(names) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, name := range names {
		t.Run(strings.TrimPrefix(name, "testdata/"), func(t *testing.T) {
			text, err := scripts.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			s := &script{ledger: open(t), now: zero}
			for i, line := range strings.Split(string(text), "\n") {
				line, _, _ = strings.Cut(line, "#")
				if line = strings.TrimSpace(line); line == "" {
					continue
				}
				command, want, _ := strings.Cut(line, "→")
				got, err := s.run(t.Context(), strings.Fields(command))
				if err != nil {
					t.Fatalf("%s:%d: %s: %v", name, i+1, line, err)
				}
				if want = strings.TrimSpace(want); got != want {
					t.Errorf("%s:%d: %s\n\tgot %s", name, i+1, line, got)
				}
			}
		})
	}
}

func (s *script) run(ctx context.Context, f []string) (string, error) {
	if len(f) < 2 {
		return "", errors.New("too few words")
	}
	switch f[0] {
	case "open":
		return s.open(ctx, f[1:])
	case "at":
		d, err := time.ParseDuration(f[1])
		s.now = zero + stock.Millis(d.Milliseconds())
		return "", err
	case "reserve":
		return s.reserve(ctx, f[1:])
	case "settle":
		return s.settle(ctx, f[1:])
	case "count":
		return s.count(ctx, stock.SKU(f[1]))
	}
	return s.adjust(ctx, f)
}

func (s *script) open(ctx context.Context, f []string) (string, error) {
	s.activity = stock.ActivityID(f[0])
	a := stock.Allocation{ID: "open-" + f[0], Activity: s.activity, Epoch: 1, At: s.now}
	for _, w := range f[1:] {
		name, value, _ := strings.Cut(w, "=")
		var err error
		switch name {
		case "window":
			a.OpensAt, a.ClosesAt, err = window(value)
		case "hold":
			var d time.Duration
			d, err = time.ParseDuration(value)
			a.Hold = stock.Millis(d.Milliseconds())
		case "per_user":
			a.PerUser, err = strconv.Atoi(value)
		default:
			it := stock.Item{}
			p := strings.Split(w, ":")
			if len(p) != 4 {
				return "", fmt.Errorf("item %q", w)
			}
			it.SKU = stock.SKU(p[0])
			for i, n := range []*int{&it.Units, &it.PerUser, &it.PerOrder} {
				if *n, err = strconv.Atoi(p[i+1]); err != nil {
					return "", err
				}
			}
			a.Items = append(a.Items, it)
		}
		if err != nil {
			return "", err
		}
	}
	return answer(s.ledger.Open(ctx, a)), nil
}

func window(v string) (opens, closes stock.Millis, err error) {
	from, to, _ := strings.Cut(v, "..")
	a, err := time.ParseDuration(from)
	if err != nil {
		return 0, 0, err
	}
	b, err := time.ParseDuration(to)
	return zero + stock.Millis(a.Milliseconds()), zero + stock.Millis(b.Milliseconds()), err
}

func (s *script) reserve(ctx context.Context, f []string) (string, error) {
	r := stock.Request{Activity: s.activity, Key: f[0], User: stock.UserID(f[1]), Order: stock.OrderID("order-" + f[0] + "-" + f[1]), At: s.now}
	f = f[2:]
	for i := 0; i < len(f); i++ {
		if c, ok := strings.CutPrefix(f[i], "claim="); ok {
			r.Claims = append(r.Claims, c)
			continue
		}
		if p, ok := strings.CutPrefix(f[i], "late="); ok {
			r.Late = p
			continue
		}
		if i+1 == len(f) {
			return "", fmt.Errorf("%s without a quantity", f[i])
		}
		n, err := strconv.Atoi(f[i+1])
		if err != nil {
			return "", err
		}
		r.Lines = append(r.Lines, stock.Line{SKU: stock.SKU(f[i]), Quantity: n})
		i++
	}
	r.Fingerprint = FingerprintOf(r.Lines)
	receipt, err := s.ledger.Reserve(ctx, r)
	switch {
	case err != nil:
		return answer(err), nil
	case receipt.Replayed:
		return "replay " + receipt.State.String(), nil
	}
	return receipt.State.String(), nil
}

// FingerprintOf is a stand-in for the fingerprint that sale computes.
func FingerprintOf(lines []stock.Line) (f stock.Fingerprint) {
	copy(f[:], fmt.Sprint(lines))
	return f
}

func (s *script) settle(ctx context.Context, f []string) (string, error) {
	receipt, err := s.ledger.Lookup(ctx, stock.Ref{Activity: s.activity, User: stock.UserID(f[1]), Key: f[0]})
	if err != nil {
		return answer(err), nil
	}
	outcomes := map[string]stock.Outcome{"confirmed": stock.Confirmed, "released": stock.Released, "expired": stock.Expired, "returned": stock.Returned}
	got, err := s.ledger.Settle(ctx, stock.Settlement{ID: receipt.ID, User: receipt.User, Outcome: outcomes[f[2]], At: s.now})
	switch {
	case errors.Is(err, stock.ErrOutcome):
		return got.String() + " conflict", nil
	case err != nil:
		return answer(err), nil
	}
	return got.String(), nil
}

func (s *script) adjust(ctx context.Context, f []string) (string, error) {
	a := stock.Adjustment{ID: f[1], Activity: s.activity, At: s.now}
	var err error
	switch f[0] {
	case "adjust":
		a.SKU = stock.SKU(f[2])
		a.Delta, err = strconv.Atoi(f[3])
	case "limit":
		a.SKU, a.Limits = stock.SKU(f[2]), &stock.ItemLimits{}
		if a.Limits.PerUser, err = strconv.Atoi(f[3]); err == nil {
			a.Limits.PerOrder, err = strconv.Atoi(f[4])
		}
	case "per_user":
		a.PerUser = new(int)
		*a.PerUser, err = strconv.Atoi(f[2])
	case "window":
		a.OpensAt, a.ClosesAt, err = window(f[2])
	case "phase":
		a.Phase = map[string]stock.Phase{"live": stock.Live, "paused": stock.Paused, "draining": stock.Draining, "closed": stock.Closed}[f[2]]
	default:
		err = fmt.Errorf("no command %q", f[0])
	}
	if err != nil {
		return "", err
	}
	return answer(s.ledger.Adjust(ctx, a)), nil
}

func (s *script) count(ctx context.Context, sku stock.SKU) (string, error) {
	c, err := s.ledger.Counts(ctx, s.activity)
	if err != nil {
		return "", err
	}
	for _, it := range c.Items {
		if it.SKU == sku {
			return fmt.Sprintf("%d/%d/%d/%d %s", it.Free, it.Held, it.Confirmed, it.Allocated, it.Level), nil
		}
	}
	return "", fmt.Errorf("no %s", sku)
}

// answer names a refusal by its code word and detail.
func answer(err error) string {
	words := []struct {
		err  error
		word string
	}{
		{nil, "ok"},
		{stock.ErrNoSuchActivity, "no_such_activity"}, {stock.ErrNoSuchSKU, "no_such_sku"},
		{stock.ErrNoSuchReservation, "no_such_reservation"}, {stock.ErrInvalid, "invalid"},
		{stock.ErrNotOpen, "not_open"}, {stock.ErrPaused, "paused"}, {stock.ErrEnded, "ended"},
		{stock.ErrSoldOut, "sold_out"}, {stock.ErrAllHeld, "all_held"}, {stock.ErrMismatch, "mismatch"},
		{stock.ErrClaimUsed, "claim_used"}, {stock.ErrConflict, "conflict"},
	}
	var r *stock.Refusal
	if errors.As(err, &r) {
		switch r.Err {
		case stock.ErrLimit:
			return fmt.Sprintf("limit %s %d", r.Scope, r.Limit)
		case stock.ErrInsufficient:
			return fmt.Sprintf("insufficient %d", r.Available)
		}
	}
	for _, w := range words {
		if errors.Is(err, w.err) {
			return w.word
		}
	}
	return err.Error()
}
