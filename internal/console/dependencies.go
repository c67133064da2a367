package console

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"sluice/internal/lib/call"
	"sluice/internal/stock"
)

// Dependency is something outside that this process calls.
type Dependency struct {
	Name     string
	Breaker  *call.Breaker
	Bulkhead *call.Bulkhead
	Refused  func() map[string]uint64 // calls that were not made, by reason
}

// errNoSuchDependency: this process calls nothing of that name.
var errNoSuchDependency = errors.New("no such dependency")

func (c *console) dependency(name string) (Dependency, error) {
	for _, d := range c.Dependencies {
		if d.Name == name {
			return d, nil
		}
	}
	return Dependency{}, fmt.Errorf("%w: %s", errNoSuchDependency, name)
}

type dependencyList struct {
	Dependencies []dependencyBody `json:"dependencies" nullable:"false"`
}

type dependencyBody struct {
	Name     string            `json:"name"`
	State    string            `json:"state" enum:"closed,open,half_open" doc:"closed: calls pass; open: they are refused; half_open: a few pass as trials"`
	Held     bool              `json:"held" doc:"By an operator, until auto"`
	Until    instant           `json:"until,omitzero" doc:"Open and not held: when the next trials may be made"`
	Calls    int               `json:"calls" doc:"That were counted in the last ten seconds; of an open one, those that opened it"`
	Failed   int               `json:"failed"`
	Slow     int               `json:"slow"`
	InFlight int               `json:"in_flight"`
	Waiting  int               `json:"waiting"`
	Refused  map[string]uint64 `json:"refused" doc:"Calls that were not made since the start, by reason: open, full, no_time"`
}

func (d Dependency) body() dependencyBody {
	is := d.Breaker.Status()
	b := dependencyBody{
		Name: d.Name, State: strings.ReplaceAll(is.State.String(), "-", "_"), Held: is.Held,
		Calls: is.Calls, Failed: is.Failed, Slow: is.Slow,
		InFlight: d.Bulkhead.InFlight(), Waiting: d.Bulkhead.Waiting(), Refused: d.Refused(),
	}
	if !is.Until.IsZero() {
		b.Until = instant(stock.MillisOf(is.Until))
	}
	return b
}

type dependencyPath struct {
	Name string `path:"name" maxLength:"32"`
}

func (in *dependencyPath) asked() (string, any) { return in.Name, struct{}{} }

type holdInput struct {
	Name string `path:"name" maxLength:"32"`
	Body struct {
		State  string `json:"state" enum:"open,closed" doc:"open: call it no more; closed: call it whatever happens"`
		Reason string `json:"reason,omitempty" maxLength:"200"`
	}
}

func (in *holdInput) asked() (string, any) { return in.Name, in.Body }

var holdable = map[string]call.State{"open": call.Open, "closed": call.Closed}

// serveDependencies registers what operators see and do about things outside.
// Breakers are each process's own.
func (c *console) serveDependencies() {
	read(c, route("dependency.list", http.MethodGet, "/v1/dependencies", "What this process calls, and how it stands", http.StatusOK),
		func(context.Context, *none) (*reply[dependencyList], error) {
			list := dependencyList{Dependencies: make([]dependencyBody, len(c.Dependencies))}
			for i, d := range c.Dependencies {
				list.Dependencies[i] = d.body()
			}
			return body(list, nil)
		})
	mutate(c, route("dependency.hold", http.MethodPost, "/v1/dependencies/{name}/hold", "Keep its breaker open or closed until auto", http.StatusOK),
		func(_ context.Context, in *holdInput) (*reply[dependencyBody], error) {
			d, err := c.dependency(in.Name)
			if err != nil {
				return nil, err
			}
			d.Breaker.Hold(holdable[in.Body.State])
			return body(d.body(), nil)
		})
	mutate(c, route("dependency.auto", http.MethodPost, "/v1/dependencies/{name}/auto", "End a hold; what was held open is tried first", http.StatusOK),
		func(_ context.Context, in *dependencyPath) (*reply[dependencyBody], error) {
			d, err := c.dependency(in.Name)
			if err != nil {
				return nil, err
			}
			d.Breaker.Auto()
			return body(d.body(), nil)
		})
}
