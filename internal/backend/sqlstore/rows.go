package sqlstore

import (
	"bytes"
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"strconv"

	"sluice/internal/order"
	"sluice/internal/pricing"
	"sluice/internal/stock"
)

// Columns of an order row, in three groups: what is written once and always;
// what most orders land without; what landing leaves to its default.
const (
	plainColumns = "id, activity, epoch, bucket, number, user, idem_key, check_at, created_at, expires_at, log, log_epoch, position, fingerprint, terms, products"
	extraColumns = ", claims, state, version, late_of, reason, paid_at, closed_at, replaced_by, captured_minor, refunded_minor, money"
	plainCount   = 16
	extraCount   = 11

	orderColumns = plainColumns + ", claims, state, version, late_of, reason, paid_at, closed_at, replaced_by, money"
)

// rowID reads an order id: a decimal number in 1..2⁶³−1, in its shortest form.
func rowID(id stock.OrderID) (int64, bool) {
	n, err := strconv.ParseInt(string(id), 10, 64)
	return n, err == nil && n > 0 && strconv.FormatInt(n, 10) == string(id)
}

// plain says that every column beyond plainColumns has its default.
func plain(o *order.Order) bool {
	return o.State == order.Created && o.Version == 1 && len(o.Claims) == 0 && o.LateOf == "" &&
		o.Reason == "" && o.PaidAt == 0 && o.ClosedAt == 0 && o.ReplacedBy == "" && noMoney(&o.Money)
}

func noMoney(m *order.Money) bool {
	return len(m.Payments)+len(m.Captures)+len(m.Refunds) == 0 && !m.Reminded && m.Chases == 0 && m.ChaseAt == 0
}

// orderArgs binds a new row: plainColumns, and extraColumns unless plain.
func orderArgs(o *order.Order) (args, error) {
	id, ok := rowID(o.ID)
	if !ok {
		return nil, fmt.Errorf("%w: order id %q is not a decimal in 1..2^63-1", stock.ErrInvalid, o.ID)
	}
	if o.Activity != o.Reservation.Activity {
		return nil, fmt.Errorf("%w: order %s of %q for a reservation of %q", stock.ErrInvalid, o.ID, o.Activity, o.Reservation.Activity)
	}
	terms, err := json.Marshal(&o.Terms)
	if err != nil {
		return nil, err
	}
	lean := plain(o)
	n := plainCount
	if !lean {
		n += extraCount
	}
	a := make(args, 0, n)
	a.int(id)
	a.text(string(o.Activity))
	a.int(int64(o.Reservation.Epoch))
	a.int(int64(o.Reservation.Bucket))
	a.int(int64(o.Reservation.Number))
	a.text(string(o.User))
	a.text(o.Key)
	a.optInt(int64(o.CheckAt))
	a.int(int64(o.CreatedAt))
	a.optInt(int64(o.ExpiresAt))
	a.text(string(o.Position.Log))
	a.int(int64(o.Position.Epoch))
	a.int(int64(o.Position.Position))
	a.blob(o.Fingerprint[:])
	a.blob(terms)
	a.optBlob(o.Products)
	if lean {
		return a, nil
	}
	err = appendExtra(&a, o)
	return a, err
}

func appendExtra(a *args, o *order.Order) error {
	var claims []byte
	if len(o.Claims) > 0 {
		var err error
		if claims, err = json.Marshal(o.Claims); err != nil {
			return err
		}
	}
	a.optBlob(claims)
	a.text(string(o.State))
	a.int(int64(o.Version))
	a.optText(o.LateOf)
	return appendMutable(a, o)
}

// mutableColumns are what an update may change besides state, version, expiry
// and the next check; appendMutable binds them.
const mutableColumns = "reason = ?, paid_at = ?, closed_at = ?, replaced_by = ?, captured_minor = ?, refunded_minor = ?, money = ?"

func appendMutable(a *args, o *order.Order) error {
	a.optText(o.Reason)
	a.optInt(int64(o.PaidAt))
	a.optInt(int64(o.ClosedAt))
	a.optText(string(o.ReplacedBy))
	captured, refunded := sums(o)
	a.optInt(captured)
	a.optInt(refunded)
	if noMoney(&o.Money) {
		a.add(nil)
		return nil
	}
	money, err := json.Marshal(&o.Money)
	a.blob(money)
	return err
}

// sums are the minor units captured and given back, in the currency of the
// terms: money in another one cannot be added to it, and is found in the JSON.
func sums(o *order.Order) (captured, refunded int64) {
	for _, c := range o.Money.Captures {
		if c.Amount.Currency == o.Terms.Currency {
			captured += c.Amount.Amount
		}
	}
	for _, r := range o.Money.Refunds {
		if r.State == order.RefundDone && r.Amount.Currency == o.Terms.Currency {
			refunded += r.Amount.Amount
		}
	}
	return captured, refunded
}

// scanOrder reads a row of orderColumns.
func scanOrder(r []driver.Value, terms *termsCache) (order.Order, error) {
	activity := stock.ActivityID(text(r[1]))
	o := order.Order{
		ID:       stock.OrderID(strconv.FormatInt(integer(r[0]), 10)),
		Activity: activity,
		Reservation: stock.ID{
			Activity: activity, Epoch: uint32(integer(r[2])),
			Bucket: uint16(integer(r[3])), Number: uint64(integer(r[4])),
		},
		User:      stock.UserID(text(r[5])),
		Key:       text(r[6]),
		CheckAt:   stock.Millis(integer(r[7])),
		CreatedAt: stock.Millis(integer(r[8])),
		ExpiresAt: stock.Millis(integer(r[9])),
		Position: stock.Cursor{
			Log: stock.LogID(text(r[10])), Epoch: uint32(integer(r[11])), Position: uint64(integer(r[12])),
		},
		Products:   blob(r[15]),
		State:      order.State(text(r[17])),
		Version:    int(integer(r[18])),
		LateOf:     text(r[19]),
		Reason:     text(r[20]),
		PaidAt:     stock.Millis(integer(r[21])),
		ClosedAt:   stock.Millis(integer(r[22])),
		ReplacedBy: stock.OrderID(text(r[23])),
	}
	copy(o.Fingerprint[:], blob(r[13]))
	var err error
	if o.Terms, err = terms.decode(blob(r[14])); err != nil {
		return o, fmt.Errorf("order %s: terms: %w", o.ID, err)
	}
	if b := blob(r[16]); b != nil {
		if err := json.Unmarshal(b, &o.Claims); err != nil {
			return o, fmt.Errorf("order %s: claims: %w", o.ID, err)
		}
	}
	if b := blob(r[24]); b != nil {
		if err := json.Unmarshal(b, &o.Money); err != nil {
			return o, fmt.Errorf("order %s: money: %w", o.ID, err)
		}
	}
	return o, nil
}

// termsCache remembers the last terms decoded: in a sale most orders have the
// same, and decoding JSON costs more than reading the row. Orders decoded with
// one share their terms; a nil cache decodes each on its own.
type termsCache struct {
	raw  []byte
	last pricing.Terms
}

func (t *termsCache) decode(raw []byte) (terms pricing.Terms, err error) {
	if t != nil && t.raw != nil && bytes.Equal(t.raw, raw) {
		return t.last, nil
	}
	if err := json.Unmarshal(raw, &terms); err != nil {
		return terms, err
	}
	if t != nil {
		t.raw, t.last = raw, terms
	}
	return terms, nil
}
