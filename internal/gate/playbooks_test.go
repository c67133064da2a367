package gate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/internal/stock"
)

// drawer stands for the store at the playbooks' own interface, so that it can
// be away or changed by somebody else; the real one is behind it in the console's
// tests.
type drawer struct {
	shelf   Shelf
	changes []PlaybookChange
	away    error
	rivals  int // changes that others make just before the next ones that are saved
}

func (d *drawer) PlaybooksVersion(context.Context) (int64, error) { return d.shelf.Version, d.away }
func (d *drawer) Shelf(context.Context) (Shelf, error)            { return d.shelf, d.away }

func (d *drawer) SaveShelf(_ context.Context, c PlaybookChange, s Shelf) error {
	if d.away == nil && d.rivals > 0 {
		d.rivals--
		if d.shelf.Version == 0 {
			d.shelf.Playbooks = DefaultPlaybooks()
		}
		d.shelf.Version++
		d.changes = append(d.changes, PlaybookChange{Version: d.shelf.Version, Subject: "rival"})
	}
	if d.away == nil && c.Version != d.shelf.Version+1 {
		return ErrPlaybookChanged
	}
	if d.away == nil {
		d.shelf, d.changes = s, append(d.changes, c)
	}
	return d.away
}

func (d *drawer) PlaybookChanges(_ context.Context, before int64, limit int) (page []PlaybookChange, err error) {
	for _, c := range slices.Backward(d.changes) {
		if (before == 0 || c.Version < before) && len(page) < limit {
			page = append(page, c)
		}
	}
	return page, d.away
}

func newPlaybooks(d *drawer) *Playbooks {
	return NewPlaybooks(d, NewActive(nil, noon), func() time.Time { return noon })
}

// told are the actions of the trail, oldest first.
func (d *drawer) told() string {
	var all []string
	for _, c := range d.changes {
		all = append(all, string(c.Action)+" "+c.Subject)
	}
	return strings.Join(all, ", ")
}

func TestDefaultPlaybooksAreValid(t *testing.T) {
	all := DefaultPlaybooks()
	if len(all) < 3 || !slices.IsSortedFunc(all, func(a, b Playbook) int { return strings.Compare(a.ID, b.ID) }) {
		t.Errorf("%d, or not in order", len(all))
	}
	for _, p := range all {
		if err := p.Validate(); err != nil {
			t.Errorf("%s: %v", p.ID, err)
		}
	}
}

// Pulling and reverting can be repeated, several are pulled at once, and every
// process follows.
func TestPullAndRevert(t *testing.T) {
	d, ctx := &drawer{}, t.Context()
	here, there := newPlaybooks(d), newPlaybooks(d)
	both := func(want Switches) {
		t.Helper()
		if _, err := there.Step(ctx); err != nil {
			t.Error(err)
		}
		for _, p := range []*Playbooks{here, there} {
			if got := p.Active.Of("drop").Switches(); got != want {
				t.Errorf("%+v, want %+v", got, want)
			}
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	both(Switches{})
	first, err := here.Pull(ctx, "calm", "ops", "pages are slow")
	must(err)
	again, err := there.Pull(ctx, "calm", "else", "")
	must(err)
	if again.By != "ops" || again.At != first.At || again.Note != "pages are slow" || len(d.changes) != 1 {
		t.Errorf("pulled again: %+v, %s", again, d.told())
	}
	both(Switches{StaleDetail: "2s", HideCounts: true})
	_, err = there.Pull(ctx, "tight", "ops", "")
	must(err)
	must(here.Revert(ctx, "siege", "ops", "not pulled at all"))
	both2 := Switches{StaleDetail: "2s", HideCounts: true, StockTight: true, LimitPercent: 50}
	_, _ = here.Step(ctx)
	both(both2)
	must(here.Revert(ctx, "calm", "ops", ""))
	must(here.Revert(ctx, "calm", "ops", ""))
	both(Switches{StockTight: true, LimitPercent: 50})
	if _, err := here.Pull(ctx, "nowhere", "ops", ""); !errors.Is(err, ErrNoSuchPlaybook) {
		t.Errorf("none of that name: %v", err)
	}
	if err := here.Revert(ctx, "nowhere", "ops", ""); !errors.Is(err, ErrNoSuchPlaybook) {
		t.Errorf("none of that name: %v", err)
	}
	if got := d.told(); got != "pulled calm, pulled tight, reverted calm" {
		t.Errorf("the trail: %s", got)
	}
	page, err := here.History(ctx, 3, 1)
	if err != nil || len(page) != 1 || page[0].Subject != "tight" || page[0].By != "ops" || page[0].Playbook.Steps[0].LimitPercent != 50 {
		t.Errorf("a page of it: %+v, %v", page, err)
	}
}

// A pulled playbook stays as it was pulled, whatever becomes of its definition.
func TestPulledKeepsItsSteps(t *testing.T) {
	d, ctx := &drawer{}, t.Context()
	p := newPlaybooks(d)
	f := func(err, want error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
	}
	mine := Playbook{ID: "mine", Title: "Mine", Steps: []PlaybookStep{step("drop", Switches{Captcha: true})}}
	saved, err := p.Save(ctx, mine, "ops", "")
	f(err, nil)
	if saved.Version != 1 {
		t.Errorf("version %d", saved.Version)
	}
	_, err = p.Save(ctx, mine, "ops", "a second new one")
	f(err, ErrPlaybookChanged)
	_, err = p.Pull(ctx, "mine", "ops", "")
	f(err, nil)
	saved.Steps[0].Activity = "else"
	_, err = p.Save(ctx, saved, "ops", "")
	f(err, nil)
	_, err = p.Save(ctx, saved, "ops", "from what was")
	f(err, ErrPlaybookChanged)
	if !p.Active.Of("drop").Captcha || p.Active.Of("else").Captcha {
		t.Error("an edit has changed what is pulled")
	}
	v, err := p.Preview(ctx, "mine", false, nil)
	f(err, nil)
	if !strings.Contains(v.Nothing, "version 1") || !strings.Contains(v.Nothing, "version 2") {
		t.Errorf("pulling it again: %+v", v)
	}
	f(p.Delete(ctx, "mine", 2, "ops", ""), ErrPlaybookPulled)
	f(p.Revert(ctx, "mine", "ops", ""), nil)
	if c := d.changes[len(d.changes)-1]; c.Playbook.Version != 1 || c.Playbook.Steps[0].Activity != "drop" {
		t.Errorf("the trail tells another playbook than was reverted: %+v", c.Playbook)
	}
	_, err = p.Pull(ctx, "mine", "ops", "")
	f(err, nil)
	if p.Active.Of("drop").Captcha || !p.Active.Of("else").Captcha {
		t.Error("pulled anew it has its old steps")
	}
	f(p.Revert(ctx, "mine", "ops", ""), nil)
	f(p.Delete(ctx, "mine", 1, "ops", ""), ErrPlaybookChanged)
	f(p.Delete(ctx, "mine", 2, "ops", ""), nil)
	f(p.Delete(ctx, "mine", 2, "ops", ""), ErrNoSuchPlaybook)
}

func TestPlaybookFaults(t *testing.T) {
	f := func(field string, change func(*Playbook)) {
		t.Helper()
		p := Playbook{ID: "p", Title: "P", Steps: []PlaybookStep{step("", Switches{Captcha: true}), step("a", Switches{Queue: true})}}
		if err := p.Validate(); err != nil {
			t.Fatal(err)
		}
		change(&p)
		bad, ok := errors.AsType[*RuleError](p.Validate())
		if !ok || bad.Field != field {
			t.Errorf("%v, want a fault of %s", bad, field)
		}
	}
	f("id", func(p *Playbook) { p.ID = "P" })
	f("id", func(p *Playbook) { p.ID = "history" })
	f("title", func(p *Playbook) { p.Title = "" })
	f("title", func(p *Playbook) { p.Title = strings.Repeat("x", 101) })
	f("note", func(p *Playbook) { p.Note = strings.Repeat("x", 501) })
	f("note", func(p *Playbook) { p.Note = "\xff" })
	f("steps", func(p *Playbook) { p.Steps = nil })
	f("steps", func(p *Playbook) {
		p.Steps = nil
		for i := range MaxSteps + 1 {
			p.Steps = append(p.Steps, step(fmt.Sprint(i), Switches{Queue: true}))
		}
	})
	f("steps[1].activity", func(p *Playbook) { p.Steps[1].Activity = "" })
	f("steps[1].activity", func(p *Playbook) { p.Steps[1].Activity = "a b" })
	f("steps[0]", func(p *Playbook) { p.Steps[0].Captcha = false })
	f("steps[0].stale_detail", func(p *Playbook) { p.Steps[0].StaleDetail = "soon" })
	f("steps[0].stale_detail", func(p *Playbook) { p.Steps[0].StaleDetail = "61s" })
	f("steps[0].stale_detail", func(p *Playbook) { p.Steps[0].StaleDetail = "-1s" })
	f("steps[0].limit_percent", func(p *Playbook) { p.Steps[0].LimitPercent = 101 })
	f("steps[0].limit_percent", func(p *Playbook) { p.Steps[0].LimitPercent = -1 })
	f("steps[1].limit_percent", func(p *Playbook) { p.Steps[1].LimitPercent = 50 })
}

func TestPlaybooksAreBounded(t *testing.T) {
	d := &drawer{}
	p := newPlaybooks(d)
	for i := range MaxPlaybooks - len(DefaultPlaybooks()) {
		if _, err := p.Save(t.Context(), Playbook{ID: fmt.Sprint("p", i), Title: "P", Steps: DefaultPlaybooks()[0].Steps}, "ops", ""); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := p.Save(t.Context(), Playbook{ID: "more", Title: "P", Steps: DefaultPlaybooks()[0].Steps}, "ops", ""); !errors.Is(err, ErrRules) {
		t.Errorf("one more: %v", err)
	}
}

// While the store is away what is pulled stays pulled, and an edit that others
// get ahead of begins anew.
func TestPlaybooksAndTheirStore(t *testing.T) {
	d, ctx := &drawer{rivals: 3}, t.Context()
	p := newPlaybooks(d)
	if _, err := p.Pull(ctx, "readonly", "ops", ""); err != nil || d.shelf.Version != 4 {
		t.Fatalf("%v, %s", err, d.told())
	}
	d.away = errors.New("the store is away")
	if _, err := p.Step(ctx); err == nil {
		t.Error("no error of a store that is away")
	}
	if err := p.Revert(ctx, "readonly", "ops", ""); err == nil || !p.Active.Of("x").ReadOnlyOrders {
		t.Errorf("reverted without a store: %v", err)
	}
	if _, err := p.Frozen(ctx); err == nil {
		t.Error("without a store it is not known whether there is a freeze")
	}
	d.away = nil
	d.shelf.Version++
	d.shelf.Pulled = []Pulled{book("new", step("", Switches{StaleDetail: "of a later program"}))}
	if _, err := p.Step(ctx); err == nil || !p.Active.Of("x").ReadOnlyOrders {
		t.Errorf("what cannot be read is in force: %v", err)
	}
	d.rivals = maxTries + 1
	d.shelf.Pulled = nil
	if _, err := p.Pull(ctx, "calm", "ops", ""); !errors.Is(err, ErrPlaybookChanged) {
		t.Errorf("overtaken for ever: %v", err)
	}
}

func TestPreview(t *testing.T) {
	d, ctx := &drawer{}, t.Context()
	p := newPlaybooks(d)
	mine := Playbook{ID: "mine", Title: "Mine", Steps: []PlaybookStep{
		step("", Switches{StaleDetail: "5s"}), step("drop", Switches{ReadOnlyOrders: true}), step("dorp", Switches{ReadOnlyOrders: true})}}
	if _, err := p.Save(ctx, mine, "ops", ""); err != nil {
		t.Fatal(err)
	}
	look := func(id string, revert bool, nothing string, activities, changes int) Preview {
		t.Helper()
		was := d.told()
		v, err := p.Preview(ctx, id, revert, []string{"drop", "one", "two"})
		if err != nil || v.Nothing != nothing || v.Activities != activities || len(v.Changes) != changes {
			t.Errorf("%s: %v, %+v", id, err, v)
		}
		if d.told() != was {
			t.Error("a preview has changed something")
		}
		return v
	}
	v := look("mine", false, "", 3, 3)
	if c := v.Changes[0]; c.Activity != "" || c.Activities != 2 || c.Before != (Switches{}) || c.After != (Switches{StaleDetail: "5s"}) || len(c.Effects) != 1 || c.Effects[0].To != "5s" {
		t.Errorf("for all: %+v", c)
	}
	if c := v.Changes[2]; c.Activity != "drop" || c.Activities != 1 || c.By["read_only_orders"] != "playbook:mine" || len(c.Effects) != 2 || len(c.Effects[1].Routes) != 3 {
		t.Errorf("for one: %+v", c)
	}
	if len(v.Unknown) != 1 || v.Unknown[0] != "dorp" {
		t.Errorf("unknown: %v", v.Unknown)
	}
	look("calm", true, "it is not pulled", 0, 0)
	if _, err := p.Pull(ctx, "mine", "ops", ""); err != nil {
		t.Fatal(err)
	}
	look("mine", false, "it is pulled", 0, 0)
	if v := look("mine", true, "", 3, 3); v.Action != "revert" || v.Changes[0].Effects[0].From != "5s" || v.Changes[0].Effects[0].To != "off" {
		t.Errorf("reverting: %+v", v)
	}
	less := Playbook{ID: "less", Title: "Less", Steps: []PlaybookStep{step("", Switches{StaleDetail: "1s"})}}
	if _, err := p.Save(ctx, less, "ops", ""); err != nil {
		t.Fatal(err)
	}
	look("less", false, "other playbooks that are pulled say the same, or more", 0, 0)
	if _, err := p.Preview(ctx, "nowhere", false, nil); !errors.Is(err, ErrNoSuchPlaybook) {
		t.Errorf("none of that name: %v", err)
	}
	for s := range switches {
		if e := effects[s]; len(e.Routes) == 0 || e.Means == "" {
			t.Errorf("nothing is said about %s", s)
		}
	}
}

func TestFreezes(t *testing.T) {
	d, ctx, now := &drawer{}, t.Context(), noon
	p := NewPlaybooks(d, NewActive(nil, noon), func() time.Time { return now })
	plan := func(from, to time.Duration) Freeze {
		t.Helper()
		at := p.moment()
		f, err := p.Freeze(ctx, Freeze{From: at + stock.Millis(from.Milliseconds()), To: at + stock.Millis(to.Milliseconds()), Why: "peak", By: "ops"})
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	frozen := func(want string) {
		t.Helper()
		f, err := p.Frozen(ctx)
		if err != nil || (f == nil) != (want == "") || f != nil && f.ID != want {
			t.Errorf("frozen by %+v, %v; want %q", f, err, want)
		}
	}
	frozen("")
	a, b := plan(0, time.Hour), plan(30*time.Minute, 2*time.Hour)
	frozen(a.ID)
	now = now.Add(40 * time.Minute)
	frozen(b.ID) // it ends later
	if _, err := p.Pull(ctx, "calm", "ops", ""); err != nil {
		t.Errorf("pulling in a freeze: %v", err)
	}
	if err := p.Lift(ctx, b.ID, "ops", "all is well"); err != nil {
		t.Error(err)
	}
	frozen(a.ID)
	now = now.Add(20 * time.Minute) // the moment that it ends
	frozen("")
	for _, id := range []string{a.ID, b.ID, "f99"} { // over, lifted, never there
		if err := p.Lift(ctx, id, "ops", ""); !errors.Is(err, ErrNoSuchFreeze) {
			t.Errorf("%s: %v", id, err)
		}
	}
	if got := d.told(); got != "freeze_planned f1, freeze_planned f2, pulled calm, freeze_lifted f2" {
		t.Errorf("the trail: %s", got)
	}
	fault := func(field string, f Freeze) {
		t.Helper()
		_, err := p.Freeze(ctx, f)
		if bad, ok := errors.AsType[*RuleError](err); !ok || bad.Field != field {
			t.Errorf("%+v: %v", f, err)
		}
	}
	at := p.moment()
	fault("to", Freeze{From: at + 5, To: at + 5, Why: "peak"})
	fault("to", Freeze{From: at - 9, To: at, Why: "peak"})
	fault("to", Freeze{To: at + stock.Millis(maxFrozen.Milliseconds()) + 1, Why: "peak"})
	fault("why", Freeze{To: at + 5})
	for range MaxFreezes {
		plan(time.Hour, 2*time.Hour)
	}
	fault("from", Freeze{To: at + 5, Why: "one more"})
	now = now.Add(3 * time.Hour)
	plan(0, time.Hour) // the others are over
	if n := len(p.Shelf().Freezes); n != 1 {
		t.Errorf("%d are kept", n)
	}
}
