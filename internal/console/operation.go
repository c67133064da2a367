package console

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"sluice/internal/gate"
	"sluice/internal/stock"
)

// none is the input of a call without parameters.
type none struct{}

// reply is the output of a call: a JSON body.
type reply[B any] struct{ Body B }

func body[B any](b B, err error) (*reply[B], error) {
	if err != nil {
		return nil, err
	}
	return &reply[B]{b}, nil
}

// route describes one operation. Action names it in the OpenAPI document and,
// when it changes something, in the audit log.
func route(action, method, path, summary string, status int) huma.Operation {
	return huma.Operation{
		OperationID: action, Method: method, Path: path, Summary: summary, DefaultStatus: status,
		MaxBodyBytes: maxBody + 1, // huma refuses the body that reaches the bound
		Security:     []map[string][]string{{"token": {}}},
		Responses: map[string]*huma.Response{"default": {
			Description: "A problem (RFC 9457)",
			Content:     map[string]*huma.MediaType{problemType: {Schema: &huma.Schema{Ref: problemRef}}},
		}},
	}
}

// about is an operation with more to say than its summary.
func about(op huma.Operation, description string) huma.Operation {
	op.Description = description
	return op
}

// read registers a call that changes nothing.
func read[I, O any](c *console, op huma.Operation, f func(context.Context, *I) (*O, error)) {
	huma.Register(c.api, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := f(ctx, in)
		if err != nil {
			return nil, c.problemOf(op.OperationID, err)
		}
		return out, nil
	})
}

// change is the input of a call that changes something: what it concerns, and
// what was asked, for the audit log.
type change[I any] interface {
	*I
	asked() (subject string, detail any)
}

// mutate registers a call that changes something. The audit entry is saved
// first: what cannot be recorded is not done. A call whose input has Overriding
// in it is refused while the configuration is frozen, unless it says why not.
func mutate[I, O any, P change[I]](c *console, op huma.Operation, f func(context.Context, *I) (*O, error)) {
	if _, is := any(P(new(I))).(freezable); is {
		c.forbidden = append(c.forbidden, op.OperationID)
	}
	read(c, op, func(ctx context.Context, in *I) (*O, error) {
		subject, detail := P(in).asked()
		freeze, detail, err := c.frozen(ctx, in, detail)
		if err != nil {
			return nil, err
		}
		if err := c.record(ctx, op.OperationID, subject, detail); err != nil {
			return nil, err
		}
		if freeze != nil {
			return nil, &gate.Frozen{Freeze: *freeze}
		}
		return f(ctx, in)
	})
}

// instant is a time in a body: RFC 3339 in UTC with milliseconds.
type instant stock.Millis

const instantForm = "2006-01-02T15:04:05.000Z"

// MarshalJSON writes the time; zero ones are left out by omitzero.
func (i instant) MarshalJSON() ([]byte, error) {
	return json.Marshal(stock.Millis(i).Time().Format(instantForm))
}

// UnmarshalJSON reads any RFC 3339 time and cuts it to milliseconds.
func (i *instant) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return fmt.Errorf("%q is not a time in RFC 3339", s)
	}
	*i = instant(stock.MillisOf(t))
	return nil
}

// Schema describes an instant to OpenAPI.
func (instant) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Format: "date-time", Examples: []any{"2025-11-11T12:00:00.000Z"}}
}

// humaContext renames huma.Context so that embedding it leaves its method
// Context visible.
type humaContext huma.Context

// statusContext answers 400 where huma would answer 422: here every request
// that cannot be read is invalid_request.
type statusContext struct{ humaContext }

func (c statusContext) SetStatus(status int) { c.humaContext.SetStatus(statusOf(status)) }

// Unwrap lets the adapter find its own context.
func (c statusContext) Unwrap() huma.Context { return c.humaContext }

func plainStatus(ctx huma.Context, next func(huma.Context)) { next(statusContext{ctx}) }

func statusOf(status int) int {
	if status == http.StatusUnprocessableEntity || status == http.StatusRequestTimeout {
		return http.StatusBadRequest
	}
	return status
}
