package console_test

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/internal/backend/sqlstore"
	"sluice/internal/console"
	"sluice/internal/gate"
)

// shelf fits the store to the playbooks, as the composition does.
type shelf struct{ *sqlstore.Store }

func (s shelf) Shelf(ctx context.Context) (all gate.Shelf, err error) {
	version, body, err := s.PlaybookShelf(ctx)
	if err == nil && version > 0 {
		err = json.Unmarshal(body, &all)
	}
	return all, err
}

func (s shelf) SaveShelf(ctx context.Context, c gate.PlaybookChange, all gate.Shelf) error {
	about, _ := json.Marshal(c)
	body, _ := json.Marshal(all)
	saved, err := s.SavePlaybooks(ctx, sqlstore.PlaybookChange{Version: c.Version, Body: about}, body)
	if err == nil && !saved {
		err = gate.ErrPlaybookChanged
	}
	return err
}

func (s shelf) PlaybookChanges(ctx context.Context, before int64, limit int) ([]gate.PlaybookChange, error) {
	found, err := s.Store.PlaybookChanges(ctx, before, limit)
	all := make([]gate.PlaybookChange, len(found))
	for i, c := range found {
		if err := json.Unmarshal(c.Body, &all[i]); err != nil {
			return nil, err
		}
	}
	return all, err
}

// withPlaybooks serves playbooks over the bench's store.
func withPlaybooks(c *console.Config) {
	c.Playbooks = gate.NewPlaybooks(shelf{c.OrderRows.(*sqlstore.Store)}, gate.NewActive(nil, c.Now()), c.Now)
}

const mine = `{"version":%,"title":"Mine","note":"when it is loud","reason":"tried","steps":[{"stale_detail":"2s","hide_counts":true},{"activity":"drop","read_only_orders":true}]}`

func mineOf(version string) string { return strings.Replace(mine, "%", version, 1) }

// Playbooks are written, looked through, pulled, reverted and deleted; the trail
// and the audit log tell it.
func TestPlaybooks(t *testing.T) {
	b := newBench(t, withPlaybooks)
	b.sale()
	b.equal(b.want(200, "", "GET", "/v1/playbooks", ""), "playbooks.0.id", "calm", "playbooks.0.version", 1, "playbooks.0.pulled", nil, "playbooks.3.id", "tight", "playbooks.4", nil)
	b.want(404, "no_such_playbook", "GET", "/v1/playbooks/mine", "")
	b.equal(b.want(200, "", "PUT", "/v1/playbooks/mine", mineOf("0")), "id", "mine", "version", 1, "steps.1.activity", "drop", "steps.1.read_only_orders", true, "pulled", nil)
	b.want(409, "playbook_changed", "PUT", "/v1/playbooks/mine", mineOf("0"))
	b.equal(b.want(200, "", "GET", "/v1/switches", ""), "switches.0.activity", "", "switches.0.on.stale_detail", nil, "switches.1", nil)

	v := b.want(200, "", "POST", "/v1/playbooks/mine/preview", "")
	b.equal(v, "action", "pull", "activities", 1, "changes.0.activity", "", "changes.0.activities", 0, "changes.0.after.stale_detail", "2s",
		"changes.1.activity", "drop", "changes.1.activities", 1, "changes.1.by.read_only_orders", "playbook:mine", "changes.1.effects.2.to", "on", "unknown", nil)
	b.equal(b.want(200, "", "POST", "/v1/playbooks/mine/preview", `{"action":"revert"}`), "nothing", "it is not pulled", "changes.0", nil)

	b.equal(b.want(200, "", "POST", "/v1/playbooks/mine/pull", `{"reason":"too loud"}`), "pulled.version", 1, "pulled.edited", false, "pulled.reason", "too loud", "pulled.by", "ops", "pulled.at", "2025-11-11T10:00:00.000Z")
	b.equal(b.want(200, "", "POST", "/v1/playbooks/mine/pull", ""), "pulled.reason", "too loud")
	b.want(200, "", "POST", "/v1/playbooks/siege/pull", "")
	b.equal(b.want(200, "", "GET", "/v1/switches", ""), "switches.0.on.stale_detail", "2s", "switches.0.on.captcha", true, "switches.0.by.captcha", "playbook:siege",
		"switches.1.activity", "drop", "switches.1.on.read_only_orders", true, "switches.1.on.limit_percent", 50, "switches.1.by.read_only_orders", "playbook:mine")
	b.equal(b.want(200, "", "PUT", "/v1/playbooks/mine", strings.Replace(mineOf("1"), "2s", "9s", 1)), "version", 2, "steps.0.stale_detail", "9s",
		"pulled.edited", true, "pulled.steps.0.stale_detail", "2s")
	b.equal(b.want(200, "", "GET", "/v1/switches", ""), "switches.0.on.stale_detail", "2s")
	b.want(409, "playbook_pulled", "DELETE", "/v1/playbooks/mine?version=2", "")
	b.equal(b.want(200, "", "POST", "/v1/playbooks/mine/revert", ""), "pulled", nil)
	b.equal(b.want(200, "", "POST", "/v1/playbooks/mine/revert", ""), "pulled", nil)
	b.want(409, "playbook_changed", "DELETE", "/v1/playbooks/mine?version=1", "")
	if a := b.call("DELETE", "/v1/playbooks/mine?version=2&reason=tidy", ""); a.status != 204 || len(a.raw) > 0 {
		t.Errorf("deleting: %d %s", a.status, a.raw)
	}
	b.want(404, "no_such_playbook", "POST", "/v1/playbooks/mine/pull", "")

	page := b.want(200, "", "GET", "/v1/playbooks/history?limit=3", "")
	b.equal(page, "changes.0.action", "deleted", "changes.0.reason", "tidy", "changes.1.action", "reverted", "changes.1.playbook.version", 1, "changes.2.action", "saved", "changes.3", nil, "next", 4)
	page = b.want(200, "", "GET", "/v1/playbooks/history?before=4", "")
	b.equal(page, "changes.0.subject", "siege", "changes.1.action", "pulled", "changes.1.reason", "too loud", "changes.1.by", "ops", "changes.2.action", "saved", "changes.3", nil, "next", nil)
	b.equal(b.want(200, "", "GET", "/v1/audit?limit=1", ""), "entries.0.action", "playbook.pull", "entries.0.subject", "mine")
}

func TestPlaybookFaultsNameTheField(t *testing.T) {
	b := newBench(t, withPlaybooks)
	f := func(path, body, field string) {
		t.Helper()
		b.equal(b.want(400, "invalid_request", "PUT", "/v1/playbooks/"+path, body), "field", field)
	}
	f("mine", strings.Replace(mineOf("0"), "2s", "2h", 1), "steps[0].stale_detail")
	f("mine", strings.Replace(mineOf("0"), `"drop"`, `"a b"`, 1), "steps[1].activity")
	f("mine", strings.Replace(mineOf("0"), `"hide_counts":true`, `"limit_percent":101`, 1), "steps[0].limit_percent")
	f("mine", strings.Replace(mineOf("0"), `"hide_counts"`, `"hide_count"`, 1), "steps[0].hide_count")
	f("mine", `{"version":0,"title":"T","steps":[]}`, "steps")
	f("mine", `{"version":0,"title":"T","steps":[{"activity":"drop"}]}`, "steps[0]")
	f("Mine", mineOf("0"), "id")
	f("history", mineOf("0"), "id")
	b.equal(b.want(400, "invalid_request", "POST", "/v1/freezes", `{"to":"2025-11-11T09:00:00Z","why":"peak"}`), "field", "to")
	b.want(400, "invalid_request", "POST", "/v1/playbooks/calm/preview", `{"action":"push"}`)
	b.want(400, "invalid_request", "DELETE", "/v1/playbooks/calm", "")
}

// override calls with a reason for changing what is frozen.
func (b *bench) override(reason, method, path, body string) answer {
	b.t.Helper()
	return b.send(method, path, body, http.Header{"Authorization": {"Bearer " + token}, "Content-Type": {"application/json"}, "Override-Freeze": {reason}})
}

// While the configuration is frozen nothing of it changes without a reason, and
// all that emergencies need goes on.
func TestFreeze(t *testing.T) {
	b := newBench(t, withPlaybooks)
	b.sale()
	o := b.buy("ann", 1)
	b.pay("ann", o)
	b.equal(b.want(200, "", "GET", "/v1/freezes", ""), "frozen", false, "freezes.0", nil)
	planned := b.want(201, "", "POST", "/v1/freezes", `{"from":"2025-11-11T12:00:00Z","to":"2025-11-11T13:00:00Z","why":"the night"}`)
	peak := b.want(201, "", "POST", "/v1/freezes", `{"to":"2025-11-11T11:00:00Z","why":"the peak"}`)
	b.equal(peak, "from", "2025-11-11T10:00:00.000Z", "by", "ops")
	a := b.want(200, "", "GET", "/v1/freezes", "")
	b.equal(a, "frozen", true, "freezes.0.id", peak.at("id"), "freezes.1.id", planned.at("id"), "freezes.1.why", "the night")
	var list struct{ Forbids []string }
	if err := json.Unmarshal(a.raw, &list); err != nil {
		t.Fatal(err)
	}

	draft := `{"id":"draft","title":"D","items":[{"sku":"CUP","units":1}]}`
	for _, c := range [][4]string{
		{"activity.create", "POST", "/v1/activities", draft},
		{"activity.edit", "PATCH", "/v1/activities/draft", `{"title":"Another"}`},
		{"activity.open", "POST", "/v1/activities/draft/open", ""},
		{"rules.put", "PUT", "/v1/rules", rulesOf(0, 3)},
		{"rules.rollback", "POST", "/v1/rules/rollback", `{"version":0}`},
		{"playbook.put", "PUT", "/v1/playbooks/mine", mineOf("0")},
		{"playbook.delete", "DELETE", "/v1/playbooks/tight?version=1", ""},
	} {
		action := c[0]
		if !slices.Contains(list.Forbids, action) {
			t.Errorf("%s is not said to be forbidden: %v", action, list.Forbids)
		}
		a := b.want(409, "frozen", c[1], c[2], c[3])
		b.equal(a, "until", "2025-11-11T11:00:00.000Z", "why", "the peak")
		if a := b.override("fixing a typo", c[1], c[2], c[3]); a.status/100 != 2 {
			t.Errorf("%s with a reason: %d %s", action, a.status, a.raw)
		}
		log := b.want(200, "", "GET", "/v1/audit?limit=2", "")
		b.equal(log, "entries.0.action", action, "entries.0.detail.override_freeze", "fixing a typo", "entries.0.detail.freeze", peak.at("id"),
			"entries.1.action", action, "entries.1.detail.override_freeze", nil)
	}

	for _, c := range [][3]string{
		{"POST", "/v1/playbooks/calm/pull", ""}, {"POST", "/v1/playbooks/calm/revert", ""}, {"POST", "/v1/playbooks/calm/preview", ""},
		{"POST", "/v1/activities/drop/stock", `{"id":"d1","sku":"CUP","delta":5}`},
		{"POST", "/v1/activities/drop/pause", ""}, {"POST", "/v1/activities/drop/resume", ""}, {"POST", "/v1/activities/drop/drain", ""},
		{"POST", "/v1/orders/" + string(o) + "/fulfil", ""}, {"POST", "/v1/orders/" + string(o) + "/refund", ""},
		{"POST", "/v1/activities/drop/close", ""}, {"POST", "/v1/rules/explain", `{"class":"reads"}`},
	} {
		if a := b.call(c[0], c[1], c[2]); a.at("code") == "frozen" {
			t.Errorf("%s is frozen", c[1])
		}
	}

	if a := b.call("DELETE", "/v1/freezes/"+peak.at("id").(string)+"?reason=over", ""); a.status != 204 {
		t.Fatalf("lifting: %d %s", a.status, a.raw)
	}
	b.want(404, "no_such_freeze", "DELETE", "/v1/freezes/"+peak.at("id").(string), "")
	b.want(200, "", "PUT", "/v1/rules", rulesOf(2, 4))
	b.equal(b.want(200, "", "GET", "/v1/audit?limit=1", ""), "entries.0.detail.override_freeze", nil)
	b.equal(b.want(200, "", "GET", "/v1/playbooks/history?limit=1", ""), "changes.0.action", "freeze_lifted", "changes.0.reason", "over", "changes.0.freeze.why", "the peak")
	b.clock = b.clock.Add(2*time.Hour + time.Minute) // into the planned one
	b.want(409, "frozen", "PUT", "/v1/rules", rulesOf(3, 5))
	b.clock = b.clock.Add(time.Hour)
	b.want(200, "", "PUT", "/v1/rules", rulesOf(3, 5))
}

// Every operation that changes something says in the document whether a freeze
// forbids it, and nothing that an emergency needs does.
func TestWhatAFreezeForbids(t *testing.T) {
	b := newBench(t, withPlaybooks)
	var doc struct {
		Paths map[string]map[string]struct {
			OperationID string
			Parameters  []struct{ Name, In string }
		}
	}
	a := b.send("GET", "/openapi.json", "", http.Header{})
	if err := json.Unmarshal(a.raw, &doc); err != nil {
		t.Fatal(err)
	}
	var got, all []string
	for _, path := range doc.Paths {
		for _, op := range path {
			all = append(all, op.OperationID)
			for _, p := range op.Parameters {
				if p.Name == "Override-Freeze" && p.In == "header" {
					got = append(got, op.OperationID)
				}
			}
		}
	}
	slices.Sort(got)
	var list struct{ Forbids []string }
	if err := json.Unmarshal(b.want(200, "", "GET", "/v1/freezes", "").raw, &list); err != nil {
		t.Fatal(err)
	}
	slices.Sort(list.Forbids)
	if !slices.Equal(got, list.Forbids) {
		t.Errorf("the document says %v, the list %v", got, list.Forbids)
	}
	for _, free := range []string{"playbook.pull", "playbook.revert", "freeze.plan", "freeze.lift", "activity.pause", "activity.resume", "activity.drain",
		"activity.close", "activity.stock", "activity.repair", "order.fulfil", "order.refund", "order.refund.retry", "dead_letter.redrive", "dependency.hold", "dependency.auto", "sku.save"} {
		if slices.Contains(got, free) || !slices.Contains(all, free) {
			t.Errorf("%s is frozen, or is not there", free)
		}
	}
}
