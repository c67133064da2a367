package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"sluice/internal/app"
)

type doctorCommand struct {
	settings
	JSON bool `name:"json" help:"Print the findings as JSON."`
}

var errUnfit = errors.New("some checks failed; see the remedies above")

func (d doctorCommand) Run() error {
	c, err := d.load(nil)
	if err != nil {
		return err
	}
	findings := app.Examine(c)
	if d.JSON {
		err = json.NewEncoder(os.Stdout).Encode(findings)
	}
	for _, f := range findings {
		mark := "ok  "
		if !f.OK {
			mark = "FAIL"
			if err == nil {
				err = errUnfit
			}
		}
		if !d.JSON {
			fmt.Printf("%s  %-28s %s\n", mark, f.Check, f.Seen)
			if !f.OK {
				fmt.Printf("      %s\n", f.Remedy)
			}
		}
	}
	return err
}
