package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"reflect"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/validation"

	"sluice/internal/catalog"
	"sluice/internal/gate"
	"sluice/internal/lib/outbox"
	"sluice/internal/order"
	"sluice/internal/payment"
	"sluice/internal/pricing"
	"sluice/internal/proof"
	"sluice/internal/sale"
	"sluice/internal/stock"
)

// outcome is one row of what an operator can be told. Code is stable for
// programs; title is for people.
type outcome struct {
	status int
	code   string
	title  string
}

var (
	invalidRequest       = outcome{400, "invalid_request", "The request is not valid"}
	unauthenticated      = outcome{401, "unauthenticated", "A valid bearer token is required"}
	opsDisabled          = outcome{403, "ops_disabled", "The ops API is off"}
	notFound             = outcome{404, "not_found", "There is nothing here"}
	noSuchActivity       = outcome{404, "no_such_activity", "No such activity"}
	noSuchSKU            = outcome{404, "no_such_sku", "No such SKU"}
	noSuchOrder          = outcome{404, "no_such_order", "No such order"}
	noSuchReservation    = outcome{404, "no_such_reservation", "No such reservation"}
	noSuchDeadLetter     = outcome{404, "no_such_dead_letter", "No such dead letter"}
	noSuchDependency     = outcome{404, "no_such_dependency", "No such dependency"}
	noMembers            = outcome{404, "no_members", "Nobody keeps a list of the processes"}
	noSuchRules          = outcome{404, "no_such_rules", "No such version of the rules"}
	noSuchPlaybook       = outcome{404, "no_such_playbook", "No such playbook"}
	noSuchFreeze         = outcome{404, "no_such_freeze", "No such freeze"}
	methodNotAllowed     = outcome{405, "method_not_allowed", "Method not allowed"}
	activityState        = outcome{409, "activity_state", "The activity's state does not allow this"}
	exists               = outcome{409, "exists", "This id is taken"}
	conflict             = outcome{409, "conflict", "This id was used for something else"}
	rulesChanged         = outcome{409, "rules_changed", "The rules have been changed since"}
	listChanged          = outcome{409, "list_changed", "The entry has been changed since"}
	listsFull            = outcome{409, "lists_full", "The lists have as many entries as they may"}
	playbookChanged      = outcome{409, "playbook_changed", "The playbook has been changed since"}
	playbookPulled       = outcome{409, "playbook_pulled", "The playbook is pulled"}
	frozen               = outcome{409, "frozen", "The configuration is frozen"}
	insufficient         = outcome{409, "insufficient", "Fewer units are free than would be taken"}
	orderState           = outcome{409, "order_state", "The order's state does not allow this"}
	logTruncated         = outcome{410, "log_truncated", "The log no longer reaches back that far"}
	noDrift              = outcome{409, "no_drift", "The audit finds no such drift"}
	contradiction        = outcome{409, "contradiction", "The reservation has ended otherwise"}
	tooLarge             = outcome{413, "too_large", "The body is limited to 64 kB"}
	unsupportedMediaType = outcome{415, "unsupported_media_type", "Content-Type must be application/json"}
	internal             = outcome{500, "internal", "Internal error"}
	overloaded           = outcome{503, "overloaded", "Too busy, try again"}
	notReady             = outcome{503, "not_ready", "Not ready yet, try again"}
	unknown              = outcome{503, "unknown", "Outcome unknown, ask again"}
)

// causes is the only place where an error becomes an outcome; the first row
// whose error is in the chain counts. Sentinels that no operator's call can
// meet are listed too, as internal, so that a new one is never overlooked (a
// test compares this list with the rooms).
var causes = []struct {
	err error
	outcome
}{
	{outbox.ErrNoSuchMessage, noSuchDeadLetter},
	{errNoSuchDependency, noSuchDependency},
	{errNoMembers, noMembers},
	{sale.ErrTransition, activityState},
	{sale.ErrExists, exists},
	{stock.ErrConflict, conflict},
	{stock.ErrInsufficient, insufficient},
	{order.ErrState, orderState},
	{sale.ErrNoSuchActivity, noSuchActivity},
	{stock.ErrNoSuchActivity, noSuchActivity},
	{catalog.ErrNoSuchSKU, noSuchSKU},
	{stock.ErrNoSuchSKU, noSuchSKU},
	{order.ErrNoSuchOrder, noSuchOrder},
	{stock.ErrNoSuchReservation, noSuchReservation},
	{stock.ErrEnded, activityState},
	{stock.ErrPaused, activityState},
	{catalog.ErrInvalid, invalidRequest},
	{sale.ErrInvalid, invalidRequest},
	{stock.ErrInvalid, invalidRequest},
	{pricing.ErrMoney, invalidRequest},
	{gate.ErrRules, invalidRequest},
	{gate.ErrRulesChanged, rulesChanged},
	{gate.ErrNoSuchRules, noSuchRules},
	{gate.ErrListChanged, listChanged},
	{gate.ErrListsFull, listsFull},
	{gate.ErrNoSuchPlaybook, noSuchPlaybook},
	{gate.ErrPlaybookChanged, playbookChanged},
	{gate.ErrPlaybookPulled, playbookPulled},
	{gate.ErrFrozen, frozen},
	{gate.ErrNoSuchFreeze, noSuchFreeze},
	{stock.ErrTruncated, logTruncated},
	{stock.ErrOutcome, contradiction},
	{proof.ErrNoDrift, noDrift},
	{stock.ErrOverloaded, overloaded},
	{stock.ErrNotReady, notReady},
	{stock.ErrStale, notReady},
	{order.ErrNotReady, notReady},
	{stock.ErrUnknown, unknown},
	{payment.ErrAway, overloaded},
	{payment.ErrProvider, unknown},
	{payment.ErrRefused, orderState},
	{context.DeadlineExceeded, unknown},
	{context.Canceled, unknown},

	{outbox.ErrAway, internal},
	{gate.ErrUnauthenticated, internal},
	{gate.ErrOverloaded, internal},
	{gate.ErrRateLimited, internal},
	{gate.ErrKey, internal},
	{gate.ErrQueued, internal},
	{gate.ErrReadOnly, internal},
	{gate.ErrChallengeRequired, internal},
	{gate.ErrNotEligible, internal},
	{gate.ErrTicketRequired, internal},
	{gate.ErrNoTicketNeeded, internal},
	{gate.ErrRegistrationClosed, internal},
	{gate.ErrExpired, internal},
	{gate.ErrForged, internal},
	{gate.ErrSharing, internal},
	{payment.ErrNoSuchPayment, internal},
	{payment.ErrForged, internal},
	{payment.ErrMalformed, internal},
	{stock.ErrNotOpen, internal},
	{stock.ErrLimit, internal},
	{stock.ErrSoldOut, internal},
	{stock.ErrAllHeld, internal},
	{stock.ErrMismatch, internal},
	{stock.ErrClaimUsed, internal},
	{stock.ErrCorrupt, internal},
	{order.ErrFenced, internal},
	{order.ErrWatermark, internal},
}

const (
	problemType = "application/problem+json"
	problemName = "Problem"
	problemRef  = "#/components/schemas/" + problemName
)

// problem is the body of every error (RFC 9457).
type problem struct {
	Title     string `json:"title"`
	Status    int    `json:"status"`
	Code      string `json:"code" doc:"Stable, for programs"`
	Detail    string `json:"detail,omitempty"`
	Field     string `json:"field,omitempty" doc:"With invalid_request: the field that is wrong, when it is one" example:"items[0].units"`
	SKU       string `json:"sku,omitempty"`
	Available *int   `json:"available,omitempty" doc:"With insufficient: how many units can be taken"`

	Until instant `json:"until,omitzero" doc:"With frozen: it is over then"`
	Why   string  `json:"why,omitempty" doc:"With frozen. The header Override-Freeze, with a reason, makes the change all the same"`
}

func (o outcome) with(detail string) *problem {
	return &problem{Title: o.title, Status: o.status, Code: o.code, Detail: detail}
}

// Error, GetStatus, GetHeaders and ContentType are how huma writes an error.
func (p *problem) Error() string             { return p.Code + ": " + p.Detail }
func (p *problem) GetStatus() int            { return p.Status }
func (p *problem) ContentType(string) string { return problemType }
func (p *problem) GetHeaders() http.Header {
	if p.Status != http.StatusServiceUnavailable {
		return nil
	}
	// Jittered, so that those refused together do not come back together.
	return http.Header{"Retry-After": {strconv.Itoa(1 + rand.IntN(3))}}
}

// problemOf turns an error of a business room into its answer. What has no row
// is logged here, and its text stays inside.
func (c *console) problemOf(action string, err error) *problem {
	o := internal
	for _, row := range causes {
		if errors.Is(err, row.err) {
			o = row.outcome
			break
		}
	}
	if o == internal {
		c.Log.Error("ops call failed", "action", action, "err", err)
		return o.with("")
	}
	p := o.with(err.Error())
	if bad, ok := errors.AsType[*gate.RuleError](err); ok {
		p.Field = bad.Field
	}
	if f, ok := errors.AsType[*gate.Frozen](err); ok {
		p.Until, p.Why = instant(f.To), f.Why
	}
	var r *stock.Refusal
	if errors.As(err, &r) {
		p.SKU = string(r.SKU)
		if o == insufficient {
			p.Available = &r.Available
		}
	}
	return p
}

// problemOfHuma turns what huma found wrong with a request into the answer. It
// never repeats the value that was sent.
func problemOfHuma(e *huma.ErrorModel) *problem {
	o := invalidRequest
	switch {
	case e.Status == http.StatusRequestEntityTooLarge:
		o = tooLarge
	case e.Status == http.StatusUnsupportedMediaType:
		o = unsupportedMediaType
	case e.Status >= 500:
		o = internal
	}
	p := o.with(e.Detail)
	if len(e.Errors) > 0 && e.Errors[0] != nil {
		first := e.Errors[0]
		p.Detail = first.Message
		p.Field = strings.TrimPrefix(strings.TrimPrefix(first.Location, "body"), ".")
		var missing string // huma names a missing field only in its message
		if n, _ := fmt.Sscanf(first.Message, validation.MsgExpectedRequiredProperty, &missing); n == 1 {
			p.Field = strings.TrimPrefix(p.Field+"."+missing, ".")
		} else if p.Field != "" {
			p.Detail = p.Field + ": " + first.Message
		}
	}
	return p
}

// write answers with a problem outside huma.
func write(w http.ResponseWriter, p *problem) {
	for name, values := range p.GetHeaders() {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Type", problemType)
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // the peer is gone if it fails
}

// forgetUnused puts our problem into the document in place of huma's own.
func forgetUnused(doc *huma.OpenAPI) {
	schemas := doc.Components.Schemas.Map()
	delete(schemas, "ErrorModel")
	delete(schemas, "ErrorDetail")
	doc.Components.Schemas.Schema(reflect.TypeFor[problem](), true, problemName)
}
