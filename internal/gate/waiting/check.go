package waiting

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Check is a look at a published draw as anybody can take it, knowing nothing of a
// shop but the URL of its shopper API.
type Check struct {
	URL        string
	Activity   string
	Commitment string // in hex, as it was told before the draw; "": as it is told now
	Entry      string // in hex, whose place is asked for; may be ""
}

// Checked is what was found.
type Checked struct {
	Holds   bool   `json:"holds"`
	Why     string `json:"why,omitempty"`
	Entries int    `json:"entries"`
	Place   int    `json:"place,omitempty"` // of the entry asked for, from 1
}

// Run reads what the shop has published and checks it. An error means that it
// could not be checked; a draw that does not hold is none.
func (d Check) Run(ctx context.Context) (found Checked, err error) {
	var told struct {
		Commitment, Seed, Digest string
		Drawn                    bool
		Entries                  int `json:"drawn_entries"`
	}
	path := "/v1/activities/" + url.PathEscape(d.Activity) + "/queue/draw"
	if err := d.get(ctx, path, &told); err != nil {
		return found, err
	}
	draw := Draw{Drawn: told.Drawn, Entries: told.Entries}
	if d.Commitment == "" {
		d.Commitment = told.Commitment
	}
	var commitment [32]byte
	for text, into := range map[string][]byte{told.Commitment: draw.Commitment[:], told.Seed: draw.Seed[:], told.Digest: draw.Digest[:]} {
		if n, err := hex.Decode(into, []byte(text[:min(len(text), 2*len(into))])); err != nil || told.Drawn && n != len(into) {
			return found, fmt.Errorf("%q is not of %d bytes in hex", text, len(into))
		}
	}
	if n, err := hex.Decode(commitment[:], []byte(d.Commitment[:min(len(d.Commitment), 64)])); err != nil || n != len(commitment) {
		return found, fmt.Errorf("the commitment %q is not of 32 bytes in hex", d.Commitment)
	}
	entries, err := d.entries(ctx, path)
	if err != nil {
		return found, err
	}
	places, err := draw.Verify(commitment, entries)
	if err != nil {
		return Checked{Why: err.Error(), Entries: len(entries)}, nil
	}
	found = Checked{Holds: true, Entries: len(entries)}
	if d.Entry != "" {
		at := slices.IndexFunc(entries, func(e EntryID) bool { return hex.EncodeToString(e[:]) == strings.ToLower(d.Entry) })
		if at < 0 {
			return found, fmt.Errorf("entry %s was not drawn", d.Entry)
		}
		found.Place = int(places[at]) + 1
	}
	return found, nil
}

// entries reads all pages of what was drawn.
func (d Check) entries(ctx context.Context, path string) (all []EntryID, err error) {
	for from := 0; from < MaxJoined; {
		var page struct {
			Entries []string
			Next    int
		}
		if err := d.get(ctx, fmt.Sprintf("%s/entries?from=%d", path, from), &page); err != nil {
			return nil, err
		}
		for _, text := range page.Entries {
			var e EntryID
			if n, err := hex.Decode(e[:], []byte(text[:min(len(text), 2*len(e))])); err != nil || n != len(e) {
				return nil, fmt.Errorf("%q is no entry id", text)
			}
			all = append(all, e)
		}
		if page.Next <= from {
			return all, nil
		}
		from = page.Next
	}
	return all, nil
}

// get reads a JSON document of at most a megabyte.
func (d Check) get(ctx context.Context, path string, into any) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(d.URL, "/")+path, nil)
	if err != nil {
		return err
	}
	reply, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = reply.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(reply.Body, 1<<20))
	if err != nil {
		return err
	}
	if reply.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %d %.200s", path, reply.StatusCode, body)
	}
	return json.Unmarshal(body, into)
}
