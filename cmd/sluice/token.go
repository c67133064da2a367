package main

import (
	"fmt"
	"time"

	"sluice/internal/gate"
)

type tokenCommand struct {
	settings
	User     string        `required:"" help:"The shopper's id, 1..64 bytes."`
	TTL      time.Duration `name:"ttl" default:"24h" help:"How long the token is valid."`
	Level    int           `help:"The claim level."`
	Region   string        `help:"The claim region."`
	Newcomer bool          `help:"The claim newcomer."`
	Group    []string      `sep:"none" help:"One of the claim groups; may be repeated."`
}

func (t tokenCommand) Run() error {
	c, err := t.load(nil)
	if err != nil {
		return err
	}
	key, err := gate.KeyIn(c.SecretsPath())
	if err != nil {
		return err
	}
	claims := gate.Claims{Level: t.Level, Region: t.Region, Newcomer: t.Newcomer, Groups: t.Group}
	token, err := gate.MintWith(key, t.User, claims, time.Now(), t.TTL)
	if err != nil {
		return err
	}
	_, err = fmt.Println(token)
	return err
}
