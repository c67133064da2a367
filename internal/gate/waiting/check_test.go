package waiting_test

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"sluice/internal/gate/waiting"
)

// A shop that cheats after the draw is found out, by whom it has told its commitment.
func TestCheckOfAPublishedDraw(t *testing.T) {
	seed := waiting.Seed{1, 2, 3}
	entries := make([]waiting.EntryID, 2500)
	for i := range entries {
		entries[i] = waiting.EntryID{byte(i), byte(i >> 8), 7}
	}
	digest := waiting.Digest(entries)
	places := waiting.Places(seed, digest, len(entries))
	commitment := seed.Commitment()
	hexOf := func(b []byte) string { return hex.EncodeToString(b) }
	f := func(change func(draw map[string]any, entries []string), commitment, want string) {
		t.Helper()
		draw := map[string]any{"commitment": hexOf(commitmentOf(seed)), "drawn": true, "seed": hexOf(seed[:]), "drawn_entries": len(entries), "digest": hexOf(digest[:])}
		texts := make([]string, len(entries))
		for i := range entries {
			texts[i] = hexOf(entries[i][:])
		}
		if change != nil {
			change(draw, texts)
		}
		shop := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var doc any = draw
			if strings.HasSuffix(r.URL.Path, "/entries") {
				var from int
				_, _ = fmt.Sscan(r.URL.Query().Get("from"), &from)
				page := map[string]any{"entries": texts[from:min(from+1000, len(texts))]}
				if from+1000 < len(texts) {
					page["next"] = from + 1000
				}
				doc = page
			}
			_ = json.NewEncoder(w).Encode(doc)
		}))
		defer shop.Close()
		found, err := waiting.Check{URL: shop.URL, Activity: "act", Commitment: commitment, Entry: hexOf(entries[17][:])}.Run(t.Context())
		switch {
		case want == "" && (err != nil || !found.Holds || found.Place != int(places[17])+1 || found.Entries != len(entries)):
			t.Errorf("an honest draw: %+v, %v", found, err)
		case want != "" && !strings.Contains(fmt.Sprint(found.Why, err), want):
			t.Errorf("want %q, got %+v, %v", want, found, err)
		case want != "" && found.Holds:
			t.Errorf("%s, and it holds", want)
		}
	}
	told := hexOf(commitment[:])
	f(nil, told, "")
	f(nil, "", "")
	f(func(d map[string]any, _ []string) { d["seed"] = hexOf(make([]byte, 32)) }, told, "not the one committed to")
	f(func(d map[string]any, _ []string) {
		other := waiting.Seed{9}
		d["seed"], d["commitment"] = hexOf(other[:]), hexOf(commitmentOf(other))
	}, told, "another than before")
	f(func(_ map[string]any, e []string) { e[3], e[4] = e[4], e[3] }, told, "not those drawn")
	f(func(d map[string]any, _ []string) { d["drawn_entries"] = 10 }, told, "are listed")
	f(func(d map[string]any, _ []string) { d["drawn"] = false }, told, "nothing has been drawn")
	f(func(d map[string]any, _ []string) { d["seed"] = "zz" }, told, "hex")
	f(func(_ map[string]any, e []string) { e[0] = "ab" }, told, "no entry id")
	f(nil, "abc", "commitment")
}

func commitmentOf(s waiting.Seed) []byte { c := s.Commitment(); return c[:] }
