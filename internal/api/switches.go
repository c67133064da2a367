package api

import (
	"context"
	"errors"

	"github.com/valyala/fasthttp"

	"sluice/internal/gate"
	"sluice/internal/stock"
)

// This file is what playbooks change here beside the pages of activities; what
// they change of a purchase is decided by the gate.

// seen are the switches that shoppers notice and that ask nothing of them.
var seen = []gate.Switch{gate.SwitchStaleDetail, gate.SwitchHideCounts, gate.SwitchStockTight, gate.SwitchCloseRegistration, gate.SwitchReadOnlyOrders}

// degraded names those that are on.
func degraded(e *gate.Effective) (names []string) {
	for _, s := range seen {
		if e.Rule(s) != "" {
			names = append(names, s.String())
		}
	}
	return names
}

// hidesCounts says whether the activity of a request's path tells no numbers of units.
func (s *Server) hidesCounts(ctx *fasthttp.RequestCtx) bool {
	_, activity, _ := match(view(ctx.Path()))
	return s.switches.Of(activity).HideCounts
}

// refuseChange answers that, and leaves a line about it.
func (s *Server) refuseChange(ctx *fasthttp.RequestCtx, user stock.UserID, err error) {
	s.refuse(ctx, err, 0)
	if r, ok := errors.AsType[*gate.Refused](err); ok {
		s.logged.refusal(s.log, ctx, r.Rule, err, string(user))
	}
}

// changeable refuses the change of an order whose activity a playbook has made
// read-only. Which activity that is has to be looked up only where the playbook is
// about some and not about all.
func (s *Server) changeable(ctx context.Context, user stock.UserID, id stock.OrderID) error {
	in := s.switches.Now()
	if !in.Anywhere(gate.SwitchReadOnlyOrders) {
		return nil
	}
	e := in.Of("")
	if !e.ReadOnlyOrders {
		o, err := s.orders.Get(ctx, user, id)
		if err != nil {
			return err
		}
		e = in.Of(string(o.Activity))
	}
	if e.ReadOnlyOrders {
		return e.Refused(gate.SwitchReadOnlyOrders)
	}
	return nil
}
