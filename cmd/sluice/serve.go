package main

import (
	"context"
	"fmt"
	"os"

	"sluice/internal/app"
)

// settings are the flags that every command about a server shares. What is not
// given stays with the environment, the file or the default.
type settings struct {
	Config string  `short:"c" help:"Configuration file (YAML)." type:"path" env:"SLUICE_CONFIG_FILE"`
	Data   *string `help:"Directory of everything durable (data)."`
	Listen *string `help:"host:port of the shopper API and the storefront (:8080)."`
	Ops    *string `help:"host:port of the ops API (127.0.0.1:8081)."`
	Role   *string `help:"What this process does: all, or of a fleet gateway, worker or console (all)."`
	Log    *string `help:"text or json, with a level after a comma (text,info)."`
}

func (s settings) load(more map[string]any) (app.Config, error) {
	for key, v := range map[string]*string{"data": s.Data, "listen": s.Listen, "ops": s.Ops, "role": s.Role, "log": s.Log} {
		if v != nil {
			if more == nil {
				more = map[string]any{}
			}
			more[key] = *v
		}
	}
	return app.Load(s.Config, more)
}

type serveCommand struct {
	settings
	Demo bool `help:"Load the example catalogue, open a sale, and hand out shoppers' tokens."`
}

func (s serveCommand) Run(ctx context.Context) error {
	more := map[string]any{}
	if s.Demo {
		more["demo"] = true
	}
	c, err := s.load(more)
	if err != nil {
		return err
	}
	return app.Run(ctx, c, os.Stdout, c.Logger(os.Stderr), nil)
}

type versionCommand struct{}

func (versionCommand) Run() error {
	_, err := fmt.Println("sluice", app.Version)
	return err
}
