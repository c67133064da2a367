package main

import (
	"bufio"
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"sluice/internal/gate"
	"sluice/test/servers"
)

//go:embed wrk.lua
var wrkScript string

// tokenLife outlasts every measurement.
const tokenLife = 12 * time.Hour

// newGenerator writes the script and n bearer tokens, each of another user.
func newGenerator(t servers.TB, dir string, secret []byte, n int) (*generator, error) {
	g := &generator{
		wrk: servers.Find(t, "wrk"), taskset: servers.Find(t, "taskset"),
		script: filepath.Join(dir, "wrk.lua"), tokens: filepath.Join(dir, "tokens"),
	}
	if err := os.WriteFile(g.script, []byte(wrkScript), 0o644); err != nil {
		return nil, err
	}
	// Tokens are secrets for as long as they live.
	f, err := os.OpenFile(g.tokens, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	w := bufio.NewWriter(f)
	for i := range n {
		token, err := gate.Mint(secret, fmt.Sprintf("bench-user-%07d", i), time.Now(), tokenLife)
		if err != nil {
			return nil, err
		}
		fmt.Fprintln(w, token)
	}
	return g, w.Flush()
}
