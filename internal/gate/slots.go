package gate

import "time"

// slots are small numbers for rules, for memories in which a name has no room.
// A rule has one as long as it is in the set, and longer: it is given to another
// rule only when 128 others have come since. So what a number meant can be told
// for a long time, and is never told wrong.
type slots struct {
	next int
	of   [ruleSlots]slot
}

type slot struct {
	rule  string
	since time.Time // zero: nothing else was ever meant by it
}

const ruleSlots = 3 * MaxRules

// take answers the slot of a rule, and gives it one if it has none: the oldest
// that is not of a rule in use, of which there are at most 2 × MaxRules and a
// few: those of the set in force, of the one that is to follow it, and those that
// are always there.
func (s *slots) take(rule string, inUse func(rule string) bool, now time.Time) uint8 {
	for i := range s.of {
		if s.of[i].rule == rule {
			return uint8(i)
		}
	}
	for inUse(s.of[s.next].rule) {
		s.next = (s.next + 1) % ruleSlots
	}
	at := &s.of[s.next]
	if at.rule != "" {
		at.since = now
	}
	at.rule = rule
	number := uint8(s.next)
	s.next = (s.next + 1) % ruleSlots
	return number
}

// name is the rule that a number stood for at a time, "" if it is not known.
func (s *slots) name(number uint8, at time.Time) string {
	if int(number) >= ruleSlots || at.Before(s.of[number].since) {
		return ""
	}
	return s.of[number].rule
}
