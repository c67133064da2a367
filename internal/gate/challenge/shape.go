package challenge

import (
	"image"
	"image/color"
	"math"
)

// shape says which points of the unit square are in a piece. All of them leave a
// rim free, for the shadow around it.
type shape func(x, y float64) bool

// jigsaw is a square with a knob on some of its sides and a notch in others:
// 1, −1 or 0 each.
func jigsaw(left, top, right, bottom int) shape {
	const low, high, knob = 0.22, 0.78, 0.115
	return func(x, y float64) bool {
		in := x > low && x < high && y > low && y < high
		for _, side := range [...]struct {
			kind int
			x, y float64
			out  float64 // of the square, where the middle of the circle is
		}{{left, low, 0.5, -1}, {right, high, 0.5, 1}} {
			in = bump(in, side.kind, math.Hypot(x-side.x-side.out*float64(side.kind)*0.05, y-side.y) < knob)
		}
		in = bump(in, top, math.Hypot(x-0.5, y-low+float64(top)*0.05) < knob)
		return bump(in, bottom, math.Hypot(x-0.5, y-high-float64(bottom)*0.05) < knob)
	}
}

func bump(in bool, kind int, round bool) bool {
	switch kind {
	case 1:
		return in || round
	case -1:
		return in && !round
	}
	return in
}

// petals is a flower, or with a few deep ones a star.
func petals(n, radius, depth float64) shape {
	return func(x, y float64) bool {
		x, y = x-0.5, y-0.5
		return math.Hypot(x, y) < radius+depth*math.Cos(n*math.Atan2(x, -y))
	}
}

func heart(x, y float64) bool {
	x, y = (x-0.5)*2.9, (0.56-y)*2.9
	a := x*x + y*y - 1
	return a*a*a-x*x*y*y*y < 0
}

func shield(x, y float64) bool {
	x = math.Abs(x - 0.5)
	if y < 0.12 || y > 0.9 || x > 0.36 {
		return false
	}
	return y < 0.45 || x < 0.36*math.Sqrt(1-(y-0.45)*(y-0.45)/(0.45*0.45))
}

// families are shapes that nobody takes for one another.
var families = [2][]shape{
	{jigsaw(0, 1, 1, 0), jigsaw(-1, 1, 1, 0), jigsaw(1, 0, -1, 1), jigsaw(1, -1, 0, 1), jigsaw(-1, 1, -1, 1)},
	{petals(5, 0.33, 0.09), petals(4, 0.35, 0.07), petals(6, 0.37, 0.05), heart, shield},
}

// cut is a shape in pixels.
type cut struct {
	piece *image.NRGBA // white, as opaque as the shape covers the pixel
	rim   *image.NRGBA // laid over the piece: its bright edge, and its shadow outside
	hole  *image.NRGBA // laid over the picture where the piece was
}

// Looks of a cut: how bright and how dark, of 255.
const (
	holeDark   = 125
	edgeDark   = 190
	holeBright = 130
	rimBright  = 225
)

// newCut draws a shape of a number of pixels.
func newCut(in shape, size int) cut {
	const fine = 5 // points of a pixel, each way
	cover := make([]float64, size*size)
	for at := range cover {
		n := 0
		for i := range fine * fine {
			x := float64(at%size) + (float64(i%fine)+0.5)/fine
			y := float64(at/size) + (float64(i/fine)+0.5)/fine
			if in(x/float64(size), y/float64(size)) {
				n++
			}
		}
		cover[at] = float64(n) / (fine * fine)
	}
	box := image.Rect(0, 0, size, size)
	c := cut{image.NewNRGBA(box), image.NewNRGBA(box), image.NewNRGBA(box)}
	for at, is := range cover {
		x, y := at%size, at/size
		inside, outside := edge(cover, size, x, y)
		c.piece.SetNRGBA(x, y, color.NRGBA{255, 255, 255, uint8(255*is + 0.5)})
		switch bright := rimBright * max(0, 1-inside/2); {
		case is > 0.5:
			c.rim.SetNRGBA(x, y, color.NRGBA{255, 255, 255, uint8(bright)})
		default: // the nearer, the darker
			c.rim.SetNRGBA(x, y, color.NRGBA{0, 0, 0, uint8(110 * max(0, 1-outside/4) * (1 - is))})
		}
		if dark := holeDark + (edgeDark-holeDark)*max(0, 1-inside/3); is > 0.5 {
			c.hole.SetNRGBA(x, y, color.NRGBA{10, 12, 20, uint8(dark * is)})
		} else { // a bright line around it, by which it is seen where all is dark
			c.hole.SetNRGBA(x, y, color.NRGBA{255, 255, 255, uint8(holeBright * max(0, 1-outside/1.6))})
		}
	}
	return c
}

// edge answers how far a pixel inside is from the outside, and the other way
// round, up to 5 pixels.
func edge(cover []float64, size, x, y int) (inside, outside float64) {
	inside, outside = 5, 5
	for dy := -4; dy <= 4; dy++ {
		for dx := -4; dx <= 4; dx++ {
			covered := false
			if x+dx >= 0 && x+dx < size && y+dy >= 0 && y+dy < size {
				covered = cover[(y+dy)*size+x+dx] > 0.5
			}
			if far := math.Hypot(float64(dx), float64(dy)) - 0.5; covered {
				outside = min(outside, max(far, 0))
			} else {
				inside = min(inside, max(far, 0))
			}
		}
	}
	return inside, outside
}
