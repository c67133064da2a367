package sandbox

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"regexp"
)

var (
	errInvalid   = errors.New("invalid request")
	errConflict  = errors.New("id already used for something else")
	errNoPayment = errors.New("no such payment")
	errNoRefund  = errors.New("cannot be refunded")
	errDecided   = errors.New("payment already decided otherwise")
	errFull      = errors.New("too many payments")
)

var idForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$`)

// start begins a payment, or finds the one with this id and these terms.
func (s *Server) start(q startBody) (*record, error) {
	if err := q.validate(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r, ok := s.payments[q.ID]; ok {
		if r.Amount != q.Amount || r.Description != q.Description || r.ReturnURL != q.ReturnURL || r.CallbackURL != q.CallbackURL {
			return nil, fmt.Errorf("%w: payment %s has other terms", errConflict, q.ID)
		}
		return r, nil
	}
	if len(s.payments) >= maxPayments {
		return nil, errFull
	}
	r := &record{
		ID: q.ID, Token: rand.Text(), Amount: q.Amount, Description: q.Description,
		ReturnURL: q.ReturnURL, CallbackURL: q.CallbackURL, At: s.now().UnixMilli(),
	}
	return r, s.save(r)
}

func (q startBody) validate() error {
	if !idForm.MatchString(q.ID) {
		return fmt.Errorf("%w: id must be 1..96 letters, digits, '.', '_' or '-'", errInvalid)
	}
	if err := q.Amount.Validate(); err != nil {
		return fmt.Errorf("%w: %w", errInvalid, err)
	}
	if q.Amount.Amount == 0 {
		return fmt.Errorf("%w: amount must be at least 1", errInvalid)
	}
	if len(q.Description) > 128 {
		return fmt.Errorf("%w: description must be at most 128 bytes", errInvalid)
	}
	if q.ReturnURL != "" {
		if err := checkURL("return_url", q.ReturnURL); err != nil {
			return err
		}
	}
	return checkURL("callback_url", q.CallbackURL)
}

// checkURL accepts absolute http and https URLs only: the return URL becomes a
// link and a redirect, where another scheme could run a script.
func checkURL(field, raw string) error {
	u, err := url.Parse(raw)
	if err != nil || len(raw) > maxURL || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil {
		return fmt.Errorf("%w: %s must be an absolute http or https URL of at most %d bytes", errInvalid, field, maxURL)
	}
	return nil
}

// find is the payment with this id, as it is now.
func (s *Server) find(id string) (*record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r, ok := s.payments[id]; ok {
		return r, nil
	}
	return nil, errNoPayment
}

// refund gives a capture back. The same refund id again is the same refund.
func (s *Server) refund(id string, q refundBody) error {
	if !idForm.MatchString(q.ID) {
		return fmt.Errorf("%w: id must be 1..96 letters, digits, '.', '_' or '-'", errInvalid)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old, ok := s.payments[id]
	if !ok {
		return errNoPayment
	}
	r := old.clone()
	var found *capture
	for i := range r.Captures {
		c := &r.Captures[i]
		if c.Refund == q.ID && c.ID != q.Capture {
			return fmt.Errorf("%w: refund %s gave back another capture", errConflict, q.ID)
		}
		if c.ID == q.Capture {
			found = c
		}
	}
	switch {
	case found == nil:
		return fmt.Errorf("%w: payment %s has no capture %q", errNoRefund, id, q.Capture)
	case found.Amount != q.Amount:
		return fmt.Errorf("%w: capture %s is of %s, not %s", errNoRefund, q.Capture, found.Amount, q.Amount)
	case found.Refund == q.ID:
		return nil
	case found.Refund != "":
		return fmt.Errorf("%w: capture %s was given back by refund %s", errNoRefund, q.Capture, found.Refund)
	}
	found.Refund = q.ID
	return s.save(r)
}
