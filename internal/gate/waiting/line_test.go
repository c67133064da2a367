package waiting_test

import (
	"testing"

	"sluice/internal/gate/waiting"
	"sluice/internal/gate/waiting/linetest"
)

func TestLocalPresence(t *testing.T) {
	linetest.PresenceRun(t, func(*testing.T) waiting.Presence { return &waiting.Local{} })
}

func TestLocalLine(t *testing.T) {
	linetest.Run(t, func(*testing.T) waiting.Line { return &linetest.Local{} })
}
