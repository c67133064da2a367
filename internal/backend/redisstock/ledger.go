package redisstock

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/rueidis"

	"sluice/internal/stock"
)

// Open implements stock.Ledger. It opens nothing: the buckets' keepers do. It
// answers nil once every bucket accepts with its share of this allocation.
func (l *Ledger) Open(ctx context.Context, a stock.Allocation) error {
	if err := a.Validate(); err != nil {
		return err
	}
	act, err := l.meet(ctx, a.Activity)
	if errors.Is(err, stock.ErrNoSuchActivity) {
		return fmt.Errorf("%w: %s has not been opened by its keeper", stock.ErrNotReady, a.Activity)
	}
	if err != nil {
		return err
	}
	if n := max(a.Buckets, 1); int(n) != len(act.buckets) {
		return fmt.Errorf("%w: %s has %d buckets, not %d", stock.ErrConflict, a.Activity, len(act.buckets), n)
	}
	states, err := l.states(ctx, act)
	if err != nil {
		return err
	}
	for i, s := range states {
		if want := openedText(a.Share(uint16(i)).Digest()); s.opened != want {
			return fmt.Errorf("%w: bucket %d of %s was opened by another allocation", stock.ErrConflict, i, a.Activity)
		}
	}
	return nil
}

func openedText(digest uint64) string { return strconv.FormatUint(digest, 16) }

// Reserve implements stock.Ledger. A new reservation is Pending, or Held if the
// ledger answers held. The strings of r need to live only as long as the call.
func (l *Ledger) Reserve(ctx context.Context, r stock.Request) (stock.Receipt, error) {
	act, err := l.meet(ctx, r.Activity)
	if err != nil {
		return stock.Receipt{}, err
	}
	if err := r.Check(); err != nil {
		return l.misshapen(ctx, &r, err)
	}
	// A call that is given up may still be written to a connection.
	r.User, r.Key = stock.UserID(strings.Clone(string(r.User))), strings.Clone(r.Key)
	b := act.of(r.User)
	got, err := l.reserve(ctx, b, &r)
	var short *shortage
	if errors.As(err, &short) {
		got, err = l.pullAndReserve(ctx, act, b, &r, short)
	}
	if err != nil || !l.config.Held || got.State != stock.Pending {
		return got.Receipt, err
	}
	if err := l.awaitLanded(ctx, b, got.epoch, got.sequence); err != nil {
		return stock.Receipt{}, err
	}
	got.State = stock.Held
	return got.Receipt, nil
}

// found is a receipt with the place of its entry.
type found struct {
	stock.Receipt
	epoch    *epoch
	sequence uint64
}

// misshapen answers a request out of shape: the receipt all the same, if its
// key is known.
func (l *Ledger) misshapen(ctx context.Context, r *stock.Request, why error) (stock.Receipt, error) {
	if len(r.User) < 1 || len(r.User) > stock.MaxID || len(r.Key) < 1 || len(r.Key) > stock.MaxKey+8 {
		return stock.Receipt{}, why
	}
	receipt, err := l.Lookup(ctx, stock.Ref{Activity: r.Activity, User: r.User, Key: r.Key})
	switch {
	case errors.Is(err, stock.ErrNoSuchReservation):
		return stock.Receipt{}, why
	case err == nil && receipt.Fingerprint != r.Fingerprint:
		return stock.Receipt{}, stock.ErrMismatch
	}
	return receipt, err
}

// shortage is a bucket's own answer to who asks for more of a SKU than it has.
type shortage struct {
	sku        stock.SKU
	free, held int
}

func (s *shortage) Error() string { return fmt.Sprintf("%d of %s free in the bucket", s.free, s.sku) }

// refusal is the answer when the bucket is all there is.
func (s *shortage) refusal() error {
	switch {
	case s.free > 0:
		return &stock.Refusal{Err: stock.ErrInsufficient, SKU: s.sku, Available: s.free}
	case s.held > 0:
		return &stock.Refusal{Err: stock.ErrAllHeld, SKU: s.sku}
	}
	return &stock.Refusal{Err: stock.ErrSoldOut, SKU: s.sku}
}

// reserve asks the user's bucket; a *shortage says that others may have more.
func (l *Ledger) reserve(ctx context.Context, b *bucket, r *stock.Request) (found, error) {
	e, err := l.accepts(ctx, b)
	if err != nil {
		return found{}, err
	}
	var terms digest
	text := ""
	if len(r.Terms) > 0 {
		if terms = digestOf(r.Terms); !e.has.has(terms) {
			text = string(r.Terms)
		}
	}
	args := append(make([]string, 0, 9+len(r.Claims)), string(r.User), r.Key, packLines(r.Lines), packRest(r.Fingerprint, terms, r.Order, r.Late, r.Claims), e.seenText())
	keys, at := b.reserves[:3], l.timeOf(r.At)
	if text != "" || at != "" || r.Late != "" || len(r.Claims) > 0 {
		late := ""
		if r.Late != "" {
			late = "1"
		}
		keys, args = b.reserves, append(args, late, at, string(terms[:]), text)
		for _, c := range r.Claims {
			args = append(args, strings.Clone(c))
		}
	}
	tag, reply, accepted, err := l.run(ctx, b, e, reserve, keys, args)
	switch {
	case err != nil:
		return found{}, err
	case tag == "KNOWN":
		got, err := l.pick(ctx, b, e, r.User, reply, func(rec *record) bool { return rec.key == r.Key })
		if err == nil && got.Fingerprint != r.Fingerprint {
			return found{}, stock.ErrMismatch
		}
		return got, err
	case tag != "":
		return found{}, refusal(r, tag, reply)
	}
	u := unpacker{p: accepted}
	rec := u.record()
	made, _, err := rec.reservation(b.place, r.User)
	if err != nil || u.failed {
		return found{}, fmt.Errorf("%w: the record in the answer does not decode", stock.ErrUnknown)
	}
	if text != "" {
		e.has.put(terms)
	}
	e.note(rec.sequence)
	made.State, made.Terms = stock.Pending, r.Terms
	return found{stock.Receipt{Reservation: made}, e, rec.sequence}, nil
}

// refusal words what reserve.lua answers.
func refusal(r *stock.Request, tag string, reply []rueidis.RedisMessage) error {
	number := func(i int) int {
		if i >= len(reply) {
			return 0
		}
		n, _ := reply[i].ToInt64()
		return int(n)
	}
	sku := func(i int) stock.SKU {
		if n := number(i); n > 0 && n <= len(r.Lines) {
			return stock.SKU(strings.Clone(string(r.Lines[n-1].SKU)))
		}
		return ""
	}
	switch tag {
	case "SKU":
		return &stock.Refusal{Err: stock.ErrNoSuchSKU, SKU: sku(0)}
	case "CLAIM":
		return stock.ErrClaimUsed
	case "ENDED":
		return stock.ErrEnded
	case "PAUSED":
		return stock.ErrPaused
	case "NOTOPEN":
		return &stock.Refusal{Err: stock.ErrNotOpen, OpensAt: stock.Millis(number(0))}
	case "LIMIT":
		scope, _ := reply[0].ToString()
		return &stock.Refusal{Err: stock.ErrLimit, Scope: scope, SKU: sku(1), Limit: number(2)}
	case "SHORT":
		return &shortage{sku: sku(0), free: number(1), held: number(2)}
	}
	return fmt.Errorf("%w: redis answered %q", stock.ErrUnknown, tag)
}

// timeOf is the time that a script is told: none, unless time is the caller's.
func (l *Ledger) timeOf(at stock.Millis) string {
	if !l.o.CallerTime {
		return ""
	}
	return strconv.FormatInt(int64(at), 10)
}

// Settle implements stock.Ledger. The settlement must say whose reservation it
// is. It does not wait for landing: a settlement that an engine loses is asked
// for again by the order that caused it.
func (l *Ledger) Settle(ctx context.Context, s stock.Settlement) (stock.Outcome, error) {
	if s.Outcome != stock.Confirmed && s.Outcome != stock.Released && s.Outcome != stock.Expired && s.Outcome != stock.Returned {
		return 0, fmt.Errorf("%w: outcome %s", stock.ErrInvalid, s.Outcome)
	}
	if s.User == "" {
		return 0, fmt.Errorf("%w: a settlement without its user", stock.ErrInvalid)
	}
	b, err := l.bucketOf(ctx, s.ID, s.User)
	if err != nil {
		return 0, err
	}
	e, err := l.accepts(ctx, b)
	if err != nil {
		return 0, err
	}
	tag, reply, _, err := l.run(ctx, b, e, settle, []string{b.m, b.u, b.s}, []string{strings.Clone(string(s.User)),
		strconv.FormatUint(uint64(s.ID.Epoch), 10), strconv.FormatUint(s.ID.Number, 10), strconv.Itoa(int(s.Outcome)), l.timeOf(s.At), e.seenText()})
	if err != nil {
		return 0, err
	}
	if tag == "NONE" || len(reply) != 1 {
		return 0, stock.ErrNoSuchReservation
	}
	n, err := reply[0].ToInt64()
	if err != nil {
		return 0, fmt.Errorf("%w: %w", stock.ErrUnknown, err)
	}
	switch tag {
	case "DONE":
		e.note(uint64(n))
		return s.Outcome, nil
	case "SAME":
		return stock.State(n), nil
	default:
		return stock.State(n), fmt.Errorf("%w: %s is %s, asked for %s", stock.ErrOutcome, s.ID, stock.State(n), s.Outcome)
	}
}

// bucketOf is the bucket of a reservation, if it can be the user's.
func (l *Ledger) bucketOf(ctx context.Context, id stock.ID, user stock.UserID) (*bucket, error) {
	act, err := l.meet(ctx, id.Activity)
	if errors.Is(err, stock.ErrNoSuchActivity) {
		return nil, stock.ErrNoSuchReservation
	}
	if err != nil {
		return nil, err
	}
	if b := act.of(user); b.place.Bucket == id.Bucket {
		return b, nil
	}
	return nil, stock.ErrNoSuchReservation
}
