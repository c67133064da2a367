package redisstock

import (
	"context"

	"sluice/internal/stock"
)

// LoadScripts loads the scripts of a bucket's epoch where nobody may but its
// keeper, as a client would that sends a script again when Redis has lost it.
func LoadScripts(ctx context.Context, l *Ledger, p stock.Place, number uint32) error {
	for s := range scripts {
		if err := l.client.Do(ctx, l.client.B().ScriptLoad().Script(l.at(p).text(s, number)).Build()).Error(); err != nil {
			return err
		}
	}
	return nil
}

// RestoreStep makes one step of a restore: attempt, step, kind, values.
func RestoreStep(ctx context.Context, l *Ledger, p stock.Place, token string, args ...string) error {
	return done(restoreScript.Exec(ctx, l.client, l.at(p).all, append([]string{token}, args...)))
}

// CheckServer reads an INFO.
var CheckServer = checkServer
