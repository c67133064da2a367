package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"sluice/internal/app"
)

type auditCommand struct {
	settings
	JSON bool `name:"json" help:"Print the reports as JSON."`
}

func (a auditCommand) Run(ctx context.Context) error {
	c, err := a.load(nil)
	if err != nil {
		return err
	}
	reports, err := app.Audit(ctx, c, c.Logger(os.Stderr))
	if err != nil {
		return err
	}
	ok := true
	for _, r := range reports {
		ok = ok && r.OK
	}
	if a.JSON {
		if err := json.NewEncoder(os.Stdout).Encode(reports); err != nil {
			return err
		}
	} else {
		for _, r := range reports {
			fmt.Printf("%s: ok %v at log position %d, %d violations\n", r.Activity, r.OK, r.Position.Position, r.Found)
			if r.Proved != nil {
				fmt.Printf("  final proof taken at log position %d on %s\n", r.Proved.Position.Position, r.Proved.At.Format(time.RFC3339))
			}
			for _, it := range r.Ledger {
				fmt.Printf("  %-24s %d allocated = %d free + %d held + %d confirmed\n", it.SKU, it.Allocated, it.Free, it.Held, it.Confirmed)
			}
			for state, n := range r.Orders {
				fmt.Printf("  orders %-17s %d\n", state, n)
			}
			for _, b := range r.Incomplete {
				fmt.Println("  bucket not compared lately:", b)
			}
			for _, v := range r.Violations {
				fmt.Println("  violation:", v)
			}
		}
	}
	if !ok {
		return errViolation
	}
	return nil
}
