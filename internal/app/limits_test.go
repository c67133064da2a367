package app_test

import (
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/test/servers"
)

// ruleOf is one rule as operators write it.
func ruleOf(id, class, key string, limit int, per string) string {
	return fmt.Sprintf(`{"id":%q,"class":%q,"key":[%s],"mode":"on","percent":100,"rate":{"algorithm":"token","limit":%d,"per":%q}}`, id, class, key, limit, per)
}

func (s *server) rule(version int, rules ...string) {
	s.t.Helper()
	s.operate(200, "PUT", "/v1/rules", fmt.Sprintf(`{"version":%d,"rules":[%s]}`, version, strings.Join(rules, ",")))
}

// A shopper who presses too often is told so, by whom, and the operator too; and
// the receipt of an earlier press is given all the same.
func TestKnownKeyPassesAnExhaustedLimit(t *testing.T) {
	s := start(t, config(t.TempDir()))
	s.sell("cup", 10, "")
	s.rule(0, ruleOf("hourly", "purchases", `"user"`, 2, "1h"))
	_, _, first := s.buy("cup", "ann", "k1", 1)
	if first["state"] != "held" {
		t.Fatalf("%v", first)
	}
	s.buy("cup", "ann", "k2", 1)
	for range 3 {
		status, header, v := s.buy("cup", "ann", "k3", 1)
		if status != 429 || v["code"] != "rate_limited" || v["rule"] != "hourly" || header.Get("Retry-After") == "" || header.Get("RateLimit-Policy") != `"hourly";q=2;w=3600` {
			t.Errorf("%d %v %v", status, v, header)
		}
		if status, _, again := s.buy("cup", "ann", "k1", 1); status != 202 || again["reservation"] != first["reservation"] {
			t.Errorf("the known key: %d %v", status, again)
		}
	}
	last := s.operate(200, "GET", "/v1/activities/cup/trail/users/ann", "")["last_refusal"].(map[string]any)
	if last["code"] != "rate_limited" || last["rule"] != "hourly" {
		t.Errorf("trail: %v", last)
	}
	why := s.operate(200, "POST", "/v1/rules/explain", `{"class":"purchases","activity":"cup","user":"ann"}`)
	if why["allowed"] != false || why["refuses"] != "hourly" {
		t.Errorf("explained: %v", why)
	}
	counts := s.operate(200, "GET", "/v1/rules", "")["counts"].([]any)[0].(map[string]any)
	if counts["refused"] != 3.0 || counts["allowed"] != 2.0 {
		t.Errorf("counts: %v", counts)
	}
	if text := s.metrics(); !strings.Contains(text, `sluice_rule_decisions_total{decision="refused",rule="hourly"} 3`) || !strings.Contains(text, "sluice_rules_version 1") {
		t.Errorf("metrics: %s", text)
	}
	// Everybody else is served, and an edit gives nothing back.
	if status, _, v := s.buy("cup", "bob", "k", 1); status != 202 {
		t.Errorf("bob: %d %v", status, v)
	}
	s.rule(1, ruleOf("hourly", "purchases", `"user"`, 2, "2h"))
	if status, _, _ := s.buy("cup", "ann", "k4", 1); status != 429 {
		t.Errorf("after an edit: %d", status)
	}
	s.operate(409, "PUT", "/v1/rules", `{"version":1,"rules":[]}`)
	s.rule(2)
	if status, _, v := s.buy("cup", "ann", "k5", 1); v["code"] != "limit_reached" {
		t.Errorf("without a rule: %d %v", status, v)
	}

	s.stop()
	s = start(t, config(s.data)) // the rules are kept
	if v := s.operate(200, "GET", "/v1/rules", ""); v["version"] != 3.0 {
		t.Errorf("after a restart: %v", v)
	}
}

func (s *server) metrics() string {
	s.t.Helper()
	resp, err := http.Get(s.ops + "/metrics")
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}

// A rule by address goes by X-Forwarded-For only where a trusted proxy wrote it.
func TestTrustedProxies(t *testing.T) {
	c := config(t.TempDir())
	c.Proxies = []string{"127.0.0.1"}
	s := start(t, c)
	s.rule(0, ruleOf("net", "reads", `"ip"`, 1, "1h"))
	read := func(want int, forwarded string) {
		t.Helper()
		if status, _, v := s.call("GET", s.shopper+"/v1/activities", "", "", "X-Forwarded-For", forwarded); status != want {
			t.Errorf("from %q: %d %v, want %d", forwarded, status, v, want)
		}
	}
	read(200, "198.51.100.7")
	read(429, "198.51.100.7")
	read(429, "203.0.113.1, 198.51.100.7")
	read(200, "198.51.100.8")
	s.stop()

	c.Proxies = nil
	s = start(t, c)
	read(200, "198.51.100.7")
	read(429, "198.51.100.9")
}

// A change made at one process is in force at another within a second, and stays
// while the store is away.
func TestRulesReachEveryGateway(t *testing.T) {
	redis, sql := servers.Redis(t), servers.MariaDB(t)
	c := shared(t, redis, sql)
	s := start(t, c)
	other := shared(t, redis, sql)
	other.Role, other.Secrets, other.Payment = "gateway", filepath.Join(c.Data, "secrets"), "sandbox://127.0.0.1:1"
	g := start(t, other)
	reads := func() int {
		t.Helper()
		status, _, _ := g.call("GET", g.shopper+"/v1/activities", "", "")
		return status
	}
	if reads() != 200 {
		t.Fatal("the other gateway does not answer")
	}
	within := func(want int) {
		t.Helper()
		began := time.Now()
		g.eventually(fmt.Sprint("reads answered ", want), func() bool { return reads() == want })
		t.Logf("a change took %s", time.Since(began).Round(time.Millisecond))
	}
	s.rule(0, ruleOf("closed", "reads", "", 1, "744h"))
	within(429)
	s.rule(1)
	within(200)
	s.rule(2, ruleOf("closed", "reads", "", 1, "744h"))
	within(429)
	sql.Kill()
	for began := time.Now(); time.Since(began) < time.Second; {
		if status := reads(); status != 429 {
			t.Fatalf("without the store: %d", status)
		}
	}
	if status, _, v := g.call("GET", g.ops+"/readyz", "", ""); status != 200 {
		t.Errorf("a gateway without the store: %d %v", status, v)
	}
	if status, _, _ := s.call("GET", s.ops+"/readyz", "", ""); status != 503 {
		t.Errorf("a console without the store: %d", status)
	}
	if err := sql.Restart(); err != nil {
		t.Fatal(err)
	}
	g.eventually("the rules can be changed again", func() bool {
		status, _, _ := s.call("PUT", s.ops+"/v1/rules", opsToken, `{"version":3,"rules":[]}`)
		return status == 200
	})
	within(200)
}
