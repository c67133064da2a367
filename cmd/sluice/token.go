package main

import (
	"fmt"
	"time"

	"sluice/internal/gate"
)

type tokenCommand struct {
	settings
	User string        `required:"" help:"The shopper's id, 1..64 bytes."`
	TTL  time.Duration `name:"ttl" default:"24h" help:"How long the token is valid."`
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
	token, err := gate.Mint(key, t.User, time.Now(), t.TTL)
	if err != nil {
		return err
	}
	_, err = fmt.Println(token)
	return err
}
