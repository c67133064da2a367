package app

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice/internal/gate/challenge"
	"sluice/internal/gate/waiting"
)

// rules replaces all rules of the gate.
func (s *running) rules(sections string) {
	s.t.Helper()
	version := s.operate("GET", "/v1/rules", "")["version"]
	s.operate("PUT", "/v1/rules", fmt.Sprintf(`{"version":%v,"rules":[],%s}`, version, sections))
}

// gates asks something of the gate before an activity.
func (s *running) gates(user, method, path, body string) (int, map[string]any) {
	s.t.Helper()
	return s.shopper(user, method, "/v1/activities/cup/"+path, body)
}

// clear solves a challenge, and answers the clearance.
func (s *running) clear(user string) string {
	s.t.Helper()
	var offer map[string]any
	s.eventually("a challenge is ready", func() bool {
		var status int
		status, offer = s.gates(user, "POST", "challenges", "{}")
		return status == 201
	})
	answer, ok := challenge.Solve(s.key, "cup", user, offer["challenge"].(string))
	if !ok {
		s.t.Fatal("the challenge cannot be solved")
	}
	// As soon as a person could have seen it.
	var solved map[string]any
	soon := time.After(challenge.Earliest)
	<-soon
	status, solved := s.gates(user, "POST", "challenges/answers", fmt.Sprintf(`{"challenge":%q,"answer":%d}`, offer["challenge"], answer))
	if status != 200 {
		s.t.Fatalf("answer: %d %v", status, solved)
	}
	return solved["clearance"].(string)
}

// The way of a shopper through all of the gate, in a whole shop: challenge, queue,
// pass, purchase; and what those meet who take another way.
func TestFromTheQueueToAnOrder(t *testing.T) {
	o, _ := patient()
	s := openShop(t, o, nil)
	s.sell("cup", 600)
	s.rules(`"rooms":[{"id":"room","activity":"cup","mode":"on"}],"challenges":[{"id":"puzzle","activity":"cup","mode":"on","when":"always"}],
		"eligibility":[{"id":"adults","activity":"cup","mode":"on","when":"!(user startsWith \"kid\")"}]`)
	s.eventually("the room is open", func() bool {
		status, v := s.gates("ann", "POST", "queue", "")
		return status == 403 && v["code"] == "challenge_required" && v["rule"] == "puzzle"
	})
	if status, v := s.gates("ann", "POST", "purchases", `{"sku":"cup","quantity":1}`); status != 429 || v["code"] != "queued" || v["rule"] != "room" {
		t.Errorf("without a pass: %d %v", status, v)
	}
	if status, v := s.gates("kid1", "POST", "queue", ""); status != 403 || v["code"] != "not_eligible" || v["rule"] != "adults" {
		t.Errorf("a kid: %d %v", status, v)
	}
	clearance := s.clear("ann")
	var place map[string]any
	s.eventually("ann has a place", func() bool {
		var status int
		status, place = s.gates("ann", "POST", "queue", fmt.Sprintf(`{"clearance":%q}`, clearance))
		return status == 200
	})
	if status, v := s.gates("bob", "POST", "queue", fmt.Sprintf(`{"clearance":%q}`, clearance)); status != 403 {
		t.Errorf("bob shows ann's clearance: %d %v", status, v)
	}
	s.eventually("ann is called", func() bool {
		_, place = s.gates("ann", "GET", "queue", "")
		return place["state"] == "called"
	})
	status, receipt := s.gates("ann", "POST", "purchases", fmt.Sprintf(`{"sku":"cup","quantity":1,"pass":%q}`, place["pass"]))
	if status != 202 || receipt["state"] != "held" {
		t.Fatalf("with a pass: %d %v", status, receipt)
	}
	// The same key, without the pass: a buyer is never sent back to the queue.
	if status, v := s.gates("ann", "POST", "purchases", `{"sku":"cup","quantity":1}`); status != 202 || v["order"] != receipt["order"] {
		t.Errorf("asks again: %d %v", status, v)
	}
	why := s.operate("GET", "/v1/activities/cup/trail/users/kid1", "")
	if !strings.Contains(fmt.Sprint(why), "adults") {
		t.Errorf("why did kid1 not get one: %v", why)
	}
	counts := fmt.Sprint(s.operate("GET", "/v1/rules", "")["counts"])
	for _, rule := range []string{"room", "puzzle", "adults"} {
		if !strings.Contains(counts, "rule:"+rule) {
			t.Errorf("no counts of %s: %s", rule, counts)
		}
	}
	if n := s.log.count("refused by a rule"); n == 0 {
		t.Error("nothing in the log")
	}
}

// A playbook is pulled while the shop sells, and reverted; the black list is in
// force at once.
func TestSiegeAndBlackList(t *testing.T) {
	o, _ := patient()
	s := openShop(t, o, nil)
	s.sell("cup", 600)
	s.buy("cup", "ann")
	s.operate("POST", "/v1/playbooks/readonly/pull", `{"reason":"the database moves"}`)
	if status, v := s.gates("bob", "POST", "purchases", `{"sku":"cup","quantity":1}`); status != 503 || v["code"] != "read_only" || v["rule"] != "playbook:readonly" {
		t.Errorf("while read only: %d %v", status, v)
	}
	s.operate("POST", "/v1/playbooks/readonly/revert", "")
	s.buy("cup", "bob")
	s.operate("POST", "/v1/playbooks/siege/pull", "")
	s.eventually("the waiting room is open", func() bool {
		status, v := s.gates("cid", "POST", "queue", "")
		return status == 403 && v["code"] == "challenge_required" && v["rule"] == "playbook:siege"
	})
	if status, v := s.gates("cid", "POST", "purchases", `{"sku":"cup","quantity":1}`); status != 429 || v["rule"] != "playbook:siege" {
		t.Errorf("under siege: %d %v", status, v)
	}
	if scale := s.engine.rules.Door.Switches.Of("cup").LimitPercent; scale != 50 {
		t.Errorf("limits at %d %%", scale)
	}
	s.operate("POST", "/v1/playbooks/siege/revert", "")
	s.buy("cup", "cid")

	s.operate("PUT", "/v1/lists/entries", `{"list":"black","kind":"user","subjects":["dan"],"reason":"resells"}`)
	if status, v := s.gates("dan", "POST", "purchases", `{"sku":"cup","quantity":1}`); status != 403 || v["rule"] != "blacklist" {
		t.Errorf("on the black list: %d %v", status, v)
	}
}

// A shop that was under siege when it ended is under siege from its first moment on.
func TestSavedRulesAreInForceBeforeAnybodyIsServed(t *testing.T) {
	o, _ := patient()
	s := openShop(t, o, nil)
	s.operate("POST", "/v1/playbooks/readonly/pull", "")
	c := Default()
	c.Data = t.TempDir()
	other := &engine{doors: s.engine.doors}
	s.must(other.openDoor(c))
	if other.rules.Door.Switches.Of("").ReadOnlyOrders {
		t.Fatal("in force before it was read")
	}
	s.must(other.known(context.Background()))
	if !other.rules.Door.Switches.Of("").ReadOnlyOrders {
		t.Error("not in force")
	}
}

// Only a process that serves shoppers looks at the waiting rooms before it begins:
// by that it reports what it can serve.
func TestOnlyGatewaysAreSeated(t *testing.T) {
	f := func(name string, want bool) {
		t.Helper()
		looked := false
		rooms := waiting.NewRooms(waiting.Options{Activities: func() []string { looked = true; return nil }, Now: time.Now}, "here", 1, waiting.NewPace(0))
		e := &engine{role: roles[name], before: before{rooms: rooms}}
		if e.seat(t.Context()); looked != want {
			t.Errorf("a %s looks at the rooms: %v", name, looked)
		}
	}
	f("all", true)
	f("gateway", true)
	f("worker", false)
	f("console", false)
}
