package storm

import (
	"encoding/json"
	"time"
)

// What a shop asks of its shoppers before they buy, in the words of its API.

// picture is a challenge that the shop sets.
type picture struct {
	Challenge  string `json:"challenge"`
	Kind       string `json:"kind"`
	Width      int    `json:"width"`
	PieceWidth int    `json:"piece_width"`
}

// slip is what a shop hands out: a ticket, or a clearance for a solved challenge.
type slip struct {
	Ticket    string `json:"ticket"`
	Clearance string `json:"clearance"`
}

// queuePlace is where somebody stands in a waiting room.
type queuePlace struct {
	State       string `json:"state"` // registered, waiting, called, lapsed, over
	Position    int    `json:"position"`
	ETA         *int64 `json:"eta_seconds"`
	PollAfterMS int64  `json:"poll_after_ms"`
	Pass        string `json:"pass"`
}

// denial is what a refusal says: why, and when to come again.
type denial struct {
	Code         string    `json:"code"`
	OpensAt      time.Time `json:"opens_at"`
	TicketsAt    time.Time `json:"tickets_at"`
	QueueOpensAt time.Time `json:"queue_opens_at"`
}

// showing is the body of a purchase by somebody who has been handed things.
type showing struct {
	SKU       string `json:"sku"`
	Quantity  int    `json:"quantity"`
	Pass      string `json:"pass,omitempty"`
	Ticket    string `json:"ticket,omitempty"`
	Clearance string `json:"clearance,omitempty"`
}

// gateRules are the rules that a storm wants before its own sale, each with an id
// by which they are found again.
func gateRules(o Options, activity string, lead time.Duration) map[string]any {
	rules := map[string]any{}
	if o.Challenge != "" {
		rules["challenges"] = map[string]any{"id": activity + "-c", "activity": activity, "mode": "on", "when": o.Challenge}
	}
	if o.Tickets {
		rules["tickets"] = map[string]any{"id": activity + "-t", "activity": activity, "mode": "on", "lead": (lead / 2).String()}
	}
	if o.Queue {
		rules["rooms"] = map[string]any{"id": activity + "-q", "activity": activity, "mode": "on", "opens": "10m",
			"pass": max(o.Duration/leadOfDuration, calledTimeLeast).Round(time.Second).String()}
	}
	return rules
}

// ruleSections are all parts of the shop's rules. What is in them is the shop's
// business and is written back as it was read.
var ruleSections = []string{"rules", "eligibility", "challenges", "tickets", "rooms"}

// guard puts the storm's rules into force, or with none takes them away. Others'
// stay; if somebody changes them meanwhile, it begins anew.
func (s *shop) guard(rules map[string]any) error {
	const tries = 5
	var err error
	for range tries {
		var now map[string]json.RawMessage
		if err = s.read("GET", s.ops+"/v1/rules", []byte(s.opsToken), nil, &now); err != nil {
			return err
		}
		next := map[string]any{"version": now["version"], "note": "storm rehearsal"}
		for _, section := range ruleSections {
			var all []json.RawMessage
			if raw := now[section]; raw != nil {
				if err := json.Unmarshal(raw, &all); err != nil {
					return err
				}
			}
			kept := []any{}
			for _, raw := range all {
				var entry struct {
					Activity string `json:"activity"`
				}
				if err := json.Unmarshal(raw, &entry); err != nil {
					return err
				}
				if entry.Activity != s.activity {
					kept = append(kept, raw)
				}
			}
			if own := rules[section]; own != nil {
				kept = append(kept, own)
			}
			if len(kept) > 0 || section == "rules" {
				next[section] = kept
			}
		}
		body, failed := json.Marshal(next)
		if failed != nil {
			return failed
		}
		var a answer
		if a, err = s.call("PUT", s.ops+"/v1/rules", []byte(s.opsToken), body); err != nil {
			return err
		}
		if a.ok() {
			return nil
		}
		if err = errorOf("PUT", "/v1/rules", a); a.status != 409 {
			return err
		}
	}
	return err
}
