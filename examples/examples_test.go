package examples

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"io/fs"
	"strings"
	"testing"
	"time"
	"unicode"
)

func TestCatalogue(t *testing.T) {
	c, err := Demo()
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Products) != 12 {
		t.Errorf("%d products, want a dozen", len(c.Products))
	}
	han := func(s string) bool {
		return strings.ContainsFunc(s, func(r rune) bool { return unicode.Is(unicode.Han, r) })
	}
	for _, p := range c.Products {
		en, zh, both := strings.Cut(p.Title, " · ")
		if !both || han(en) || !han(zh) {
			t.Errorf("%s: title %q is not English · 中文", p.ID, p.Title)
		}
		en, zh, both = strings.Cut(p.Description, "\n")
		if !both || han(en) || !han(zh) {
			t.Errorf("%s: description %q is not a line in each language", p.ID, p.Description)
		}
		if _, err := fs.Stat(Images(), strings.TrimPrefix(p.Image, "/images/")); err != nil {
			t.Errorf("%s: picture: %v", p.ID, err)
		}
		if p.Price.Currency != "CNY" || p.Price.Amount < 100 {
			t.Errorf("%s: price %v", p.ID, p.Price)
		}
	}
}

func TestActivities(t *testing.T) {
	c, err := Demo()
	if err != nil {
		t.Fatal(err)
	}
	list := map[string]int64{}
	for _, p := range c.Products {
		list[string(p.ID)] = p.Price.Amount
	}
	now := time.UnixMilli(1_800_000_000_000)
	soonest := time.Duration(1 << 62)
	for _, a := range c.Activities(now) {
		opens := a.OpensAt.Time().Sub(now)
		soonest = min(soonest, opens)
		if opens <= 0 || a.ClosesAt <= a.OpensAt || a.HoldSeconds < 60 {
			t.Errorf("%s: opens in %v, closes %v later, holds %d s", a.ID, opens, a.ClosesAt-a.OpensAt, a.HoldSeconds)
		}
		if len(a.Items) < 3 || len(a.Items) > 6 {
			t.Errorf("%s: %d items", a.ID, len(a.Items))
		}
		units := map[int]bool{}
		for _, i := range a.Items {
			units[i.Units] = true
			if i.Units < 1 || i.PerOrder < 1 || i.PerUser < i.PerOrder || i.Price.Validate() != nil || i.Price.Amount >= list[string(i.SKU)] {
				t.Errorf("%s: item %+v", a.ID, i)
			}
		}
		if len(units) != len(a.Items) {
			t.Errorf("%s: items should differ in stock", a.ID)
		}
	}
	if soonest > 20*time.Second {
		t.Errorf("the first sale opens only after %v", soonest)
	}
}

func TestImages(t *testing.T) {
	files, err := fs.Glob(Images(), "*.svg")
	if err != nil || len(files) != 12 {
		t.Fatalf("%d pictures, %v", len(files), err)
	}
	for _, name := range files {
		body, err := fs.ReadFile(Images(), name)
		if err != nil {
			t.Fatal(err)
		}
		if len(body) > 4<<10 {
			t.Errorf("%s: %d bytes", name, len(body))
		}
		for _, active := range []string{"<script", "href", "style", "<image"} {
			if bytes.Contains(body, []byte(active)) {
				t.Errorf("%s: holds %s; pictures are passive", name, active)
			}
		}
		d := xml.NewDecoder(bytes.NewReader(body))
		for {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Errorf("%s: %v", name, err)
				break
			}
		}
	}
}
