package challenge

import (
	"image"
	"math"
	"math/rand/v2"
)

// tone is a colour, of 0..1 each.
type tone struct{ r, g, b float64 }

func (a tone) to(b tone, part float64) tone {
	return tone{a.r + (b.r-a.r)*part, a.g + (b.g-a.g)*part, a.b + (b.b-a.b)*part}
}

// hue is a colour by hue (turns), saturation and lightness (0..1).
func hue(h, s, l float64) tone {
	channel := func(n float64) float64 {
		k := math.Mod(n+12*(h-math.Floor(h)), 12)
		return l - s*min(l, 1-l)*max(-1, min(k-3, 9-k, 1))
	}
	return tone{channel(0), channel(8), channel(4)}
}

// scene is a picture being painted, opaque.
type scene struct {
	*image.NRGBA
	w, h int
	r    *rand.Rand
}

// blend lays a colour over a pixel, as far as it covers it (0..1).
func (s scene) blend(x, y int, c tone, cover float64) {
	if cover <= 0 || x < 0 || y < 0 || x >= s.w || y >= s.h {
		return
	}
	cover = min(cover, 1)
	p := s.Pix[y*s.Stride+4*x:]
	for i, v := range [3]float64{c.r, c.g, c.b} {
		p[i] = uint8(float64(p[i])*(1-cover) + 255*min(max(v, 0), 1)*cover + 0.5)
	}
}

// between draws a number from a range.
func (s scene) between(least, most float64) float64 { return least + (most-least)*s.r.Float64() }

// skies are hues that a sky can have: by day, in the evening, in the morning.
var skies = [...]float64{0.55, 0.58, 0.61, 0.64, 0.07, 0.1, 0.97, 0.74, 0.5}

// paint draws a landscape that nobody has seen: hills, a city, or the sea.
func paint(w, h int, r *rand.Rand) *image.NRGBA {
	s := scene{image.NewNRGBA(image.Rect(0, 0, w, h)), w, h, r}
	for i := 3; i < len(s.Pix); i += 4 {
		s.Pix[i] = 255
	}
	base := skies[r.IntN(len(skies))] + s.between(-0.03, 0.03)
	low := hue(base+s.between(0, 0.08), 0.7, s.between(0.76, 0.88))
	s.sky(hue(base, s.between(0.35, 0.6), s.between(0.42, 0.62)), low)
	switch r.IntN(3) {
	case 0:
		s.hills(base+s.between(0.25, 0.6), low)
	case 1:
		s.city(base+s.between(0.4, 0.6), low)
	default:
		s.sea(base+s.between(-0.1, 0.15), low)
	}
	s.grain()
	return s.NRGBA
}

// sky has a sun and clouds.
func (s scene) sky(top, low tone) {
	for y := range s.h {
		c := top.to(low, math.Pow(float64(y)/float64(s.h), 1.3))
		for x := range s.w {
			s.blend(x, y, c, 1)
		}
	}
	x, y, size := s.between(0.2, 0.95)*float64(s.w), s.between(0.12, 0.4)*float64(s.h), s.between(12, 26)
	bright := low.to(tone{1, 0.98, 0.9}, 0.85)
	s.disc(x, y, size*2.2, bright, 0.25, size*1.6)
	s.disc(x, y, size, bright, 0.95, 1.5)
	for range 3 + s.r.IntN(4) {
		x, y, size := s.between(0, 1)*float64(s.w), s.between(0.05, 0.45)*float64(s.h), s.between(7, 15)
		for i := range 4 + s.r.IntN(3) {
			s.disc(x+float64(i)*size*0.9, y+s.between(-0.35, 0.35)*size, size*s.between(0.7, 1.1), tone{1, 1, 1}, 0.4, 3)
		}
	}
}

// disc is a circle whose edge is soft over some pixels.
func (s scene) disc(cx, cy, radius float64, c tone, cover, soft float64) {
	for y := int(cy - radius - soft); y <= int(cy+radius+soft); y++ {
		for x := int(cx - radius - soft); x <= int(cx+radius+soft); x++ {
			far := math.Hypot(float64(x)-cx, float64(y)-cy)
			s.blend(x, y, c, cover*min(max((radius-far)/soft+0.5, 0), 1))
		}
	}
}

// ridge is a line that rises and falls.
func (s scene) ridge(level, height float64) func(x int) float64 {
	var waves [4]struct{ size, length, at float64 }
	for i := range waves {
		waves[i].size = height / float64(i+1)
		waves[i].length = s.between(0.6, 1.4) * float64(s.w) / float64(2*i*i+1) / 3
		waves[i].at = s.between(0, 2*math.Pi)
	}
	return func(x int) float64 {
		y := level
		for _, w := range waves {
			y += w.size * math.Sin(w.at+float64(x)/w.length)
		}
		return y
	}
}

// fill paints what is below a line, fading from one colour to another.
func (s scene) fill(line func(x int) float64, from, to tone) {
	for x := range s.w {
		top := line(x)
		for y := max(int(top)-1, 0); y < s.h; y++ {
			s.blend(x, y, from.to(to, (float64(y)-top)/float64(s.h)*1.6), float64(y)-top+0.5)
		}
	}
}

// hills are five, nearer ones darker, with trees on the nearest.
func (s scene) hills(at float64, haze tone) {
	const layers = 5
	for i := range layers {
		near := float64(i+1) / layers
		c := haze.to(hue(at+0.04*float64(i), 0.45, 0.5-0.32*near), 0.35+0.65*near)
		line := s.ridge((0.42+0.46*near*near+0.05*near)*float64(s.h), 11)
		s.fill(line, c, c.to(tone{}, 0.45))
		if i < 2 {
			continue
		}
		for range 26 {
			x := s.r.IntN(s.w)
			s.tree(float64(x), line(x)+2, s.between(6, 10)+8*near, c.to(tone{0.02, 0.08, 0.05}, 0.55))
		}
	}
}

// tree is a fir.
func (s scene) tree(cx, foot, size float64, c tone) {
	for y := 0.0; y < size; y++ {
		half := (y/size*0.75 + 0.25*math.Mod(y, size/3)/(size/3)) * size * 0.32
		for x := math.Floor(cx - half - 1); x <= cx+half+1; x++ {
			s.blend(int(x), int(foot-size+y), c, half-math.Abs(x-cx)+0.5)
		}
	}
}

// city is three rows of houses, with light in some windows.
func (s scene) city(at float64, haze tone) {
	for row := range 3 {
		near := float64(row+1) / 3
		wall := haze.to(hue(at, 0.35, 0.16), 0.4+0.55*near)
		lit := hue(0.11+s.between(-0.03, 0.04), 0.95, 0.72)
		for x := -s.r.IntN(20); x < s.w; {
			wide := 18 + s.r.IntN(26)
			top := int((0.3 + 0.2*near + s.between(0, 0.22)) * float64(s.h))
			face := wall.to(tone{}, s.between(0, 0.25))
			for y := top; y < s.h; y++ {
				for i := range wide {
					s.blend(x+i, y, face, 1)
				}
			}
			for wy := top + 5; wy < s.h-4; wy += 8 {
				for wx := x + 4; wx < x+wide-5; wx += 7 {
					c, cover := face.to(tone{1, 1, 1}, 0.14), 1.0
					if s.r.IntN(3) == 0 {
						c, cover = lit, 0.35+0.6*near
					}
					for i := range 4 * 4 {
						s.blend(wx+i%4, wy+i/4, c, cover)
					}
				}
			}
			x += wide + s.r.IntN(4)
		}
	}
}

// sea has islands, waves and boats.
func (s scene) sea(at float64, haze tone) {
	shore := s.between(0.45, 0.58) * float64(s.h)
	for i := range 2 {
		island := s.ridge(shore-4+6*float64(i), 12)
		c := haze.to(hue(at+0.1, 0.3, 0.35), 0.5+0.25*float64(i))
		s.fill(island, c, c)
	}
	deep := hue(at+0.02, 0.6, 0.28)
	s.fill(func(int) float64 { return shore }, haze.to(deep, 0.55), deep.to(tone{}, 0.35))
	for y := shore + 2; y < float64(s.h); y += 3 + (y-shore)/9 {
		length, phase := s.between(9, 26), s.between(0, 6)
		for x := range s.w {
			crest := math.Sin(float64(x)/length+phase) + 0.6*math.Sin(float64(x)/length*2.7+phase*2)
			s.blend(x, int(y+1.5*crest), tone{0.95, 0.98, 1}, 0.16+0.22*crest)
		}
	}
	for range 3 + s.r.IntN(3) {
		y := s.between(shore+4, float64(s.h)-12)
		s.boat(s.between(0.05, 0.95)*float64(s.w), y, 8+(y-shore)/4)
	}
}

// boat is a hull and a sail.
func (s scene) boat(cx, y, size float64) {
	sail, hull := hue(s.r.Float64(), 0.75, 0.8), hue(s.r.Float64(), 0.5, 0.28)
	for i := 0.0; i < size*1.5; i++ {
		for x := 0.0; x < i*0.55; x++ {
			s.blend(int(cx+x), int(y-size*1.5+i), sail, 1)
		}
	}
	for i := 0.0; i < size*0.35; i++ {
		for x := -size*0.8 + i; x < size*0.9-i; x++ {
			s.blend(int(cx+x), int(y+i), hull, 1)
		}
	}
}

// grain makes no two pixels of a surface quite alike.
func (s scene) grain() {
	for i := 0; i < len(s.Pix); i += 4 {
		n := int(s.r.Uint32()>>29) - 4
		for j := range 3 {
			s.Pix[i+j] = uint8(min(max(int(s.Pix[i+j])+n, 0), 255))
		}
	}
}
