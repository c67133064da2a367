package shop

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

type document = map[string]any

// scripted is a shop that answers what a test tells it to: the storefront's real
// files, and behind them one sale whose gate the test works by hand.
type scripted struct {
	t   *testing.T
	url string

	mu         sync.Mutex
	sale       document
	place      document      // of the only shopper, nil: not in the waiting room
	turned     chan struct{} // closed when place changes
	silent     bool          // there are no event streams
	tooEarly   document      // why joining is refused, nil: it is not
	challenge  string        // the kind that joining, tickets and purchases ask for, "": none
	answer     int           // to the challenge handed out last
	challenged int
	queue      bool // a purchase needs a pass
	ticket     bool // a purchase needs a ticket, handed out from ticketsAt
	ticketsAt  time.Time
	refused    func() // a pass
	draw       document
	entries    []string
	asked      map[string]int // requests by method and path
	purchases  []purchase
	receipt    document
}

type purchase struct{ key, pass, ticket, clearance string }

const saleID = "listening-room"

func script(t *testing.T, opens time.Duration, needs ...string) *scripted {
	t.Helper()
	now := time.Now()
	item := func(sku, title, story string, amount int) document {
		return document{
			"sku": sku, "title": title, "description": story, "image": "/images/" + sku + ".svg",
			"price": document{"amount": amount, "currency": "CNY"}, "level": "plenty", "per_user": 1, "per_order": 1,
		}
	}
	s := &scripted{
		t: t, turned: make(chan struct{}), asked: map[string]int{}, queue: slices.Contains(needs, "queue"), ticket: slices.Contains(needs, "ticket"),
		sale: document{
			"id": saleID, "kind": "flash", "title": "The listening room · 好声音专场", "state": "scheduled",
			"opens_at": stamp(now.Add(opens)), "closes_at": stamp(now.Add(time.Hour)), "needs": needs,
			"items": []document{
				item("groove-turntable", "Groove turntable · 沟槽黑胶唱机", "Belt drive in solid cherry. Two speeds, one knob.\n樱桃实木，皮带驱动，两档转速，一个旋钮。", 149900),
				item("field-speaker", "Field speaker · 旷野音箱", "Loud enough for a garden, polite enough for a balcony.\n院子里够响亮，阳台上也得体。", 49900),
				item("aurora-headphones", "Aurora wireless headphones · 极光无线耳机", "Forty hours between charges, quiet enough to hear the rain stop.\n续航四十小时，静得能听见雨停。", 64900),
			},
		},
	}
	server := httptest.NewServer(s.routes())
	t.Cleanup(func() {
		server.CloseClientConnections() // event streams
		server.Close()
	})
	s.url = server.URL
	return s
}

func stamp(at time.Time) string { return at.UTC().Format("2006-01-02T15:04:05.000Z") }

// set changes the script, and tells open event streams of the place.
func (s *scripted) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
	close(s.turned)
	s.turned = make(chan struct{})
}

// at changes the place.
func (s *scripted) at(state string, more document) {
	s.set(func() {
		s.place = document{"state": state, "number": 17, "entry": entryOf(17), "poll_after_ms": 400}
		maps.Copy(s.place, more)
	})
}

func (s *scripted) count(request string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[request]
}

func (s *scripted) bought() []purchase {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.purchases)
}

func (s *scripted) routes() http.Handler {
	assets, shell := bundle(s.t)
	demo, err := Shell(true)
	if err != nil {
		s.t.Fatal(err)
	}
	shell = demo
	mux := http.NewServeMux()
	page := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Security-Policy", "default-src 'self'; img-src 'self' https: data:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'")
		w.Header().Set("Content-Type", shell.ContentType)
		_, _ = w.Write(shell.Body)
	}
	mux.HandleFunc("GET /{$}", page)
	mux.HandleFunc("GET /a/{id}", page)
	mux.Handle("GET /images/", http.StripPrefix("/images/", http.FileServerFS(os.DirFS("../../examples/images"))))
	mux.HandleFunc("GET /assets/", func(w http.ResponseWriter, r *http.Request) {
		a, ok := assets[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", a.ContentType)
		_, _ = w.Write(a.Body)
	})
	mux.HandleFunc("POST /demo/token", func(w http.ResponseWriter, _ *http.Request) {
		claims := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"sub":"mei","exp":%d}`, time.Now().Add(time.Hour).Unix()))
		tell(w, 201, document{"user": "mei", "token": "e30." + claims + ".x"})
	})
	for pattern, serve := range map[string]func(http.ResponseWriter, *http.Request){
		"GET /v1/time":            func(w http.ResponseWriter, _ *http.Request) { tell(w, 200, document{"now": time.Now().UnixMilli()}) },
		"GET /v1/activities/{id}": func(w http.ResponseWriter, _ *http.Request) { tell(w, 200, s.sale) },
		"GET /v1/activities":      func(w http.ResponseWriter, _ *http.Request) { tell(w, 200, document{"activities": []document{s.sale}}) },
		"GET /v1/orders":          func(w http.ResponseWriter, _ *http.Request) { tell(w, 200, document{"orders": []document{}}) },
		"GET /v1/reservations/r1": func(w http.ResponseWriter, _ *http.Request) { tell(w, 200, s.receipt) },

		"POST /v1/activities/{id}/purchases":          s.buy,
		"POST /v1/activities/{id}/tickets":            s.hand,
		"POST /v1/activities/{id}/challenges":         s.puzzle,
		"POST /v1/activities/{id}/challenges/answers": s.judge,
		"POST /v1/activities/{id}/queue":              s.join,
		"GET /v1/activities/{id}/queue":               s.where,
		"POST /v1/activities/{id}/queue/leave": func(w http.ResponseWriter, _ *http.Request) {
			s.place = nil
			w.WriteHeader(204)
		},
		"GET /v1/activities/{id}/queue/draw":         func(w http.ResponseWriter, _ *http.Request) { tell(w, 200, s.draw) },
		"GET /v1/activities/{id}/queue/draw/entries": s.list,
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.asked[r.Method+" "+strings.TrimPrefix(r.URL.Path, "/v1/activities/"+saleID)]++
			serve(w, r)
		})
	}
	mux.HandleFunc("GET /v1/activities/{id}/queue/events", s.events)
	return mux
}

func tell(w http.ResponseWriter, status int, body document) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

func refuse(w http.ResponseWriter, status int, code string, more document) {
	body := document{"title": code, "status": status, "code": code}
	maps.Copy(body, more)
	tell(w, status, body)
}

// cleared tells whether a request may pass the challenge, which asks once.
func (s *scripted) cleared(w http.ResponseWriter, clearance string) bool {
	if s.challenge == "" || clearance != "" && clearance == fmt.Sprintf("c.%d", s.challenged) {
		return true
	}
	refuse(w, 403, "challenge_required", nil)
	return false
}

func (s *scripted) read(r *http.Request) (body struct {
	Pass, Ticket, Clearance, Challenge string
	Answer                             int
}) {
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		s.t.Errorf("%s: %v", r.URL, err)
	}
	return body
}

func (s *scripted) buy(w http.ResponseWriter, r *http.Request) {
	body := s.read(r)
	p := purchase{r.Header.Get("Idempotency-Key"), body.Pass, body.Ticket, body.Clearance}
	s.purchases = append(s.purchases, p)
	switch {
	case s.ticket && p.ticket != "t.1":
		refuse(w, 403, "ticket_required", nil)
	case s.queue && p.pass != "p.17":
		if p.pass != "" && s.refused != nil {
			s.refused()
		}
		refuse(w, 429, "queued", document{"queue": "/v1/activities/" + saleID + "/queue"})
	case p.pass == "" && p.ticket == "" && !s.cleared(w, p.clearance):
	default:
		s.receipt = document{
			"order": "1042", "reservation": "r1", "state": "held", "order_state": "created",
			"expires_at": stamp(time.Now().Add(10 * time.Minute)), "total": document{"amount": 49900, "currency": "CNY"},
		}
		tell(w, 202, s.receipt)
	}
}

func (s *scripted) hand(w http.ResponseWriter, r *http.Request) {
	body := s.read(r)
	switch {
	case time.Now().Before(s.ticketsAt):
		refuse(w, 409, "not_open", document{"opens_at": s.sale["opens_at"], "tickets_at": stamp(s.ticketsAt)})
	case s.cleared(w, body.Clearance):
		tell(w, 201, document{"ticket": "t.1", "expires_at": stamp(time.Now().Add(time.Minute))})
	}
}

func (s *scripted) join(w http.ResponseWriter, r *http.Request) {
	body := s.read(r)
	if s.tooEarly != nil {
		refuse(w, 409, "not_open", s.tooEarly)
		return
	}
	if !s.cleared(w, body.Clearance) {
		return
	}
	if s.place == nil || s.place["state"] == "lapsed" {
		s.place = document{
			"state": "registered", "number": 17, "entry": entryOf(17), "joined": 1234,
			"draw_at": s.sale["opens_at"], "commitment": s.draw["commitment"], "poll_after_ms": 400,
		}
	}
	tell(w, 200, s.place)
}

func (s *scripted) where(w http.ResponseWriter, _ *http.Request) {
	if s.place == nil {
		refuse(w, 404, "not_queued", nil)
		return
	}
	tell(w, 200, s.place)
}

func (s *scripted) events(w http.ResponseWriter, r *http.Request) {
	for {
		s.mu.Lock()
		place, turned, silent := s.place, s.turned, s.silent
		s.mu.Unlock()
		if silent || place == nil {
			refuse(w, 503, "overloaded", nil)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		body, _ := json.Marshal(place)
		if _, err := fmt.Fprintf(w, "event: place\ndata: %s\n\n", body); err != nil {
			return
		}
		w.(http.Flusher).Flush()
		select {
		case <-turned:
		case <-r.Context().Done():
			return
		}
	}
}

func (s *scripted) list(w http.ResponseWriter, r *http.Request) {
	var from int
	_, _ = fmt.Sscan(r.URL.Query().Get("from"), &from)
	to := min(from+1000, len(s.entries))
	page := document{"entries": s.entries[from:to]}
	if to < len(s.entries) {
		page["next"] = to
	}
	tell(w, 200, page)
}

// entryOf is the entry id of a number: 16 bytes, here easy to tell.
func entryOf(number int) string {
	sum := sha256.Sum256([]byte{byte(number >> 16), byte(number >> 8), byte(number)})
	return hex.EncodeToString(sum[:16])
}

// drawn draws an order among many as its definition says, written independently of
// the page, and answers the place (1 = first) of a number.
func (s *scripted) drawn(many, number int) int {
	seed := make([]byte, 32)
	_, _ = rand.Read(seed)
	fingerprint := sha256.Sum256(seed)
	list := sha256.New()
	entries := make([]string, many)
	for i := range entries {
		entries[i] = entryOf(i)
		raw, _ := hex.DecodeString(entries[i])
		list.Write(raw)
	}
	digest := list.Sum(nil)
	lot := func(i int) []byte {
		sum := sha256.Sum256(binary.BigEndian.AppendUint64(append(append([]byte{}, seed...), digest...), uint64(i)))
		return sum[:]
	}
	order := make([]int, many)
	lots := make([][]byte, many)
	for i := range order {
		order[i], lots[i] = i, lot(i)
	}
	slices.SortFunc(order, func(a, b int) int { return bytes.Compare(lots[a], lots[b]) })
	s.set(func() {
		s.entries = entries
		s.draw = document{
			"commitment": hex.EncodeToString(fingerprint[:]), "joined": many, "drawn": true, "seed": hex.EncodeToString(seed),
			"drawn_entries": many, "digest": hex.EncodeToString(digest), "algorithm": "sha256-sort", "draw_at": s.sale["opens_at"],
		}
	})
	return slices.Index(order, number) + 1
}

// puzzle hands out a challenge: a picture with a gap, or a sum.
func (s *scripted) puzzle(w http.ResponseWriter, _ *http.Request) {
	s.challenged++
	id := fmt.Sprintf("ch.%d", s.challenged)
	until := stamp(time.Now().Add(2 * time.Minute))
	if s.challenge == "arithmetic" {
		s.answer = 35 + s.challenged
		tell(w, 201, document{"challenge": id, "kind": "arithmetic", "image": paint(240, 80, 0, 0, true), "width": 240, "height": 80, "expires_at": until})
		return
	}
	s.answer = 137 + s.challenged
	tell(w, 201, document{
		"challenge": id, "kind": "slider", "width": 320, "height": 180, "piece_width": 44, "piece_height": 44, "piece_y": 70, "expires_at": until,
		"image": paint(320, 180, s.answer, 70, false), "piece": paint(44, 44, 0, 0, true),
	})
}

func (s *scripted) judge(w http.ResponseWriter, r *http.Request) {
	body := s.read(r)
	if body.Challenge != fmt.Sprintf("ch.%d", s.challenged) || body.Answer < s.answer-3 || body.Answer > s.answer+3 {
		refuse(w, 403, "challenge_failed", nil)
		return
	}
	tell(w, 200, document{"clearance": fmt.Sprintf("c.%d", s.challenged), "expires_at": stamp(time.Now().Add(time.Minute))})
}

// paint makes a landscape as a data: URL, with a dark gap of 44 px at x, y.
func paint(width, height, x, y int, asPNG bool) string {
	img := image.NewRGBA(image.Rect(0, 0, width, height))
	for py := range height {
		for px := range width {
			c := color.RGBA{uint8(90 + px*100/width), uint8(120 + py*80/height), uint8(150 - px*60/width), 255}
			if (px/9+py/7)%5 == 0 {
				c.R, c.G = c.R-40, c.G-30
			}
			if !asPNG && px >= x && px < x+44 && py >= y && py < y+44 {
				c = color.RGBA{c.R / 3, c.G / 3, c.B / 3, 255}
			}
			img.Set(px, py, c)
		}
	}
	var out bytes.Buffer
	if asPNG {
		_ = png.Encode(&out, img)
		return "data:image/png;base64," + base64.StdEncoding.EncodeToString(out.Bytes())
	}
	_ = jpeg.Encode(&out, img, nil)
	return "data:image/jpeg;base64," + base64.StdEncoding.EncodeToString(out.Bytes())
}
