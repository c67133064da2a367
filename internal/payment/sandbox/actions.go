package sandbox

import (
	"crypto/rand"
	"fmt"
	"slices"
	"time"

	"sluice/internal/pricing"
)

// Action is a button of the pay page, and the value of its form field "action".
type Action string

// The actions. Each decides a payment once.
const (
	ActionPay           Action = "pay"             // captures the amount and calls back
	ActionFail          Action = "fail"            // final, nothing captured, calls back
	ActionPayLate       Action = "pay_late"        // after a delay: captures and calls back
	ActionNeverCallBack Action = "never_call_back" // captures; only a query finds out
	ActionDuplicate     Action = "duplicate"       // captures twice under two ids, each told twice
	ActionWrongAmount   Action = "wrong_amount"    // captures one minor unit less (or more, if that were 0)
)

var actions = []Action{ActionPay, ActionFail, ActionPayLate, ActionNeverCallBack, ActionDuplicate, ActionWrongAmount}

// press does what the button does and answers the payment as it then is. The
// same button again changes nothing; another one is errDecided with the
// payment as it stands.
func (s *Server) press(token string, a Action, delay time.Duration) (*record, error) {
	if !slices.Contains(actions, a) {
		return nil, fmt.Errorf("%w: action must be one of %v", errInvalid, actions)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old, ok := s.payments[s.tokens[token]]
	if !ok {
		return nil, errNoPayment
	}
	if old.Action == a {
		return old, nil
	}
	if old.Action != "" {
		return old, errDecided
	}
	r := old.clone()
	r.Action = a
	now := s.now().UnixMilli()
	switch a {
	case ActionPay:
		r.callBack(r.take(r.Amount), now)
	case ActionFail:
		r.callBack("", now)
	case ActionPayLate:
		r.LateAt = now + delay.Milliseconds()
	case ActionNeverCallBack:
		r.take(r.Amount)
	case ActionDuplicate:
		for range 2 {
			id := r.take(r.Amount)
			r.callBack(id, now)
			r.callBack(id, now)
		}
	case ActionWrongAmount:
		wrong := r.Amount
		if wrong.Amount > 1 {
			wrong.Amount--
		} else {
			wrong.Amount++
		}
		r.callBack(r.take(wrong), now)
	}
	if err := s.save(r); err != nil {
		return old, err
	}
	s.schedule(r, old)
	return r, nil
}

// take captures money under a new id, which is unique for ever.
func (r *record) take(m pricing.Money) (captureID string) {
	id := "cap-" + rand.Text()
	r.Captures = append(r.Captures, capture{ID: id, Amount: m})
	return id
}

// callBack asks for one callback about a capture.
func (r *record) callBack(captureID string, due int64) {
	r.Calls = append(r.Calls, call{Number: r.NextCall, Capture: captureID, Due: due})
	r.NextCall++
}
