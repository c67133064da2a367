// Package ordertest is the conformance suite of order.Store: every backend
// passes it unchanged. A store must be an outbox.Queue as well, since the
// events that it saves with an order are seen through nothing else.
package ordertest

import (
	"fmt"
	"reflect"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sluice/internal/lib/outbox"
	"sluice/internal/order"
	"sluice/internal/pricing"
	"sluice/internal/stock"
)

// Run checks a store. open answers an empty one, and is called once a test.
func Run(t *testing.T, open func(t *testing.T) order.Store) {
	for name, f := range map[string]func(*testing.T, *fixture){
		"every field":          everyField,
		"plain order":          plainOrder,
		"money alone":          moneyAlone,
		"no such order":        noSuchOrder,
		"land again":           landAgain,
		"land is whole":        landIsWhole,
		"ids are bytes":        idsAreBytes,
		"longest values":       longestValues,
		"one order per key":    oneOrderPerKey,
		"fence":                fence,
		"fence raced":          fenceRaced,
		"watermark":            watermark,
		"logs apart":           logsApart,
		"largest batch":        largestBatch,
		"events in order":      eventsInOrder,
		"update":               update,
		"update refused":       updateRefused,
		"update is whole":      updateIsWhole,
		"no lost update":       noLostUpdate,
		"pay against time-out": payAgainstTimeout,
		"pages":                pages,
		"due":                  due,
		"bounds":               bounds,
		"cancelled context":    cancelledContext,
		"kept":                 kept,
		"rules are whole":      rulesAreWhole,
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			q, ok := s.(outbox.Queue)
			if !ok {
				t.Fatalf("%T is no outbox.Queue: its events cannot be checked", s)
			}
			f(t, &fixture{Store: s, queue: q})
		})
	}
}

const log stock.LogID = "wal"

// fixture is a store with a lander at its watermark.
type fixture struct {
	order.Store
	queue outbox.Queue
	token uint64
	at    stock.Cursor
}

// batch is the next one: these orders, one log position each.
func (f *fixture) batch(t *testing.T, orders ...order.Landed) order.Batch {
	t.Helper()
	if f.token == 0 {
		var err error
		if f.token, err = f.Fence(t.Context(), log); err != nil {
			t.Fatal(err)
		}
	}
	to := stock.Cursor{Log: log, Epoch: max(1, f.at.Epoch), Position: f.at.Position + uint64(len(orders))}
	return order.Batch{Log: log, Token: f.token, From: f.at, To: to, Orders: orders}
}

func (f *fixture) land(t *testing.T, orders ...order.Landed) {
	t.Helper()
	b := f.batch(t, orders...)
	if err := f.Land(t.Context(), b); err != nil {
		t.Fatalf("land: %v", err)
	}
	f.at = b.To
}

func (f *fixture) get(t *testing.T, id stock.OrderID) order.Order {
	t.Helper()
	o, err := f.Get(t.Context(), id)
	if err != nil {
		t.Fatalf("get %s: %v", id, err)
	}
	return o
}

func (f *fixture) list(t *testing.T, q order.Query) []order.Order {
	t.Helper()
	page, err := f.List(t.Context(), q)
	if err != nil {
		t.Fatalf("list %+v: %v", q, err)
	}
	return page
}

func (f *fixture) ids(t *testing.T, q order.Query) []string {
	t.Helper()
	var s []string
	for _, o := range f.list(t, q) {
		s = append(s, string(o.ID))
	}
	return s
}

// events are the waiting messages, as "key topic".
func (f *fixture) events(t *testing.T) []string {
	t.Helper()
	waiting, err := f.queue.Pending(t.Context(), 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	var s []string
	for _, m := range waiting {
		s = append(s, m.Key+" "+m.Topic)
	}
	return s
}

func (f *fixture) watermark(t *testing.T, l stock.LogID) stock.Cursor {
	t.Helper()
	at, err := f.Watermark(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func equal[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

// plain is order n as it lands when nothing special is about it.
func plain(n int) order.Order {
	return order.Order{
		ID:          stock.OrderID(strconv.Itoa(1000 + n)),
		Reservation: stock.ID{Activity: "flash", Epoch: 1, Number: uint64(n + 1)},
		Activity:    "flash",
		User:        stock.UserID(fmt.Sprintf("u%d", n)),
		Key:         fmt.Sprintf("key-%d", n),
		Fingerprint: stock.Fingerprint{byte(n), 7},
		Terms: pricing.Terms{
			Quote: pricing.Quote{Currency: "CNY", Total: 200, Lines: []pricing.QuoteLine{
				{SKU: "mug", Version: 3, Quantity: 2, Unit: 100, Total: 200},
			}},
			LatePayment: pricing.AlwaysRefund,
		},
		Products:  []byte(`[{"id":"mug","title":"杯子"}]`),
		Position:  stock.Cursor{Log: log, Epoch: 1, Position: uint64(n + 1)},
		State:     order.Created,
		Version:   1,
		CreatedAt: 1_790_000_000_000 + stock.Millis(n),
		ExpiresAt: 1_790_000_300_000 + stock.Millis(n),
		CheckAt:   1_790_000_300_000 + stock.Millis(n),
	}
}

func event(o order.Order, topic string) outbox.Message {
	return outbox.Message{Key: string(o.ID), Topic: topic, Body: []byte(`{"v":1}`), At: int64(o.CreatedAt)}
}

// landed is an order with one event.
func landed(o order.Order) order.Landed {
	return order.Landed{Order: o, Events: []outbox.Message{event(o, "landed")}}
}

// some are orders 0..n−1, one event each.
func some(n int) []order.Landed {
	all := make([]order.Landed, n)
	for i := range all {
		all[i] = landed(plain(i))
	}
	return all
}

// full is an order with every field set, found by reflection, so that a field
// added later is checked without a change here.
func full() order.Order {
	var o order.Order
	n := 0
	fill(reflect.ValueOf(&o).Elem(), &n)
	o.ID = "1001"
	o.Reservation.Activity = o.Activity
	o.State = order.Paid
	o.Products = []byte(`[{"id":"a"},{"id":"b"}]`)
	return o
}

// fill sets everything inside v to distinct small values.
func fill(v reflect.Value, n *int) {
	*n++
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), n)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fallthrough
	case reflect.Array:
		for i := range v.Len() {
			fill(v.Index(i), n)
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case reflect.String:
		v.SetString(fmt.Sprintf("s%d", *n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Uint8:
		v.SetUint(uint64(*n%255 + 1))
	case reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(*n))
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(*n))
	default:
		panic("ordertest: cannot fill a " + v.Type().String())
	}
}
