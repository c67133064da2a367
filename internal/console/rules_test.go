package console_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
)

const oneRule = `{"id":"user","class":"purchases","key":["user"],"mode":"on","percent":100,"rate":{"algorithm":"token","limit":%d,"per":"1s"}}`

func rulesOf(version, limit int) string {
	return fmt.Sprintf(`{"version":%d,"note":"limit %d","rules":[`+oneRule+`]}`, version, limit, limit)
}

// Rules are read, replaced on the condition of their version, kept, and brought
// back; each change is in the audit log.
func TestRules(t *testing.T) {
	b := newBench(t)
	b.equal(b.want(200, "", "GET", "/v1/rules", ""), "version", 0, "rules.0.id", "user", "rules.0.rate.burst", 5, "counts.0.rule", "user", "counts.0.refused", 0, "at", nil)
	b.equal(b.want(200, "", "PUT", "/v1/rules", rulesOf(0, 3)), "version", 1, "by", "ops", "note", "limit 3", "rules.0.rate.limit", 3, "at", "2025-11-11T10:00:00.000Z")
	b.want(409, "rules_changed", "PUT", "/v1/rules", rulesOf(0, 4))
	b.want(409, "rules_changed", "PUT", "/v1/rules", rulesOf(7, 4))
	b.equal(b.want(200, "", "PUT", "/v1/rules", rulesOf(1, 4)), "version", 2)
	b.equal(b.want(200, "", "PUT", "/v1/rules", `{"version":2,"rules":[]}`), "version", 3, "rules.0", nil, "counts.0", nil)
	b.equal(b.want(200, "", "POST", "/v1/rules/rollback", `{"version":1}`), "version", 4, "rules.0.rate.limit", 3, "note", "rollback to version 1")
	b.want(404, "no_such_rules", "POST", "/v1/rules/rollback", `{"version":9}`)
	b.equal(b.want(200, "", "POST", "/v1/rules/rollback", `{"version":0,"note":"calm"}`), "version", 5, "rules.0.rate.burst", 5, "note", "calm")

	page := b.want(200, "", "GET", "/v1/rules/history?limit=2", "")
	b.equal(page, "versions.0.version", 5, "versions.1.version", 4, "versions.2", nil, "next", 4)
	page = b.want(200, "", "GET", "/v1/rules/history?limit=5&before=4", "")
	b.equal(page, "versions.0.version", 3, "versions.2.version", 1, "versions.2.rules.0.rate.limit", 3, "versions.3", nil, "next", nil)
	b.want(400, "invalid_request", "GET", "/v1/rules/history?limit=101", "")
	log := b.want(200, "", "GET", "/v1/audit?limit=2", "")
	b.equal(log, "entries.0.action", "rules.rollback", "entries.0.subject", "rules/0", "entries.0.detail.note", "calm")
}

// Of two operators who edit the same rules one is told so.
func TestRulesAreNotOverwritten(t *testing.T) {
	b := newBench(t)
	var mu sync.Mutex
	seen := map[int]int{}
	var all sync.WaitGroup
	for i := range 6 {
		all.Go(func() {
			a := b.call("PUT", "/v1/rules", rulesOf(0, i+1))
			mu.Lock()
			seen[a.status]++
			mu.Unlock()
		})
	}
	all.Wait()
	if seen[200] != 1 || seen[409] != 5 {
		t.Errorf("answers by status: %v", seen)
	}
	b.equal(b.want(200, "", "GET", "/v1/rules", ""), "version", 1)
}

func TestRuleFaultsNameTheField(t *testing.T) {
	b := newBench(t)
	f := func(change [2]string, field, say string) {
		t.Helper()
		body := strings.Replace(rulesOf(0, 1), change[0], change[1], 1)
		a := b.want(400, "invalid_request", "PUT", "/v1/rules", body)
		if detail, _ := a.at("detail").(string); a.at("field") != field || !strings.Contains(detail, say) {
			t.Errorf("%v: field %v, %s", change, a.at("field"), a.raw)
		}
	}
	f([2]string{`"limit":1,`, `"limit":0,`}, "rules[0].rate.limit", "1")
	f([2]string{`"1s"`, `"soon"`}, "rules[0].rate.per", "not a duration")
	f([2]string{`"token"`, `"bucket"`}, "rules[0].rate.algorithm", "token")
	f([2]string{`["user"]`, `["name"]`}, "rules[0].key", "phone")
	f([2]string{`"on"`, `"maybe"`}, "rules[0].mode", "shadow")
	f([2]string{`"percent":100,`, ``}, "rules[0].percent", "")
	f([2]string{`"percent":100,`, `"percent":101,`}, "rules[0].percent", "100")
	f([2]string{`"mode"`, `"scope":"fleet","mode"`}, "rules[0].scope", "few keys")
	f([2]string{`"mode"`, `"colour":"red","mode"`}, "rules[0].colour", "")
	b.equal(b.want(200, "", "GET", "/v1/rules", ""), "version", 0)
}

func TestExplain(t *testing.T) {
	b := newBench(t)
	b.want(200, "", "PUT", "/v1/rules", `{"version":0,"rules":[`+fmt.Sprintf(oneRule, 1)+`,
		{"id":"net","class":"purchases","activity":"drop","key":["ip"],"mode":"shadow","percent":100,"rate":{"algorithm":"sliding","limit":2,"per":"10s"}},
		{"id":"reading","class":"reads","key":[],"mode":"off","percent":100,"rate":{"algorithm":"fixed","limit":2,"per":"10s"}}]}`)
	a := b.want(200, "", "POST", "/v1/rules/explain", `{"class":"purchases","activity":"drop","user":"ann","ip":"198.51.100.7"}`)
	b.equal(a, "allowed", true, "version", 1, "rules.0.rule", "user", "rules.0.concerned", true, "rules.0.allowed", true, "rules.0.remaining", 0,
		"rules.1.mode", "shadow", "rules.1.concerned", true, "rules.1.remaining", 1, "rules.2.concerned", false, "rules.2.why", "it is for another class of routes")
	a = b.want(200, "", "POST", "/v1/rules/explain", `{"class":"purchases","user":"ann"}`)
	b.equal(a, "rules.1.concerned", false, "rules.1.why", "it is for another activity")
	a = b.want(200, "", "POST", "/v1/rules/explain", `{"class":"reads"}`)
	b.equal(a, "rules.2.why", "it is off", "allowed", true)
	b.equal(b.want(400, "invalid_request", "POST", "/v1/rules/explain", `{"class":"reads","ip":"here"}`), "field", "ip")
	b.want(400, "invalid_request", "POST", "/v1/rules/explain", `{"class":"all"}`)
}
