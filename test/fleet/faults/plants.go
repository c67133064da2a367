package main

import "sluice/test/overlay"

// plant is a bug put into the program, to see that the run reports it.
type plant struct {
	name  string
	edits []overlay.Edit
}

// plants are bugs of a fleet that only a fault brings to light.
var plants = []plant{
	{"a rebuilt bucket forgets who has what", []overlay.Edit{
		{Name: "forgets", File: "internal/bucket/recover.go", Anchor: "\tbook, err := restore(batch.To.Epoch, kept)\n", Where: overlay.Before,
			Text: "\tkept.Reservations = nil\n"},
	}},
	{"a purchase is told to be held before it has landed", []overlay.Edit{
		{Name: "held at once", File: "internal/backend/redisstock/ledger.go", Anchor: "made.State, made.Terms = stock.Pending, r.Terms",
			Text: "made.State, made.Terms = stock.Held, r.Terms"},
	}},
	{"a missing script is sent again, and what was seen is not", []overlay.Edit{
		{Name: "sent again", File: "internal/backend/redisstock/redisstock.go", Anchor: "\treturn b.read(e, result)\n", Where: overlay.Before,
			Text: "\tif isCode(result.Error(), \"NOSCRIPT\") {\n" +
				"\t\tresult = l.client.Do(ctx, l.client.B().Eval().Script(b.text(s, e.number)).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).Build())\n\t}\n"},
		{Name: "not seen", File: "internal/backend/redisstock/ledger.go", Anchor: "r.Order, r.Late, r.Claims), e.seenText())",
			Text: "r.Order, r.Late, r.Claims), \"0\")"},
	}},
	{"a reader moves on before the effects", []overlay.Edit{
		{Name: "moves on", File: "internal/backend/kafkabus/read.go", Anchor: "\tsettled, err := r.settle(ctx, records)\n", Where: overlay.Before,
			Text: "\tall := make([]bool, len(records))\n\tfor i := range all {\n\t\tall[i] = true\n\t}\n" +
				"\tif early, _ := positions(records, all); r.commit(ctx, early) == nil {\n\t\ttime.Sleep(300 * time.Millisecond)\n\t}\n"},
	}},
	{"a replica is read however late it is", []overlay.Edit{
		{Name: "late", File: "internal/backend/sqlstore/replicas.go", Anchor: "f.in = lag <= r.maxLag/2 || was && lag <= r.maxLag", Text: "f.in = true"},
		{Name: "not covered", File: "internal/backend/sqlstore/replicas.go", Anchor: "return t.IsZero() || f.covered.After(t)", Text: "return true"},
		{Name: "not bounded", File: "internal/backend/sqlstore/replicas.go", Anchor: "r.now().Sub(f.covered) > r.maxLag)", Text: "false)"},
		{Name: "not minded", File: "internal/backend/sqlstore/session.go", Anchor: "\ttold, pinned := s.pins[o.Reservation]\n", Where: overlay.Before,
			Text: "\tif true {\n\t\treturn false\n\t}\n"},
	}},
}
