package console

import (
	"context"
	"errors"
	"net/http"

	"sluice/internal/lib/cluster"
	"sluice/internal/stock"
)

// errNoMembers: a list of processes is kept in etcd, which this fleet does without.
var errNoMembers = errors.New("the processes of a fleet are listed where its leases are in etcd; write lease: etcd://host:2379 in all of them")

type memberList struct {
	Source  string       `json:"source" enum:"etcd,last_known" doc:"last_known: etcd does not answer, and this is what it said last"`
	AsOf    instant      `json:"as_of,omitzero" doc:"When it was so; absent: nothing is known yet"`
	Members []memberBody `json:"members" nullable:"false"`
}

type memberBody struct {
	Name      string            `json:"name" doc:"Of this life of this process alone; leases are held in this name"`
	Role      string            `json:"role"`
	State     string            `json:"state" enum:"well,ailing,gone" doc:"By its own judgement; gone: it is not on the list any more, since an hour at most"`
	Why       string            `json:"why,omitempty" doc:"What keeps an ailing one from its work"`
	Since     instant           `json:"since" doc:"When it became well or ailing"`
	Joined    instant           `json:"joined"`
	LastSeen  instant           `json:"last_seen" doc:"When it was on the list last. One that died stays on it for 10 seconds"`
	Version   string            `json:"version,omitempty" doc:"Of the program"`
	Host      string            `json:"host,omitempty"`
	Addresses map[string]string `json:"addresses" doc:"What it serves, and where: shopper, ops, pay"`
}

func memberOf(s cluster.Seen) memberBody {
	b := memberBody{
		Name: s.Name, Role: s.Role, State: "well", Why: s.Ailing, Since: instant(stock.MillisOf(s.Since)), Joined: instant(stock.MillisOf(s.Joined)),
		LastSeen: instant(stock.MillisOf(s.LastSeen)), Version: s.Metadata["version"], Host: s.Metadata["host"], Addresses: s.Addresses,
	}
	switch {
	case s.Gone:
		b.State = "gone"
	case s.Ailing != "":
		b.State = "ailing"
	}
	if b.Addresses == nil {
		b.Addresses = map[string]string{}
	}
	return b
}

// serveMembers registers who is there. Nobody decides anything by it.
func (c *console) serveMembers() {
	read(c, about(route("member.list", http.MethodGet, "/v1/members", "The processes of the fleet, and those that have gone in the last hour", http.StatusOK),
		"As the process that answers knows them, also while etcd is away. A fleet whose leases are in SQL has no such list: 404 no_members."),
		func(context.Context, *none) (*reply[memberList], error) {
			if c.Members == nil {
				return nil, errNoMembers
			}
			found, asOf, fresh := c.Members()
			list := memberList{Source: "last_known", Members: make([]memberBody, len(found))}
			if fresh {
				list.Source = "etcd"
			}
			if !asOf.IsZero() {
				list.AsOf = instant(stock.MillisOf(asOf))
			}
			for i, s := range found {
				list.Members[i] = memberOf(s)
			}
			return body(list, nil)
		})
}
