package gate

import (
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"

	"sluice/internal/stock"
)

// Playbook is a prepared, named set of switches that an operator can pull.
type Playbook struct {
	ID      string         `json:"id"`
	Version int64          `json:"version"` // 1 when it is new, rises by one with each edit
	Title   string         `json:"title"`
	Note    string         `json:"note,omitempty"` // when to pull it, and what shoppers then see
	Steps   []PlaybookStep `json:"steps" nullable:"false"`
}

// PlaybookStep turns switches on, for one activity or for all.
type PlaybookStep struct {
	Activity string `json:"activity,omitempty" maxLength:"64" doc:"Only this one; absent: every activity"`
	Switches
}

// Pulled is a playbook in force. Its steps are those that it had when it was
// pulled: what an operator has looked at and pulled does not change under a
// running sale because somebody edits the playbook. Only revert and pull again
// takes the new steps.
type Pulled struct {
	Playbook string         `json:"playbook"`
	Version  int64          `json:"version"` // of the playbook then
	Title    string         `json:"title"`
	Steps    []PlaybookStep `json:"steps"`
	At       stock.Millis   `json:"at"`
	By       string         `json:"by"` // an operator
	Note     string         `json:"note,omitempty"`
}

// Bounds of playbooks.
const (
	MaxPlaybooks = 100
	MaxSteps     = 20
	maxTitle     = 100 // characters
	maxNote      = 500
)

var (
	// ErrNoSuchPlaybook: no playbook has this id.
	ErrNoSuchPlaybook = errors.New("no such playbook")
	// ErrPlaybookChanged: somebody has changed the playbook since it was read.
	ErrPlaybookChanged = errors.New("the playbook has been changed since")
	// ErrPlaybookPulled: a playbook in force cannot be deleted.
	ErrPlaybookPulled = errors.New("the playbook is pulled: revert it first")
)

// Validate answers the first fault, a *RuleError with the field in JSON.
func (p *Playbook) Validate() error {
	switch {
	case !validRuleID(p.ID):
		return &RuleError{"id", wrongID}
	case p.ID == "history": // of all playbooks is at this address
		return &RuleError{"id", `must not be "history"`}
	case p.Title == "" || !textOf(p.Title, maxTitle):
		return &RuleError{"title", fmt.Sprintf("must have 1 to %d characters", maxTitle)}
	case !textOf(p.Note, maxNote):
		return &RuleError{"note", fmt.Sprintf("must have at most %d characters", maxNote)}
	}
	return validSteps(p.Steps)
}

// textOf says whether s is text of at most so many characters.
func textOf(s string, most int) bool { return utf8.ValidString(s) && utf8.RuneCountInString(s) <= most }

func validSteps(steps []PlaybookStep) error {
	if len(steps) < 1 || len(steps) > MaxSteps {
		return &RuleError{"steps", fmt.Sprintf("must be 1 to %d", MaxSteps)}
	}
	for i := range steps {
		s := &steps[i]
		at := func(field, why string) error { return &RuleError{fmt.Sprintf("steps[%d].%s", i, field), why} }
		if s.Activity != "" && (len(s.Activity) > stock.MaxID || !printable(s.Activity)) {
			return at("activity", "must be the id of an activity")
		}
		if slices.ContainsFunc(steps[:i], func(other PlaybookStep) bool { return other.Activity == s.Activity }) {
			return at("activity", fmt.Sprintf("%q has a step already", s.Activity))
		}
		if field, why := s.Switches.fault(); why != "" {
			return at(field, why)
		}
		if s.Activity != "" && s.LimitPercent > 0 {
			return at("limit_percent", "rules, and not activities, have rates: it belongs into a step without activity")
		}
		if s.Switches == (Switches{}) {
			return &RuleError{fmt.Sprintf("steps[%d]", i), "turns nothing on"}
		}
	}
	return nil
}

// DefaultPlaybooks are those of a new shop: examples that can be pulled as they
// are. From first to last they ask more of shoppers.
func DefaultPlaybooks() []Playbook {
	one := func(id, title, note string, s Switches) Playbook {
		return Playbook{ID: id, Version: 1, Title: title, Note: note, Steps: []PlaybookStep{{Switches: s}}}
	}
	return []Playbook{
		one("calm", "Serve pages from memory",
			"The processor is busy with pages. Levels are up to 2 s old; buying is as ever.",
			Switches{StaleDetail: "2s", HideCounts: true}),
		one("readonly", "Orders can only be read",
			"The store or the provider is in trouble or in maintenance. Nothing is sold, paid or cancelled; what is held runs out all the same.",
			Switches{ReadOnlyOrders: true}),
		one("siege", "Let people in one by one",
			"Programs, or far more people than units. Everybody solves a challenge and waits for a call; rates are halved.",
			Switches{Captcha: true, Queue: true, LimitPercent: 50}),
		one("tight", "Slow the rush",
			"More attempts than the ledger or the network can take. Whatever is left is told as few; rates are halved.",
			Switches{StockTight: true, LimitPercent: 50}),
	}
}

// Shelf is all playbooks, what of them is pulled, and the freezes, at a time.
type Shelf struct {
	Version   int64      `json:"version"`   // number of the change that made it so; 0: a new shop
	Playbooks []Playbook `json:"playbooks"` // by id
	Pulled    []Pulled   `json:"pulled"`    // in the order in which they were pulled
	Freezes   []Freeze   `json:"freezes"`   // by when they begin; those that are long over go with the next change
}

// Playbook finds one by its id, or answers ErrNoSuchPlaybook.
func (s *Shelf) Playbook(id string) (*Playbook, error) {
	if i := slices.IndexFunc(s.Playbooks, func(p Playbook) bool { return p.ID == id }); i >= 0 {
		return &s.Playbooks[i], nil
	}
	return nil, fmt.Errorf("%w: %s", ErrNoSuchPlaybook, id)
}

// PulledOf answers how a playbook is pulled, nil where it is not.
func (s *Shelf) PulledOf(id string) *Pulled {
	if i := s.pulledAt(id); i >= 0 {
		return &s.Pulled[i]
	}
	return nil
}

func (s *Shelf) pulledAt(id string) int {
	return slices.IndexFunc(s.Pulled, func(p Pulled) bool { return p.Playbook == id })
}

// copied can be changed without changing s. What is in playbooks is never
// changed, only replaced.
func (s *Shelf) copied() *Shelf {
	return &Shelf{s.Version, slices.Clone(s.Playbooks), slices.Clone(s.Pulled), slices.Clone(s.Freezes)}
}
