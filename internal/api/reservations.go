package api

import (
	"strconv"
	"strings"

	"github.com/valyala/fasthttp"

	"sluice/internal/order"
	"sluice/internal/pricing"
	"sluice/internal/stock"
)

// reservation serves GET /v1/reservations/{id}. Somebody else's is answered
// like one that does not exist.
func (s *Server) reservation(ctx *fasthttp.RequestCtx, param string) {
	_, r, err := s.ownReservation(ctx, param)
	if err != nil {
		s.refuse(ctx, err, 0)
		return
	}
	reply(ctx, fasthttp.StatusOK, r.append(nil))
}

// ownReservation identifies the shopper and reads the reservation named by
// param, as it is now.
func (s *Server) ownReservation(ctx *fasthttp.RequestCtx, param string) (stock.UserID, shownReservation, error) {
	who, err := s.identify(ctx)
	if err != nil {
		return "", shownReservation{}, err
	}
	id, err := stock.ParseID(strings.Clone(param))
	if err != nil {
		return "", shownReservation{}, err
	}
	wait, cancel := s.call()
	defer cancel()
	r, err := s.orders.Reservation(wait, who.User, id)
	if err != nil {
		return "", shownReservation{}, err
	}
	shown, err := showReservation(&r)
	return who.User, shown, err
}

// shownReservation is what its owner sees of a reservation, the same in an
// answer and in an event. Streams keep it, so it holds no more than that. What is
// not known is zero and is not shown: of one that a ledger lost while it was
// pending nothing is left but its id and that it is refused.
type shownReservation struct {
	id         stock.ID
	order      stock.OrderID
	state      stock.State
	orderState order.State
	expires    stock.Millis
	total      pricing.Money
}

func showReservation(r *order.Reservation) (shownReservation, error) {
	shown := shownReservation{id: r.ID, order: r.Order, state: r.State, orderState: r.OrderState, expires: r.Expires}
	var d decoder
	var err error
	shown.total, err = d.totalOf(r.Terms)
	return shown, err
}

// append writes the reservation as JSON.
func (r *shownReservation) append(dst []byte) []byte {
	dst = appendString(append(dst, `{"reservation":`...), r.id.String())
	if r.order != "" {
		dst = appendString(append(dst, `,"order":`...), string(r.order))
	}
	dst = appendString(append(dst, `,"state":`...), r.state.String())
	dst = appendString(append(dst, `,"order_state":`...), string(r.orderState))
	return append(appendTerms(dst, r.expires, r.total), '}')
}

// appendTerms writes when to pay by, and how much, if they are known.
func appendTerms(dst []byte, expires stock.Millis, total pricing.Money) []byte {
	if expires != 0 {
		dst = appendTime(append(dst, `,"expires_at":`...), expires)
	}
	if total.Currency == "" {
		return dst
	}
	dst = strconv.AppendInt(append(dst, `,"total":{"amount":`...), total.Amount, 10)
	return append(appendString(append(dst, `,"currency":`...), total.Currency), '}')
}
