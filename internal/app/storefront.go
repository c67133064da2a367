package app

import (
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"sluice/examples"
	"sluice/internal/api"
	"sluice/internal/gate"
	"sluice/internal/lib/run"
	"sluice/web/shop"
)

// storefront is the static part of the shopper API.
func storefront(demo bool) (api.Config, error) {
	shell, err := shop.Shell(demo)
	if err != nil {
		return api.Config{}, err
	}
	assets, err := shop.Assets()
	if err != nil {
		return api.Config{}, err
	}
	c := api.Config{Shell: served(shell), Assets: map[string]api.Asset{}, Images: examples.Images()}
	for path, a := range assets {
		c.Assets[path] = served(a)
	}
	return c, nil
}

func served(a shop.Asset) api.Asset {
	return api.Asset{ContentType: a.ContentType, Body: a.Body, Gzip: a.Gzip, ETag: a.ETag, Immutable: a.Immutable}
}

// demoTTL is how long a demo shopper's token lives.
const demoTTL = 24 * time.Hour

// identities reads the keys that shoppers' tokens are checked with. In a demo
// the data directory's own secret also signs.
func (c Config) identities(now func() time.Time, log *slog.Logger) (*gate.Verifier, *api.Demo, error) {
	own, err := gate.KeyIn(c.SecretsPath())
	if err != nil {
		return nil, nil, err
	}
	var keys []gate.VerifyingKey
	var sources []gate.KeySource
	for _, entry := range c.JWTKeys {
		if source, ok, err := gate.KeysAt(entry); err != nil {
			return nil, nil, fmt.Errorf("jwt_keys: %w", err)
		} else if ok {
			sources = append(sources, source)
			continue
		}
		key, err := readKey(entry)
		if err != nil {
			return nil, nil, fmt.Errorf("jwt_keys: %w", err)
		}
		keys = append(keys, key)
	}
	var demo *api.Demo
	if c.Demo {
		demo = &api.Demo{Key: own, TTL: demoTTL}
	}
	if len(keys)+len(sources) == 0 || c.Demo {
		keys = append(keys, gate.VerifyingKey{Secret: own})
	}
	v, err := gate.NewVerifierFrom(now, 0, log, sources, keys...)
	return v, demo, err
}

// followKeys keeps the keys of identity providers.
func (e *engine) followKeys() run.Task {
	return steady(e.log, run.Task{Name: "keys of identity providers", Step: e.verifier.Step, Idle: time.Second, Wake: e.verifier.Woken()})
}

// readKey reads "[id=]path": a public key as PEM, or a secret as hex.
func readKey(entry string) (gate.VerifyingKey, error) {
	keyID, path, named := strings.Cut(entry, "=")
	if !named {
		keyID, path = "", entry
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return gate.VerifyingKey{}, err
	}
	if block, _ := pem.Decode(text); block != nil {
		parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return gate.VerifyingKey{}, fmt.Errorf("%s: %w", path, err)
		}
		return gate.VerifyingKey{ID: keyID, Public: parsed}, nil // of a kind that the gate knows, or it says so
	}
	secret, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		return gate.VerifyingKey{}, fmt.Errorf("%s: neither PEM nor hex", path) // no part of a secret in a message
	}
	return gate.VerifyingKey{ID: keyID, Secret: secret}, nil
}
