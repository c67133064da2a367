package gate

import (
	"fmt"

	"sluice/internal/lib/limit"
)

// RuleSet is all rules at a time: how often shoppers may ask, who may buy, and
// what has to be shown. A request is decided by all that concern it.
type RuleSet struct {
	Version     int64        `json:"version" minimum:"0" doc:"Rises by one with each change, 0: the rules of a new shop. Where rules are saved, the version that they were made from: if they have changed since, the answer is 409"`
	Rules       []Rule       `json:"rules" nullable:"false" maxItems:"64" doc:"How often shoppers may ask"`
	Eligibility []Condition  `json:"eligibility,omitempty" maxItems:"64" doc:"Who may buy"`
	Challenges  []Challenge  `json:"challenges,omitempty" maxItems:"64" doc:"Who has to solve a challenge first"`
	Tickets     []TicketRule `json:"tickets,omitempty" maxItems:"64" doc:"Which activities ask for a one-time ticket"`
	Rooms       []RoomRule   `json:"rooms,omitempty" maxItems:"64" doc:"Which activities have a waiting room"`
}

// each visits the entries of all sections: where one stands, its id, and what is
// wrong with it.
func (s *RuleSet) each(visit func(at, section, id string, field, why string) error) error {
	sections := []struct {
		name, prefix string
		entries      int
		entry        func(i int) (id, field, why string)
	}{
		{"rules", "", len(s.Rules), func(i int) (string, string, string) { f, w := s.Rules[i].fault(); return s.Rules[i].ID, f, w }},
		{"eligibility", eligibilitySection, len(s.Eligibility), func(i int) (string, string, string) {
			f, w := s.Eligibility[i].fault()
			return s.Eligibility[i].ID, f, w
		}},
		{"challenges", challengeSection, len(s.Challenges), func(i int) (string, string, string) {
			f, w := s.Challenges[i].fault()
			return s.Challenges[i].ID, f, w
		}},
		{"tickets", ticketSection, len(s.Tickets), func(i int) (string, string, string) { f, w := s.Tickets[i].fault(); return s.Tickets[i].ID, f, w }},
		{"rooms", roomSection, len(s.Rooms), func(i int) (string, string, string) { f, w := s.Rooms[i].fault(); return s.Rooms[i].ID, f, w }},
	}
	for _, section := range sections {
		for i := range section.entries {
			id, field, why := section.entry(i)
			if err := visit(fmt.Sprintf("%s[%d]", section.name, i), section.prefix, id, field, why); err != nil {
				return err
			}
		}
	}
	return nil
}

// Validate answers the first fault, a *RuleError.
func (s RuleSet) Validate() error {
	seen := map[string]bool{}
	err := s.each(func(at, _, id, field, why string) error {
		switch {
		case why != "":
			return &RuleError{at + "." + field, why}
		case seen[id]:
			return &RuleError{at + ".id", fmt.Sprintf("%q stands twice", id)}
		case len(seen) == MaxRules:
			return &RuleError{"rules", fmt.Sprintf("%d rules of all kinds at most", MaxRules)}
		}
		seen[id] = true
		return nil
	})
	if err == nil {
		err = s.places()
	}
	if err == nil {
		err = s.single()
	}
	if err == nil {
		err = fewMeet(s.Eligibility)
	}
	if err != nil {
		return err
	}
	return s.together()
}

// places bounds the tables of all rules.
func (s *RuleSet) places() error {
	places := 0
	for i, r := range s.Rules {
		if r.Mode == Off {
			continue
		}
		if places += r.places(); places > maxPlaces {
			return &RuleError{fmt.Sprintf("rules[%d].key", i), fmt.Sprintf(
				"this and the rules before need more than %d places for keys; there is room for %d rules by user, ip or phone that are not off",
				maxPlaces, maxPlaces/placesOfPeople)}
		}
	}
	return nil
}

// single: an activity has at most one ticket and one room.
func (s *RuleSet) single() error {
	tickets, rooms := map[string]bool{}, map[string]bool{}
	for i, t := range s.Tickets {
		if t.Mode != Off && tickets[t.Activity] {
			return &RuleError{fmt.Sprintf("tickets[%d].activity", i), fmt.Sprintf("%q has a ticket already", t.Activity)}
		}
		tickets[t.Activity] = tickets[t.Activity] || t.Mode != Off
	}
	for i, r := range s.Rooms {
		if r.Mode != Off && rooms[r.Activity] {
			return &RuleError{fmt.Sprintf("rooms[%d].activity", i), fmt.Sprintf("%q has a waiting room already", r.Activity)}
		}
		rooms[r.Activity] = rooms[r.Activity] || r.Mode != Off
	}
	return nil
}

// together bounds how many rules can meet in one request. Paths are taken to
// overlap.
func (s *RuleSet) together() error {
	type scope struct{ class, activity string }
	met := map[scope]int{}
	for _, r := range s.Rules {
		if r.Mode != Off {
			met[scope{r.Class, r.Activity}]++
		}
	}
	for at, n := range met {
		if at.activity != "" {
			n += met[scope{at.class, ""}]
		}
		if n > limit.MaxGroup {
			return &RuleError{"rules", fmt.Sprintf("%d rules concern %s of activity %q; %d at most can meet in one request", n, at.class, at.activity, limit.MaxGroup)}
		}
	}
	return nil
}

// slotNames are what the set's entries have slots by.
func (s *RuleSet) slotNames() (names []string) {
	_ = s.each(func(_, section, id, _, _ string) error {
		names = append(names, section+id)
		return nil
	})
	return names
}
