package main

import (
	"fmt"

	"sluice/internal/app"
)

type configCommand struct {
	Check   configCheck   `cmd:"" help:"Say what is wrong with the configuration, all of it."`
	Default configDefault `cmd:"" help:"Print the defaults as a commented file."`
	Print   configPrint   `cmd:"" help:"Print the configuration in force, without secrets."`
}

type configCheck struct{ settings }

func (c configCheck) Run() error {
	if _, err := c.load(nil); err != nil {
		return err
	}
	_, err := fmt.Println("the configuration is valid")
	return err
}

type configDefault struct{}

func (configDefault) Run() error {
	_, err := fmt.Print(app.Default().Print())
	return err
}

type configPrint struct{ settings }

func (c configPrint) Run() error {
	loaded, err := c.load(nil)
	if err != nil {
		return err
	}
	_, err = fmt.Print(loaded.Print())
	return err
}
