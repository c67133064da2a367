package kafkabus

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/internal/lib/outbox"
)

// line is a message in an export, one a line of JSON.
type line struct {
	Partition int32           `json:"partition"`
	Offset    int64           `json:"offset"`
	ID        int64           `json:"id"`
	Key       string          `json:"key"`
	Topic     string          `json:"topic"`
	At        int64           `json:"at"`
	NotBefore int64           `json:"not_before,omitempty"`
	Body      json.RawMessage `json:"body,omitempty"`
	Bytes     []byte          `json:"bytes,omitempty"` // the body, where it is no JSON
}

// Export writes what was sent since a time and until now, and what group, if
// one is named, has not committed yet: a line of JSON a message, each key in
// order. It answers how many. Records that are no messages are left out.
func (b *Bus) Export(ctx context.Context, group string, since time.Time, w io.Writer) (n int, err error) {
	from, until, err := b.span(ctx, group, since)
	if err != nil {
		return 0, fmt.Errorf("export: %w", err)
	}
	left := map[int32]int64{} // by partition: where it ends
	start := map[int32]kgo.Offset{}
	for p, at := range from {
		if at < until[p] {
			left[p], start[p] = until[p], kgo.NewOffset().At(at)
		}
	}
	if len(left) == 0 {
		return 0, nil
	}
	client, err := b.client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{b.place.topic: start}), kgo.FetchMaxWait(time.Second))
	if err != nil {
		return 0, fmt.Errorf("export: %w", err)
	}
	defer client.Close()
	out := bufio.NewWriter(w)
	encode := json.NewEncoder(out)
	for len(left) > 0 {
		fetches := client.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			return n, fmt.Errorf("export: %w", err)
		}
		if err := refused(fetches); err != nil {
			return n, fmt.Errorf("export: %w", err)
		}
		for _, r := range fetches.Records() {
			end, wanted := left[r.Partition]
			if !wanted {
				continue
			}
			if r.Offset+1 >= end {
				delete(left, r.Partition)
			}
			m, bad := messageOf(r)
			if bad != nil || r.Offset >= end {
				continue
			}
			l := line{Partition: r.Partition, Offset: r.Offset, ID: m.ID, Key: m.Key, Topic: m.Topic, At: m.At, NotBefore: m.NotBefore}
			if json.Valid(m.Body) {
				l.Body = m.Body
			} else {
				l.Bytes = m.Body
			}
			if err := encode.Encode(l); err != nil {
				return n, fmt.Errorf("export: %w", err)
			}
			n++
		}
	}
	return n, out.Flush()
}

// refused is the first thing that brokers said they will not do, however often
// they are asked.
func refused(fetches kgo.Fetches) error {
	for _, f := range fetches.Errors() {
		var said *kerr.Error
		if errors.As(f.Err, &said) && !said.Retriable {
			return fmt.Errorf("partition %d: %w", f.Partition, f.Err)
		}
	}
	return nil
}

// maxLine bounds a line of an import: Kafka takes a megabyte.
const maxLine = 2 << 20

// Import sends what Export wrote, in its order and under the ids that the
// messages had, and answers how many the brokers have acknowledged. After an
// error it may be told everything again: readers pass over what they have
// consumed.
func (b *Bus) Import(ctx context.Context, r io.Reader) (n int, err error) {
	const window = 1000
	var sent []outbox.Message
	settle := func() error {
		for _, m := range sent {
			if err := b.send(ctx, m); err != nil {
				return fmt.Errorf("import: message %d: %w", m.ID, err)
			}
			n++
		}
		sent = sent[:0]
		return nil
	}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	for number := 1; lines.Scan(); number++ {
		var l line
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil || l.ID <= 0 || l.Key == "" || l.Topic == "" {
			return n, errors.Join(fmt.Errorf("import: line %d is no message", number), err, settle())
		}
		m := outbox.Message{ID: l.ID, Key: l.Key, Topic: l.Topic, At: l.At, NotBefore: l.NotBefore, Body: l.Body}
		if l.Bytes != nil {
			m.Body = l.Bytes
		}
		b.launch(m) // the client keeps the order, and fails all that is behind a failure
		if sent = append(sent, m); len(sent) == window {
			if err := settle(); err != nil {
				return n, err
			}
		}
	}
	return n, errors.Join(lines.Err(), settle())
}
