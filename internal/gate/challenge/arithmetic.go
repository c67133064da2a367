package challenge

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math"
	"math/rand/v2"
)

// Sizes of a sum, in pixels.
const (
	arithmeticWidth  = 240
	arithmeticHeight = 80
	margin           = 8
)

// sum is a task and its result, of 0..100.
func sum(r *rand.Rand) (text string, result int) {
	switch r.IntN(5) {
	case 0:
		a, b := 2+r.IntN(8), 2+r.IntN(8)
		return fmt.Sprintf("%d×%d=?", a, b), a * b
	case 1, 2:
		a, b := 21+r.IntN(70), 2+r.IntN(18)
		return fmt.Sprintf("%d−%d=?", a, b), a - b
	}
	a, b := 12+r.IntN(70), 2+r.IntN(18)
	return fmt.Sprintf("%d+%d=?", a, b), a + b
}

func drawSum(r *rand.Rand) (picture, error) {
	text, result := sum(r)
	var b bytes.Buffer
	if err := png.Encode(&b, write(text, r)); err != nil {
		return picture{}, fmt.Errorf("arithmetic: %w", err)
	}
	return picture{image: dataURL("image/png", b.Bytes()), answer: result}, nil
}

// shades of a sum's picture, from paper to ink: as many as four bits are for.
const shades = 16

// sheet is a picture being written on: how much ink each pixel has, 0..1.
type sheet struct {
	ink [arithmeticWidth * arithmeticHeight]float64
}

// write draws a text as somebody writes on a train: each character is leaning,
// turned and moved, the whole runs in a wave, and lines and specks are about.
func write(text string, r *rand.Rand) *image.Paletted {
	s := &sheet{}
	between := func(least, most float64) float64 { return least + (most-least)*r.Float64() }
	wave, length, phase := between(1.5, 3.5), between(35, 60), between(0, 6)
	bend := func(p point) point {
		return point{p.x + 0.6*wave*math.Sin(p.y/length*4+phase), p.y + wave*math.Sin(p.x/length+phase)}
	}
	for range 5 {
		s.scrawl(bend, between(0.3, 0.5), between(0.9, 1.6), between)
	}
	height, gap := between(38, 43), between(0.16, 0.24)
	width := -gap
	for _, c := range text {
		width += glyphs[c].width + gap
	}
	// What is too long is written smaller.
	height = min(height, (arithmeticWidth-4*margin)/width)
	at := (arithmeticWidth-width*height)/2 + between(-6, 6)
	for _, c := range text {
		g := glyphs[c]
		size, lean, turn := height*between(0.9, 1.05), between(-0.18, 0.18), between(-0.14, 0.14)
		middle := point{at + g.width*height/2, arithmeticHeight/2 + between(-4, 4)}
		pen := between(4, 5.2)
		sin, cos := math.Sincos(turn)
		place := func(p point) point {
			x, y := (p.x-g.width/2-lean*(p.y-0.5))*size, (p.y-0.5)*size
			return bend(point{middle.x + x*cos - y*sin, middle.y + x*sin + y*cos})
		}
		for _, stroke := range g.strokes {
			for i := range stroke[1:] {
				s.stroke(place(stroke[i]), place(stroke[i+1]), pen, 1)
			}
		}
		at += (g.width + gap) * height
	}
	for range 60 {
		p := point{between(0, arithmeticWidth), between(0, arithmeticHeight)}
		s.stroke(p, p, between(1, 2.4), between(0.25, 0.7))
	}
	return s.print(r.Float64(), r)
}

// scrawl is a line from side to side.
func (s *sheet) scrawl(bend func(point) point, ink, pen float64, between func(least, most float64) float64) {
	from, to := between(5, arithmeticHeight-5), between(5, arithmeticHeight-5)
	swing, length, phase := between(3, 10), between(15, 40), between(0, 6)
	last := point{}
	for i := range 81 {
		part := float64(i) / 80
		p := bend(point{part * arithmeticWidth, from + (to-from)*part + swing*math.Sin(part*arithmeticWidth/length+phase)})
		if i > 0 {
			s.stroke(last, p, pen, ink)
		}
		last = p
	}
}

// stroke draws a line with round ends, pen pixels wide. Ink does not add up.
func (s *sheet) stroke(a, b point, pen, ink float64) {
	half := pen / 2
	for y := int(min(a.y, b.y) - half - 1); y <= int(max(a.y, b.y)+half+1); y++ {
		for x := int(min(a.x, b.x) - half - 1); x <= int(max(a.x, b.x)+half+1); x++ {
			if x < 0 || y < 0 || x >= arithmeticWidth || y >= arithmeticHeight {
				continue
			}
			at := &s.ink[y*arithmeticWidth+x]
			*at = max(*at, ink*min(max(half-distance(point{float64(x), float64(y)}, a, b)+0.5, 0), 1))
		}
	}
}

// distance is that of a point from the line between two.
func distance(p, a, b point) float64 {
	dx, dy := b.x-a.x, b.y-a.y
	part := 0.0
	if d := dx*dx + dy*dy; d > 0 {
		part = min(max(((p.x-a.x)*dx+(p.y-a.y)*dy)/d, 0), 1)
	}
	return math.Hypot(p.x-a.x-part*dx, p.y-a.y-part*dy)
}

// print makes a picture of the sheet, in a colour of its own.
func (s *sheet) print(h float64, r *rand.Rand) *image.Paletted {
	paper, ink := hue(h+0.5, 0.35, 0.94), hue(h, 0.65, 0.25)
	palette := make(color.Palette, shades)
	for i := range palette {
		c := paper.to(ink, float64(i)/(shades-1))
		palette[i] = color.NRGBA{uint8(255 * c.r), uint8(255 * c.g), uint8(255 * c.b), 255}
	}
	m := image.NewPaletted(image.Rect(0, 0, arithmeticWidth, arithmeticHeight), palette)
	for i, v := range s.ink {
		n := 0.12 * r.Float64() // grain of the paper
		m.Pix[i] = uint8(min(max(v, n), 1)*(shades-1) + 0.5)
	}
	return m
}
