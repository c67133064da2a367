package order

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sluice/internal/lib/outbox"
	"sluice/internal/pricing"
	"sluice/internal/stock"
)

// Where the schemas of events are published, and where what readers have been
// promised is kept. The second is what was published with the last release: it
// is only ever added to.
const (
	published = "../../docs/events"
	promised  = "testdata/events"
)

// schema is as much of JSON Schema as ours use; another word in one is a fault.
type schema struct {
	Schema      string             `json:"$schema,omitempty"`
	Title       string             `json:"title,omitempty"`
	Description string             `json:"description,omitempty"`
	Type        string             `json:"type"`
	Properties  map[string]*schema `json:"properties,omitempty"`
	Required    []string           `json:"required,omitempty"`
	Enum        []string           `json:"enum,omitempty"`
	Pattern     string             `json:"pattern,omitempty"`
	MinLength   int                `json:"minLength,omitempty"`
	Minimum     *int64             `json:"minimum,omitempty"`
}

func parseSchema(text string) (*schema, error) {
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	s := new(schema)
	return s, d.Decode(s)
}

func readSchemas(t *testing.T, dir string) map[string]*schema {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]*schema{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		s, err := parseSchema(string(text))
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		topic := strings.TrimSuffix(filepath.Base(file), ".schema.json")
		if s.Title != topic {
			t.Errorf("%s is titled %q", file, s.Title)
		}
		all[topic] = s
	}
	return all
}

// faults are in what a value breaks its schema. A property that the schema does
// not have is one, too: readers pass over it, but it is published before it is sent.
func (s *schema) faults(at string, v any) (list []string) {
	bad := func(format string, args ...any) { list = append(list, at+": "+fmt.Sprintf(format, args...)) }
	switch s.Type {
	case "object":
		o, ok := v.(map[string]any)
		if !ok {
			bad("%v is no object", v)
			return list
		}
		for _, name := range s.Required {
			if _, ok := o[name]; !ok {
				bad("%s is missing", name)
			}
		}
		for _, name := range slices.Sorted(maps.Keys(o)) {
			if p := s.Properties[name]; p != nil {
				list = append(list, p.faults(at+"."+name, o[name])...)
			} else {
				bad("%s is not in the schema", name)
			}
		}
	case "string":
		text, ok := v.(string)
		switch {
		case !ok:
			bad("%v is no string", v)
		case len(text) < s.MinLength:
			bad("%q is too short", text)
		case len(s.Enum) > 0 && !slices.Contains(s.Enum, text):
			bad("%q is none of %v", text, s.Enum)
		case s.Pattern != "" && !regexp.MustCompile(s.Pattern).MatchString(text):
			bad("%q does not match %s", text, s.Pattern)
		}
	case "integer":
		n, ok := v.(json.Number)
		i, err := n.Int64()
		if !ok || err != nil {
			bad("%v is no integer", v)
		} else if s.Minimum != nil && i < *s.Minimum {
			bad("%d is below %d", i, *s.Minimum)
		}
	case "boolean":
		if _, ok := v.(bool); !ok {
			bad("%v is no boolean", v)
		}
	default:
		bad("the schema has the type %q", s.Type)
	}
	return list
}

// breaks are the ways in which events that keep to the newer schema could
// surprise a reader of the older: it must find all that it was promised, as it
// was promised. What is new it does not look at.
func (older *schema) breaks(at string, newer *schema) (list []string) {
	bad := func(format string, args ...any) { list = append(list, at+": "+fmt.Sprintf(format, args...)) }
	if newer == nil {
		return []string{at + ": is gone"}
	}
	if older.Type != newer.Type {
		bad("was of type %s and is %s", older.Type, newer.Type)
	}
	for _, name := range older.Required {
		if !slices.Contains(newer.Required, name) {
			bad("%s was always there and need not be", name)
		}
	}
	for _, value := range newer.Enum {
		if len(older.Enum) > 0 && !slices.Contains(older.Enum, value) {
			bad("%s is a new value", value)
		}
	}
	if len(older.Enum) > 0 && len(newer.Enum) == 0 {
		bad("had one of %v and has any", older.Enum)
	}
	if older.Pattern != "" && older.Pattern != newer.Pattern {
		bad("matched %s", older.Pattern)
	}
	if older.MinLength > newer.MinLength {
		bad("was at least %d long", older.MinLength)
	}
	if older.Minimum != nil && (newer.Minimum == nil || *newer.Minimum < *older.Minimum) {
		bad("was at least %d", *older.Minimum)
	}
	for _, name := range slices.Sorted(maps.Keys(older.Properties)) {
		list = append(list, older.Properties[name].breaks(at+"."+name, newer.Properties[name])...)
	}
	return list
}

// every is each event that the code makes, in as many forms as it has.
func every(t *testing.T) (events []outbox.Message) {
	t.Helper()
	for _, restock := range []bool{false, true} {
		for _, from := range []State{Created, Paid, Fulfilled} {
			for _, do := range []Action{ActionPay, ActionCancel, ActionTimeout, ActionFulfil, ActionRefund} {
				for _, reason := range []string{ReasonShopper, "an operator's words"} {
					o := Order{ID: "7", Reservation: stock.ID{Activity: "sale", Epoch: 1, Number: 2}, Activity: "sale", User: "u", State: from, Version: 1,
						Terms: pricing.Terms{Quote: pricing.Quote{Total: 5900, Currency: "EUR"}, Restock: restock}}
					if made, err := Transition(&o, do, reason, 1_790_000_000_123); err == nil {
						events = append(events, made...)
					}
				}
			}
		}
		o := Order{ID: "8", Reservation: stock.ID{Activity: "sale", Epoch: 1, Number: 3}, Activity: "sale", User: "u", State: Created, Version: 1,
			Terms: pricing.Terms{Quote: pricing.Quote{Currency: "CNY"}, Restock: restock}}
		events = append(events, reminder(&o, 0))
	}
	return events
}

// What the code sends is what is published.
func TestEventsKeepToTheirSchemas(t *testing.T) {
	schemas, seen := readSchemas(t, published), map[string]bool{}
	for _, m := range every(t) {
		seen[m.Topic] = true
		s := schemas[m.Topic]
		if s == nil {
			t.Errorf("%s has no schema in docs/events", m.Topic)
			continue
		}
		d := json.NewDecoder(strings.NewReader(string(m.Body)))
		d.UseNumber()
		var body any
		if err := d.Decode(&body); err != nil {
			t.Fatal(err)
		}
		for _, fault := range s.faults(m.Topic, body) {
			t.Errorf("%s; in %s", fault, m.Body)
		}
	}
	for _, topic := range []string{TopicPaymentDue, TopicPaid, TopicCancelled, TopicFulfilled, TopicRefunded} {
		if !seen[topic] {
			t.Errorf("no %s was made", topic)
		}
	}
	for topic := range schemas {
		if !seen[topic] {
			t.Errorf("docs/events has a schema of %s, which nobody sends", topic)
		}
	}
}

// What is published keeps what was promised.
func TestSchemasAreCompatible(t *testing.T) {
	newer := readSchemas(t, published)
	older := readSchemas(t, promised)
	if len(older) == 0 {
		t.Fatal("nothing was promised")
	}
	for topic, s := range older {
		for _, fault := range s.breaks(topic, newer[topic]) {
			t.Error(fault)
		}
	}
}

// The two checks find what they are for.
func TestSchemaChecksBite(t *testing.T) {
	const base = `{"type":"object","properties":{
		"id":{"type":"string","minLength":1},"state":{"type":"string","enum":["paid"]},"at":{"type":"string","pattern":"Z$"},
		"total":{"type":"object","properties":{"amount":{"type":"integer","minimum":0}},"required":["amount"]},
		"restock":{"type":"boolean"}},"required":["id","state","at","total"]}`
	older, err := parseSchema(base)
	if err != nil {
		t.Fatal(err)
	}
	f := func(old, new, want string) {
		t.Helper()
		if !strings.Contains(base, old) {
			t.Fatalf("%s is not there", old)
		}
		newer, err := parseSchema(strings.Replace(base, old, new, 1))
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(older.breaks("e", newer), "; "); !strings.Contains(got, want) || want == "" && got != "" {
			t.Errorf("%s → %s: %q, want %q", old, new, got, want)
		}
	}
	f(`"id"`, `"id"`, "")
	f(`"restock":`, `"extra":{"type":"string"},"restock":`, "")
	f(`"restock":{"type":"boolean"}`, `"restock":{"type":"boolean"},"x":{"type":"integer"}`, "")
	f(`"amount":{`, `"sum":{`, "e.total.amount: is gone") // renamed
	f(`"restock":{"type":"boolean"}`, `"other":{"type":"boolean"}`, "e.restock: is gone")
	f(`"boolean"`, `"string"`, "e.restock: was of type boolean")
	f(`"id","state","at","total"]`, `"state","at","total"]`, "e: id was always there")
	f(`["paid"]`, `["paid","late"]`, "e.state: late is a new value")
	f(`,"enum":["paid"]`, ``, "e.state: had one of")
	f(`"Z$"`, `"z$"`, "e.at: matched Z$")
	f(`"minLength":1`, `"minLength":0`, "e.id: was at least 1 long")
	f(`"minimum":0`, `"minimum":-1`, "e.total.amount: was at least 0")

	g := func(body, want string) {
		t.Helper()
		d := json.NewDecoder(strings.NewReader(body))
		d.UseNumber()
		var v any
		if err := d.Decode(&v); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(older.faults("e", v), "; "); !strings.Contains(got, want) || want == "" && got != "" {
			t.Errorf("%s: %q, want %q", body, got, want)
		}
	}
	g(`{"id":"7","state":"paid","at":"Z","total":{"amount":1}}`, "")
	g(`{"state":"paid","at":"Z","total":{"amount":1}}`, "e: id is missing")
	g(`{"ID":"7","id":"7","state":"paid","at":"Z","total":{"amount":1}}`, "e: ID is not in the schema")
	g(`{"id":"","state":"open","at":"z","total":{"amount":-1},"restock":1}`, `too short; e.restock: 1 is no boolean; e.state: "open" is none of [paid]; e.total.amount: -1 is below 0`)
	g(`{"id":7,"state":"paid","at":"z","total":{"amount":1.5}}`, `e.at: "z" does not match Z$; e.id: 7 is no string; e.total.amount: 1.5 is no integer`)
	g(`{"id":"7","state":"paid","at":"Z","total":[]}`, "e.total: [] is no object")
	g(`[]`, "e: [] is no object")
	if _, err := parseSchema(`{"type":"string","format":"date"}`); err == nil {
		t.Error("a word that is not checked was taken")
	}
}
