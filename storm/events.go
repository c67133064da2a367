package storm

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// streamClient reads events. Each reading has a connection of its own, as a
// browser's has.
var streamClient = http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// events reads the events of a reservation until each says that it wants no
// more, they end, or within is over. A stream that breaks off is no error.
func (s *shop) events(token []byte, reservation string, within time.Duration, each func(Receipt) (more bool)) error {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	address := s.at() + "/v1/reservations/" + reservation + "/events"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+string(token))
	req.Header.Set("Accept", "text/event-stream")
	resp, err := streamClient.Do(req)
	if err != nil {
		return nil // nobody answered: ask again
	}
	defer resp.Body.Close()
	if a := (answer{status: resp.StatusCode}); !a.ok() {
		if a.again() {
			return nil
		}
		return fmt.Errorf("%w: %s", errAnswer, resp.Status)
	}
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		data, ok := strings.CutPrefix(lines.Text(), "data:")
		if !ok {
			continue
		}
		var seen Receipt
		if err := json.Unmarshal([]byte(data), &seen); err != nil {
			return fmt.Errorf("%w: %w", errAnswer, err)
		}
		if !each(seen) {
			return nil
		}
	}
	return nil
}
