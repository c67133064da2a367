package storm

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// Options of a storm. The tags are the flags of the command line; shares are
// percentages, 0..100.
type Options struct {
	Target   string `help:"Shopper API; several gateways with commas between them, if no front stands before them." default:"http://127.0.0.1:8080"`
	Ops      string `help:"Ops API." default:"http://127.0.0.1:8081"`
	OpsToken string `help:"Bearer token of the ops API; a demo server takes demo." env:"SLUICE_OPS_TOKEN" default:"demo"`
	Data     string `help:"Data directory of the server; the key that signs the users' tokens is read from it." default:"data"`

	Users       int           `help:"Distinct users." default:"10000"`
	Stock       int           `help:"Units on sale, one per user." default:"100"`
	Buckets     int           `help:"Buckets over which the ledger is to spread the units; 0 = as many as the server gives a sale." default:"0"`
	Lag         time.Duration `help:"How long it may take until every gateway, and the ledger, has heard of what was done elsewhere; 0 for a single process." default:"0s"`
	Duration    time.Duration `help:"How long the rush lasts; the tail in which everything is sold off comes on top." default:"20s"`
	Rate        int           `help:"Attempts per second; 0 = three tries per user within the duration, 1000 to 20000." default:"0"`
	Connections int           `help:"Keep-alive connections, and so the most attempts in flight." default:"64"`
	Hold        int           `help:"Seconds a shopper may take to pay." default:"5"`
	Seed        uint64        `help:"Seed of every random choice; 0 = from the clock." default:"0"`

	Pay         float64 `help:"Weight of buyers who pay." default:"70"`
	Abandon     float64 `help:"Weight of buyers who let their reservation expire." default:"15"`
	Cancel      float64 `help:"Weight of buyers who cancel." default:"15"`
	Misbehave   float64 `help:"Percent of payers whose payment goes wrong: taken twice, in the wrong amount, without a word, too late, or not at all; a fifth each." default:"5"`
	DoubleClick float64 `help:"Percent of attempts sent twice at once with the same key." default:"2"`
	Replay      float64 `help:"Percent of buyers who send the same key again later." default:"30"`
	Greedy      float64 `help:"Percent of buyers who try for a second unit." default:"10"`
	Forge       float64 `help:"Percent of attempts accompanied by a forged one, or by a look at somebody else's order." default:"0.5"`
	Lose        float64 `help:"Percent of attempts whose reply is lost; the user retries with the same key." default:"0.5"`

	Bots      float64 `help:"Percent of the users who are bots: many accounts behind an address, at a fixed pace, from before the opening. The others then behave as people do: they think, and each has an address." default:"0"`
	People    bool    `help:"Users behave as people, though there is no bot among them; implied by the other flags of this group."`
	Queue     bool    `help:"A waiting room before the sale, by a rule that is taken away again after the rush."`
	Tickets   bool    `help:"One-time tickets, in the same way."`
	Challenge string  `help:"Challenges, in the same way: always, or of who looks like a bot (suspect)." enum:",always,suspect" default:""`

	Playbook string `help:"Playbook that is pulled for the middle third of the rush, and reverted: the report tells what each third was answered."`

	RestartCmd string `help:"Shell command run half-way that kills the server and starts it again."`
	Steps      bool   `help:"Raise the rate step by step until p99 passes 200 ms or errors 1%, and report the knee."`
	JSON       bool   `help:"Print the report as JSON." name:"json"`

	Linearize time.Duration `help:"Longest that the check of the recorded history for linearizability may take for one SKU or user; 0 = no check." default:"60s"`
	History   string        `help:"File for the recorded history, as JSON lines."`
	Drawing   string        `help:"File for a page that draws the checked history, or where it is wrong."`

	// Supervisor, if not nil, kills and restarts the server during the rush, in
	// place of RestartCmd.
	Supervisor Supervisor `kong:"-" json:"-"`

	// Solve answers a challenge of the shop, as people do who look at its picture;
	// nil: nobody can. It takes what only who has the shop's secrets knows.
	Solve func(challenge, activity, user string) (answer int, ok bool) `kong:"-" json:"-"`

	// Orders reads the store's own rows for the audit, beside the API's list
	// of them; nil = the API only.
	Orders OrderReader `kong:"-" json:"-"`
}

// Bounds of a storm.
const (
	maxUsers       = 5_000_000
	maxStock       = 5_000_000
	maxRate        = 1_000_000
	maxConnections = 10_000
	maxBuckets     = 256
	maxLag         = 10 * time.Second
)

// targets are the addresses of the shopper API, without a slash at their end.
func (o *Options) targets() (all []string) {
	for _, target := range strings.Split(o.Target, ",") {
		all = append(all, trimSlash(target))
	}
	return all
}

// Validate names every fault at once, and fills in what 0 means.
func (o *Options) Validate() error {
	var faults []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	between := func(name string, v, low, high int) {
		check(v >= low && v <= high, "--%s %d is not in %d..%d", name, v, low, high)
	}
	address := func(name, raw string) {
		u, err := url.Parse(raw)
		check(err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && (u.Path == "" || u.Path == "/"),
			"--%s %q is not http://host:port", name, raw)
	}
	percent := func(name string, v float64) {
		check(v >= 0 && v <= 100, "--%s %g is not in 0..100", name, v)
	}
	for _, target := range strings.Split(o.Target, ",") {
		address("target", target)
	}
	address("ops", o.Ops)
	between("users", o.Users, 1, maxUsers)
	between("stock", o.Stock, 1, maxStock)
	between("buckets", o.Buckets, 0, maxBuckets)
	check(o.Lag >= 0 && o.Lag <= maxLag, "--lag %s is not in 0s..%s", o.Lag, maxLag)
	between("rate", o.Rate, 0, maxRate)
	between("connections", o.Connections, 1, maxConnections)
	between("hold", o.Hold, 1, 3600)
	check(o.Linearize >= 0 && o.Linearize <= time.Hour, "--linearize %s is not in 0s..1h", o.Linearize)
	check(o.Drawing == "" || o.Linearize > 0, "--drawing needs --linearize")
	check(!o.Steps || o.History == "" && o.Drawing == "", "--steps records no history")
	check(o.Duration >= time.Second && o.Duration <= 24*time.Hour, "--duration %s is not in 1s..24h", o.Duration)
	percent("pay", o.Pay)
	percent("abandon", o.Abandon)
	percent("cancel", o.Cancel)
	percent("misbehave", o.Misbehave)
	percent("double-click", o.DoubleClick)
	percent("replay", o.Replay)
	percent("greedy", o.Greedy)
	percent("forge", o.Forge)
	percent("lose", o.Lose)
	percent("bots", o.Bots)
	check(o.Challenge == "" || o.Challenge == "always" || o.Challenge == "suspect", "--challenge %q is neither always nor suspect", o.Challenge)
	check(!o.Steps || o.Playbook == "", "--steps pulls no playbook")
	check(len(o.Playbook) <= 40, "--playbook: an id has at most 40 characters")
	check(!o.Steps || !o.profiled(), "--steps raises the rate of a schedule, which people and bots do not have")
	check(o.Pay > 0, "--pay 0: without payers nothing is ever sold")
	if len(faults) > 0 {
		return errors.Join(faults...)
	}
	if o.Rate == 0 {
		o.Rate = min(max(int(3*float64(o.Users)/o.Duration.Seconds()), 1000), 20_000)
	}
	if o.Seed == 0 {
		o.Seed = uint64(time.Now().UnixNano())
	}
	return nil
}
