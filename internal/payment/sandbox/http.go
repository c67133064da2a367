package sandbox

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"

	"sluice/internal/payment"
)

// requestLimit bounds the reading of a request and the writing of its answer.
const requestLimit = 10 * time.Second

// Handler serves the merchant API and the pay page. Merchant calls are signed
// (sign.go) with the purpose "METHOD path".
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/payments", s.signed(s.handleStart))
	mux.HandleFunc("GET /v1/payments/{id}", s.signed(s.handleQuery))
	mux.HandleFunc("POST /v1/payments/{id}/refunds", s.signed(s.handleRefund))
	mux.HandleFunc("GET /pay/{token}", s.handlePage)
	mux.HandleFunc("POST /pay/{token}", s.handleAction)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Deadlines here hold whatever server the handler is mounted on; one
		// that cannot set them (a test recorder) has no slow peer either.
		deadline := time.Now().Add(requestLimit)
		control := http.NewResponseController(w)
		_ = control.SetReadDeadline(deadline)
		_ = control.SetWriteDeadline(deadline)
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		mux.ServeHTTP(w, r)
	})
}

// problem is the body of an error answer.
type problem struct {
	Code   string `json:"code"`
	Detail string `json:"detail"`
}

const (
	codeInvalid   = "invalid_request"
	codeNoPayment = "no_such_payment"
	codeConflict  = "conflict"
	codeNoRefund  = "not_refundable"
	codeDecided   = "already_decided"
)

// refuse is the only error → status table of this server.
func (s *Server) refuse(w http.ResponseWriter, err error) {
	status, code := http.StatusInternalServerError, "internal"
	var tooLarge *http.MaxBytesError
	switch {
	case errors.Is(err, errUnsigned):
		status, code = http.StatusUnauthorized, "unauthenticated"
	case errors.As(err, &tooLarge):
		status, code = http.StatusRequestEntityTooLarge, "too_large"
	case errors.Is(err, errInvalid):
		status, code = http.StatusBadRequest, codeInvalid
	case errors.Is(err, errNoPayment):
		status, code = http.StatusNotFound, codeNoPayment
	case errors.Is(err, errConflict):
		status, code = http.StatusConflict, codeConflict
	case errors.Is(err, errDecided):
		status, code = http.StatusConflict, codeDecided
	case errors.Is(err, errNoRefund):
		status, code = http.StatusUnprocessableEntity, codeNoRefund
	case errors.Is(err, errFull):
		status, code = http.StatusServiceUnavailable, "overloaded"
	default:
		s.log.Error("sandbox request failed", "reason", err)
		err = errors.New("internal error")
	}
	answer(w, status, problem{Code: code, Detail: err.Error()})
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the peer is gone if it fails
}

var errUnsigned = errors.New("signature is missing, wrong or too old")

// signed lets only the merchant through.
func (s *Server) signed(next func(r *http.Request, body []byte) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil && !genuine(r.Header.Get, s.options.Secret, r.Method+" "+r.URL.EscapedPath(), s.now(), body) {
			err = errUnsigned
		}
		var reply any
		if err == nil {
			reply, err = next(r, body)
		}
		if err != nil {
			s.refuse(w, err)
			return
		}
		answer(w, http.StatusOK, reply)
	}
}

func (s *Server) handleStart(r *http.Request, body []byte) (any, error) {
	var q startBody
	if err := decodeStrict(body, &q); err != nil {
		return nil, errors.Join(errInvalid, err)
	}
	rec, err := s.start(q)
	if err != nil {
		return nil, err
	}
	base := s.options.PublicURL
	if base == "" {
		base = "http://" + r.Host
	}
	return startReply{PayURL: base + "/pay/" + rec.Token}, nil
}

func (s *Server) handleQuery(r *http.Request, _ []byte) (any, error) {
	rec, err := s.find(r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	return rec.status(), nil
}

func (s *Server) handleRefund(r *http.Request, body []byte) (any, error) {
	var q refundBody
	if err := decodeStrict(body, &q); err != nil {
		return nil, errors.Join(errInvalid, err)
	}
	if err := s.refund(r.PathValue("id"), q); err != nil {
		return nil, err
	}
	return refundReply{State: payment.RefundDone}, nil
}
