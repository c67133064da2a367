package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"sluice/internal/gate/waiting"
)

type drawCommand struct {
	URL        string `name:"url" default:"http://localhost:8080" help:"The shopper API of the shop."`
	Activity   string `required:"" help:"Whose waiting room it was."`
	Commitment string `help:"As the shop told it before the draw; by default as it tells it now."`
	Entry      string `help:"An entry whose place is asked for."`
	JSON       bool   `name:"json" help:"Print JSON."`
}

// Run checks a published draw as anybody can, knowing nothing of the shop but its URL.
func (d drawCommand) Run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	found, err := waiting.Check{URL: d.URL, Activity: d.Activity, Commitment: d.Commitment, Entry: d.Entry}.Run(ctx)
	if err != nil {
		return err
	}
	switch {
	case d.JSON:
		if err := json.NewEncoder(os.Stdout).Encode(found); err != nil {
			return err
		}
	case !found.Holds:
		fmt.Fprintln(os.Stdout, "the draw does not hold:", found.Why)
	default:
		fmt.Fprintf(os.Stdout, "the draw of %d entries holds: the seed is the one committed to, and the entries are those drawn\n", found.Entries)
		if d.Entry != "" {
			fmt.Fprintf(os.Stdout, "entry %s has place %d\n", d.Entry, found.Place)
		}
	}
	if !found.Holds {
		return errViolation
	}
	return nil
}
