package challenge

import (
	"bytes"
	"encoding/base64"
	"errors"
	"image"
	_ "image/jpeg"
	"image/png"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"sluice/internal/gate"
)

// decode reads a data: URL of a media type.
func decode(t testing.TB, url, media string) image.Image {
	t.Helper()
	text, found := strings.CutPrefix(url, "data:"+media+";base64,")
	content, err := base64.StdEncoding.DecodeString(text)
	if err != nil || !found {
		t.Fatalf("%.40q is no %s: %v", url, media, err)
	}
	m, _, err := image.Decode(bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// misfit is by how much, of 255, a picture differs from what the hole would look
// like if a piece were cut out at x: its inner pixels, darkened.
func misfit(m image.Image, piece *image.NRGBA, x, y int) float64 {
	const dark = holeDark / 255.0
	shade := [3]float64{10, 12, 20}
	var off, n float64
	for py := range pieceSize {
		for px := range pieceSize {
			if !inner(piece, px, py) {
				continue
			}
			is := piece.NRGBAAt(px, py)
			r, g, b, _ := m.At(x+px, y+py).RGBA()
			for i, v := range [3]uint8{is.R, is.G, is.B} {
				off += math.Abs(float64(v)*(1-dark) + shade[i]*dark - float64([3]uint32{r, g, b}[i]>>8))
			}
			n += 3
		}
	}
	return off / n
}

// inner says whether a pixel of a piece is far from its edge and the light on it.
func inner(piece *image.NRGBA, x, y int) bool {
	const far = 4
	for _, d := range [...]image.Point{{}, {far, 0}, {-far, 0}, {0, far}, {0, -far}, {3, 3}, {3, -3}, {-3, 3}, {-3, -3}} {
		if !image.Pt(x, y).Add(d).In(piece.Rect) || piece.NRGBAAt(x+d.X, y+d.Y).A != 255 {
			return false
		}
	}
	return true
}

// step is by how much a picture is brighter outside of a piece's outline than
// inside of it, if the piece lay at x: what an eye looks for, since each hole has
// a dark edge with a bright line around it.
func step(bright []float64, piece *image.NRGBA, x, y int) float64 {
	var inside, outside, in, out float64
	for py := 1; py < pieceSize-1; py++ {
		for px := 1; px < pieceSize-1; px++ {
			covered, other := piece.NRGBAAt(px, py).A > 128, false
			for _, d := range [...]image.Point{{1, 0}, {-1, 0}, {0, 1}, {0, -1}} {
				other = other || piece.NRGBAAt(px+d.X, py+d.Y).A > 128 != covered
			}
			switch is := bright[(y+py)*sliderWidth+x+px]; {
			case other && covered:
				inside, in = inside+is, in+1
			case other:
				outside, out = outside+is, out+1
			}
		}
	}
	return outside/out - inside/in
}

// find is where a hole with the outline of a piece is seen best, and how well, of
// 255.
func find(m image.Image, piece *image.NRGBA, y int) (at int, best float64) {
	bright := make([]float64, sliderWidth*sliderHeight)
	for i := range bright {
		r, g, b, _ := m.At(i%sliderWidth, i/sliderWidth).RGBA()
		bright[i] = float64(r+g+b) / 3 / 257
	}
	for x := range sliderWidth - pieceSize + 1 {
		if is := step(bright, piece, x, y); is > best {
			best, at = is, x
		}
	}
	return at, best
}

// The piece fits where the answer says: its outline is seen there and nowhere as
// well, and what is in the hole is what is on the piece, in the shade. Holes are
// anywhere, though each scenery comes twice: no guess is right for most.
func TestThePieceFits(t *testing.T) {
	s := newSlider()
	sizes := 0
	const n = 24
	var holes [sliderWidth]int
	for i := range uint64(n) {
		p, err := s.draw(rand.New(rand.NewPCG(i%(n/2), 1)))
		if err != nil {
			t.Fatal(err)
		}
		m := decode(t, p.image, "image/jpeg")
		piece, ok := decode(t, p.piece, "image/png").(*image.NRGBA)
		if !ok || piece.Rect.Size() != image.Pt(pieceSize, pieceSize) || m.Bounds().Size() != image.Pt(sliderWidth, sliderHeight) {
			t.Fatalf("%d: %v, %v", i, piece.Rect, m.Bounds())
		}
		if p.answer < 83 || p.answer > sliderWidth-pieceSize || p.y < 5 || p.y > sliderHeight-pieceSize {
			t.Errorf("%d: the hole is at %d, %d", i, p.answer, p.y)
		}
		holes[p.answer]++
		at, seen := find(m, piece, p.y)
		off := misfit(m, piece, p.answer, p.y)
		if at < p.answer-1 || at > p.answer+1 || off > 8 {
			t.Errorf("%d: seen best at %d, and the answer is %d, where it is off by %.1f", i, at, p.answer, off)
		}
		if seen < 25 {
			t.Errorf("%d: hardly to be seen: %.0f of 255", i, seen)
		}
		if size := len(p.image) + len(p.piece); size > 40_000 {
			t.Errorf("%d: %d bytes", i, size)
		} else {
			sizes += size
		}
	}
	t.Logf("%d bytes on average", sizes/n)
	for x := Tolerance; x < sliderWidth-Tolerance; x++ {
		right := 0
		for _, times := range holes[x-Tolerance : x+Tolerance+1] {
			right += times
		}
		if right > n/2 { // 1.3 are expected of a guess; more than 10 were never seen in 200,000 draws of 24
			t.Errorf("%d is the right answer for %d of %d", x, right, n)
		}
	}
}

// result computes what a picture asks for, apart from the code that asks.
func result(t *testing.T, text string) int {
	t.Helper()
	text, asks := strings.CutSuffix(text, "=?")
	at := strings.IndexAny(text, "+−×")
	if !asks || at < 1 {
		t.Fatalf("%q is no sum", text)
	}
	sign := []rune(text[at:])[0]
	a, err1 := strconv.Atoi(text[:at])
	b, err2 := strconv.Atoi(text[at+len(string(sign)):])
	if err1 != nil || err2 != nil {
		t.Fatalf("%q is no sum", text)
	}
	switch sign {
	case '+':
		return a + b
	case '−':
		return a - b
	}
	return a * b
}

// Sums have the result that they are said to have, of a size that can be done in
// one's head, and many different ones.
func TestSums(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	results := map[int]int{}
	const n = 20_000
	for range n {
		text, is := sum(r)
		if want := result(t, text); is != want || is < 0 || is > 100 {
			t.Fatalf("%s is said to be %d", text, is)
		}
		for _, c := range text {
			if glyphs[c].strokes == nil {
				t.Fatalf("%q cannot be written", c)
			}
		}
		results[is]++
	}
	for is, times := range results {
		if times > n/25 {
			t.Errorf("%d is the answer of %d in %d", is, times, n)
		}
	}
}

// Every sum is written whole, far darker than the lines about it, and dark enough
// on its paper to be read (WCAG 2.2 asks for 4.5).
func TestSumsCanBeRead(t *testing.T) {
	for i := range uint64(60) {
		r := rand.New(rand.NewPCG(i, 5))
		text, _ := sum(r)
		m := write(text, r)
		left, right, count := arithmeticWidth, 0, 0
		for at, shade := range m.Pix {
			if shade != shades-1 { // only characters are written in the darkest
				continue
			}
			x, y := at%arithmeticWidth, at/arithmeticWidth
			if x < 2 || y < 2 || x >= arithmeticWidth-2 || y >= arithmeticHeight-2 {
				t.Fatalf("%d: %s is cut off at %d, %d", i, text, x, y)
			}
			left, right, count = min(left, x), max(right, x), count+1
		}
		if right-left < arithmeticWidth/3 || count < 100*len([]rune(text)) {
			t.Errorf("%d: %s is %d wide and has %d dark pixels", i, text, right-left, count)
		}
		if c := contrast(m.Palette[0], m.Palette[shades-1]); c < 4.5 {
			t.Errorf("%d: a contrast of %.1f", i, c)
		}
		var b bytes.Buffer
		if err := png.Encode(&b, m); err != nil || b.Len() > 12_000 {
			t.Errorf("%d: %d bytes, %v", i, b.Len(), err)
		}
	}
}

// contrast is that of WCAG, 1..21.
func contrast(a, b interface{ RGBA() (r, g, b, a uint32) }) float64 {
	light := func(c interface{ RGBA() (r, g, b, a uint32) }) float64 {
		linear := func(v uint32) float64 {
			if f := float64(v) / 0xffff; f > 0.04045 {
				return math.Pow((f+0.055)/1.055, 2.4)
			} else {
				return f / 12.92
			}
		}
		r, g, b, _ := c.RGBA()
		return 0.2126*linear(r) + 0.7152*linear(g) + 0.0722*linear(b)
	}
	x, y := light(a), light(b)
	return (max(x, y) + 0.05) / (min(x, y) + 0.05)
}

// Steps fill the pools to what they hold and no further. A picture is shown to one
// while there are others, and then to seven more; when all are used up, that is
// said, and the next step helps.
func TestPoolsAreBounded(t *testing.T) {
	const ready = 3
	d := New(Options{Secret: secret, Once: NewOnce(10, time.Now), Ready: ready})
	if _, err := d.Offer("spring", "ann", ""); !errors.Is(err, gate.ErrOverloaded) {
		t.Fatalf("from nothing: %v", err)
	}
	step := func(n int) {
		t.Helper()
		for range n {
			if worked, err := d.Step(t.Context()); worked || err != nil {
				t.Fatalf("%v, %v", worked, err)
			}
		}
	}
	step(4 * ready)
	for _, c := range d.Counts() {
		if c.Fresh != ready || c.Drawn != ready {
			t.Errorf("%+v", c)
		}
	}
	shown := map[string]int{}
	for given := 1; ; given++ {
		c, err := d.Offer("spring", "ann", gate.Slider)
		if errors.Is(err, gate.ErrOverloaded) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if shown[c.Image]++; given <= ready && len(shown) != given {
			t.Errorf("picture %d was shown before", given)
		}
		if is := d.Counts()[sliderKind]; is.Fresh+is.Again > 2*ready {
			t.Errorf("%+v", is)
		}
	}
	for _, times := range shown {
		if times != maxUses || len(shown) != ready {
			t.Errorf("%d pictures, one shown %d times", len(shown), times)
		}
	}
	if is := d.Counts()[sliderKind]; is.Given != ready*maxUses || is.Repeated != ready*(maxUses-1) || is.Lacking != 2 || is.Again != 0 {
		t.Errorf("%+v", is)
	}
	if c, err := d.Offer("spring", "ann", ""); err != nil || c.Kind != gate.Arithmetic {
		t.Errorf("any kind, without sliders: %q, %v", c.Kind, err)
	}
	step(1)
	if _, err := d.Offer("spring", "ann", gate.Slider); err != nil {
		t.Error(err)
	}
	if _, err := d.Offer("spring", "ann", "words"); !errors.Is(err, gate.ErrOverloaded) {
		t.Error(err)
	}
	// What was seen is bounded too, and the oldest of it is given up.
	for range 20 {
		if is := d.Counts()[sliderKind]; is.Fresh < ready {
			d.pools[sliderKind].add(picture{})
		}
		if _, err := d.Offer("spring", "ann", gate.Slider); err != nil {
			t.Fatal(err)
		}
		if is := d.Counts()[sliderKind]; is.Fresh > ready || is.Again > ready {
			t.Fatalf("%+v", is)
		}
	}
}

// From picture to clearance, as a person goes.
func TestDrawnChallengesCanBeSolved(t *testing.T) {
	now := noon
	clock := func() time.Time { return now }
	d := New(Options{Secret: secret, Once: NewOnce(10, clock), Now: clock, Ready: 2})
	for range 4 {
		if _, err := d.Step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	c, err := d.Offer("spring", "ann", gate.Slider)
	if err != nil {
		t.Fatal(err)
	}
	m, piece := decode(t, c.Image, "image/jpeg"), decode(t, c.Piece, "image/png").(*image.NRGBA)
	now = now.Add(3 * time.Second)
	answer, _ := find(m, piece, c.PieceY)
	if _, slip, err := d.Check(t.Context(), "spring", "ann", c.Token, answer); err != nil || !strings.HasPrefix(slip.Claim(), "c:") {
		t.Errorf("%+v, %v", slip, err)
	}
	if sum, err := d.Offer("spring", "ann", gate.Arithmetic); err != nil || decode(t, sum.Image, "image/png").Bounds().Size() != image.Pt(sum.Width, sum.Height) {
		t.Errorf("%+v, %v", sum, err)
	}
}

func BenchmarkDraw(b *testing.B) {
	s := newSlider()
	b.Run("slider", func(b *testing.B) {
		for i := uint64(0); b.Loop(); i++ {
			if _, err := s.draw(rand.New(rand.NewPCG(i, 1))); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("arithmetic", func(b *testing.B) {
		for i := uint64(0); b.Loop(); i++ {
			if _, err := drawSum(rand.New(rand.NewPCG(i, 1))); err != nil {
				b.Fatal(err)
			}
		}
	})
}
