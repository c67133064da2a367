package sqlstore

import (
	"testing"

	"sluice/internal/lib/outbox"
	"sluice/internal/lib/outbox/outboxtest"
)

func TestOutbox(t *testing.T) {
	checkOutbox(t, func(t *testing.T) *Store { return openStore(t) })
}

func checkOutbox(t *testing.T, open func(t *testing.T) *Store) {
	outboxtest.Run(t, func(t *testing.T) outboxtest.Queue {
		s := open(t)
		return outboxtest.Queue{Queue: s, Put: func(t *testing.T, messages ...outbox.Message) {
			t.Helper()
			put(t, s, messages...)
		}}
	})
}

func put(t *testing.T, s *Store, messages ...outbox.Message) {
	t.Helper()
	err := s.writing(t.Context(), "put", func(c *conn) error {
		return insertMessages(c, messages)
	})
	if err != nil {
		t.Fatal(err)
	}
}
