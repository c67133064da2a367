package challenge

import "math"

// point is in units of a character's height, y downwards.
type point struct{ x, y float64 }

// glyph is a character as a pen writes it.
type glyph struct {
	width   float64
	strokes [][]point
}

// arc is a piece of an ellipse, from an angle to another in degrees, clockwise
// from the right.
func arc(cx, cy, rx, ry, from, to float64) (points []point) {
	const steps = 14
	for i := range steps + 1 {
		sin, cos := math.Sincos((from + (to-from)*float64(i)/steps) * math.Pi / 180)
		points = append(points, point{cx + rx*cos, cy + ry*sin})
	}
	return points
}

func line(xy ...float64) (points []point) {
	for i := 0; i < len(xy); i += 2 {
		points = append(points, point{xy[i], xy[i+1]})
	}
	return points
}

func joined(parts ...[]point) (points []point) {
	for _, p := range parts {
		points = append(points, p...)
	}
	return points
}

// glyphs are the characters of sums. A minus is written by its own sign, which is
// longer than a hyphen.
var glyphs = map[rune]glyph{
	'0': {0.6, [][]point{arc(0.3, 0.5, 0.25, 0.46, 0, 360)}},
	'1': {0.5, [][]point{line(0.08, 0.22, 0.28, 0.04, 0.28, 0.96), line(0.08, 0.96, 0.48, 0.96)}},
	'2': {0.6, [][]point{joined(arc(0.3, 0.29, 0.24, 0.25, 190, 385), line(0.06, 0.96, 0.56, 0.96))}},
	'3': {0.6, [][]point{joined(arc(0.28, 0.27, 0.23, 0.23, 205, 450), arc(0.28, 0.72, 0.27, 0.24, 270, 515))}},
	'4': {0.62, [][]point{line(0.44, 0.96, 0.44, 0.04, 0.03, 0.66, 0.6, 0.66)}},
	'5': {0.6, [][]point{joined(line(0.52, 0.04, 0.13, 0.04, 0.1, 0.46), arc(0.29, 0.67, 0.26, 0.28, 225, 515))}},
	'6': {0.6, [][]point{joined(line(0.46, 0.05, 0.26, 0.2, 0.12, 0.42), arc(0.3, 0.7, 0.25, 0.26, 190, 550))}},
	'7': {0.58, [][]point{line(0.04, 0.04, 0.54, 0.04, 0.2, 0.96)}},
	'8': {0.6, [][]point{arc(0.3, 0.27, 0.2, 0.22, 0, 360), arc(0.3, 0.73, 0.25, 0.24, 0, 360)}},
	'9': {0.6, [][]point{joined(arc(0.3, 0.3, 0.25, 0.26, 10, 370), line(0.52, 0.55, 0.38, 0.8, 0.16, 0.96))}},
	'+': {0.6, [][]point{line(0.05, 0.52, 0.55, 0.52), line(0.3, 0.27, 0.3, 0.77)}},
	'−': {0.6, [][]point{line(0.05, 0.52, 0.55, 0.52)}},
	'×': {0.56, [][]point{line(0.08, 0.3, 0.48, 0.74), line(0.48, 0.3, 0.08, 0.74)}},
	'=': {0.6, [][]point{line(0.05, 0.4, 0.55, 0.4), line(0.05, 0.66, 0.55, 0.66)}},
	'?': {0.54, [][]point{joined(arc(0.27, 0.26, 0.21, 0.22, 185, 410), line(0.28, 0.58, 0.28, 0.68)), line(0.28, 0.92, 0.28, 0.93)}},
}
