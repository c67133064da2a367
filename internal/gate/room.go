package gate

import (
	"fmt"
	"time"

	"sluice/internal/stock"
)

// RoomRule puts a waiting room before an activity: whoever wants to buy waits
// for a call, and shows the pass he then gets.
type RoomRule struct {
	ID       string  `json:"id" pattern:"^[a-z0-9][a-z0-9_-]{0,39}$"`
	Activity string  `json:"activity" minLength:"1" maxLength:"64"`
	Mode     string  `json:"mode" enum:"on,shadow,off" doc:"shadow: the room is there, and purchases are not asked for its pass"`
	Opens    string  `json:"opens,omitempty" doc:"How long before the opening of the sale people may come in; the order among those who do is drawn at the opening. 0s to 720h, by default 10m" example:"10m"`
	Pass     string  `json:"pass,omitempty" doc:"How long whoever is called may take to buy, 10s to 1h, by default 2m"`
	Absent   string  `json:"absent,omitempty" doc:"Whoever has not asked for his place for so long is passed over, 10s to 10m, by default 30s"`
	Most     int     `json:"most,omitempty" minimum:"0" maximum:"2000000" doc:"People let in, 0: 1,000,000"`
	Rate     float64 `json:"rate,omitempty" minimum:"0" maximum:"50000" doc:"People called in a second at most, 0: as the shop is measured to serve"`
}

// Defaults of a room.
const (
	defaultOpens  = 10 * time.Minute
	defaultPass   = 2 * time.Minute
	defaultAbsent = 30 * time.Second
	defaultMost   = 1_000_000
)

// Room is a valid RoomRule with its defaults.
type Room struct {
	Opens, Pass, Absent time.Duration
	Most                int
	Rate                float64
}

// Room answers the room of a valid rule.
func (r *RoomRule) Room() Room {
	room := Room{defaultOpens, defaultPass, defaultAbsent, defaultMost, r.Rate}
	for _, f := range []struct {
		text string
		to   *time.Duration
	}{{r.Opens, &room.Opens}, {r.Pass, &room.Pass}, {r.Absent, &room.Absent}} {
		if f.text != "" {
			*f.to, _ = time.ParseDuration(f.text)
		}
	}
	if r.Most > 0 {
		room.Most = r.Most
	}
	return room
}

// fault answers the field that is wrong and why, or nothing.
func (r *RoomRule) fault() (field, why string) {
	switch {
	case !validRuleID(r.ID):
		return "id", wrongID
	case r.Activity == "" || len(r.Activity) > stock.MaxID || !printable(r.Activity):
		return "activity", "must be the id of an activity"
	case r.Mode != On && r.Mode != Shadow && r.Mode != Off:
		return "mode", fmt.Sprintf("%q is none of on, shadow, off", r.Mode)
	case r.Most < 0 || r.Most > 2_000_000:
		return "most", fmt.Sprintf("%d is not in 0..2000000", r.Most)
	case !(r.Rate >= 0 && r.Rate <= 50_000):
		return "rate", fmt.Sprintf("%v is not in 0..50000", r.Rate)
	}
	for _, f := range []struct {
		field, text string
		least, most time.Duration
	}{
		{"opens", r.Opens, 0, 720 * time.Hour},
		{"pass", r.Pass, 10 * time.Second, time.Hour},
		{"absent", r.Absent, 10 * time.Second, 10 * time.Minute},
	} {
		if why := durationFault(f.text, f.least, f.most); why != "" {
			return f.field, why
		}
	}
	return "", ""
}

// durationFault answers what is wrong with a duration; "" stands for a default.
func durationFault(text string, least, most time.Duration) string {
	if text == "" {
		return ""
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return fmt.Sprintf("%q is not a duration such as 500ms, 30s or 24h", text)
	}
	if d < least || d > most {
		return fmt.Sprintf("%s is not in %s..%s", d, least, most)
	}
	return ""
}
