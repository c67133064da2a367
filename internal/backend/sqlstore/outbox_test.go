package sqlstore

import (
	"testing"

	"sluice/internal/lib/outbox"
	"sluice/internal/lib/outbox/outboxtest"
)

func TestOutbox(t *testing.T) {
	outboxtest.Run(t, func(t *testing.T) outboxtest.Queue {
		s := openStore(t)
		return outboxtest.Queue{Queue: s, Put: func(t *testing.T, messages ...outbox.Message) {
			t.Helper()
			put(t, s, messages...)
		}}
	})
}

func put(t *testing.T, s *Store, messages ...outbox.Message) {
	t.Helper()
	err := s.writing(t.Context(), "put", func(c *conn) error {
		for i := range messages {
			m, err := messageArgs(&messages[i])
			if err != nil {
				return err
			}
			if _, err := c.execArgs(insertMessage, m); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
