package kafkabus

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/internal/lib/outbox"
)

// A record's key and value are the message's key and body. The rest is in
// headers, as decimal numbers and text, for readers in any language. Its time
// is when it was sent, so that what waited for long is not old on arrival to a
// topic that forgets by age; when it happened is a header.
const (
	headerID        = "id"
	headerTopic     = "topic"
	headerAt        = "at"         // Unix ms
	headerNotBefore = "not-before" // Unix ms, left out when 0
)

func recordOf(m outbox.Message) *kgo.Record {
	headers := []kgo.RecordHeader{
		{Key: headerID, Value: strconv.AppendInt(nil, m.ID, 10)},
		{Key: headerTopic, Value: []byte(m.Topic)},
		{Key: headerAt, Value: strconv.AppendInt(nil, m.At, 10)},
	}
	if m.NotBefore > 0 {
		headers = append(headers, kgo.RecordHeader{Key: headerNotBefore, Value: strconv.AppendInt(nil, m.NotBefore, 10)})
	}
	return &kgo.Record{Key: []byte(m.Key), Value: m.Body, Headers: headers}
}

// messageOf reads a record. One that is none of ours answers why, and a
// message that can be kept as a dead letter: its id is above all that a queue
// gives and says where in the topic it stands, so it meets no other.
func messageOf(r *kgo.Record) (outbox.Message, error) {
	m := outbox.Message{Key: string(r.Key), Body: r.Value}
	var bad error
	number := func(h kgo.RecordHeader) int64 {
		n, err := strconv.ParseInt(string(h.Value), 10, 64)
		if err != nil || n < 0 {
			bad = fmt.Errorf("header %s is %.32q", h.Key, h.Value)
		}
		return n
	}
	for _, h := range r.Headers {
		switch h.Key {
		case headerID:
			m.ID = number(h)
		case headerTopic:
			m.Topic = string(h.Value)
		case headerAt:
			m.At = number(h)
		case headerNotBefore:
			m.NotBefore = number(h)
		}
	}
	switch {
	case bad != nil:
	case m.ID <= 0 || m.Topic == "" || len(m.Topic) > 255:
		bad = fmt.Errorf("headers id and topic are %d and %.32q", m.ID, m.Topic)
	case len(m.Key) < 1 || len(m.Key) > 64 || !utf8.ValidString(m.Key):
		bad = fmt.Errorf("key is %.32q", m.Key)
	}
	if bad == nil {
		return m, nil
	}
	bad = fmt.Errorf("no message of an outbox at %d of partition %d: %w", r.Offset, r.Partition, bad)
	key := hex.EncodeToString(r.Key)
	return outbox.Message{
		ID:    1<<62 | r.Offset<<12 | int64(r.Partition),
		Key:   "alien-" + key[:min(len(key), 50)],
		Topic: "alien", Body: r.Value, At: r.Timestamp.UnixMilli(),
	}, bad
}
