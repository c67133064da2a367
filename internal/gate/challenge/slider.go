package challenge

import (
	"bytes"
	"fmt"
	"image"
	"image/draw"
	"image/jpeg"
	"image/png"
	"math/rand/v2"

	"github.com/wenlng/go-captcha/v2/base/option"
	"github.com/wenlng/go-captcha/v2/slide"
)

// Sizes of a slider, in pixels.
const (
	sliderWidth  = 340
	sliderHeight = 190
	pieceSize    = 58
	jpegQuality  = 82
)

// slider draws pictures with a hole and the piece that fits it. Where the hole is, is
// drawn by go-captcha from crypto/rand: its left edge is anywhere from 83 to 282.
type slider struct{ cuts [len(families)][]cut }

func newSlider() *slider {
	s := &slider{}
	for f, shapes := range families {
		for _, of := range shapes {
			s.cuts[f] = append(s.cuts[f], newCut(of, pieceSize))
		}
	}
	return s
}

// draw is one picture, painted for it. Beside the hole is a second one of a shape
// that nobody takes for the piece's; a program has to look which.
func (s *slider) draw(r *rand.Rand) (picture, error) {
	family := r.IntN(len(families))
	own, other := s.cuts[family], s.cuts[1-family]
	c := own[r.IntN(len(own))]
	b := slide.NewBuilder(
		slide.WithImageSize(option.Size{Width: sliderWidth, Height: sliderHeight}),
		slide.WithRangeGraphSize(option.RangeVal{Min: pieceSize, Max: pieceSize}),
		slide.WithGenGraphNumber(1),
	)
	b.SetResources(
		slide.WithBackgrounds([]image.Image{paint(sliderWidth, sliderHeight, r)}),
		slide.WithGraphImages([]*slide.GraphImage{{OverlayImage: c.rim, ShadowImage: c.hole, MaskImage: c.piece}}),
	)
	made, err := b.Make().Generate()
	if err != nil {
		return picture{}, fmt.Errorf("slider: %w", err)
	}
	at := made.GetData()
	master, err := pixels(made.GetMasterImage().Get())
	if err != nil {
		return picture{}, err
	}
	piece, err := pixels(made.GetTileImage().Get())
	if err != nil {
		return picture{}, err
	}
	decoy(master, other[r.IntN(len(other))].hole, at.X, at.Y, r)

	var hollow, solid bytes.Buffer
	// The encoder is quick with RGBA, and an opaque picture is the same in both.
	opaque := &image.RGBA{Pix: master.Pix, Stride: master.Stride, Rect: master.Rect}
	if err := jpeg.Encode(&hollow, opaque, &jpeg.Options{Quality: jpegQuality}); err != nil {
		return picture{}, fmt.Errorf("slider: %w", err)
	}
	if err := png.Encode(&solid, piece); err != nil {
		return picture{}, fmt.Errorf("slider: %w", err)
	}
	return picture{
		image: dataURL("image/jpeg", hollow.Bytes()), piece: dataURL("image/png", solid.Bytes()), answer: at.X, y: at.Y,
	}, nil
}

// pixels are those of a canvas of go-captcha's.
func pixels(i image.Image) (*image.NRGBA, error) {
	switch i := i.(type) {
	case *image.NRGBA:
		return i, nil
	case interface{ Get() *image.NRGBA }:
		return i.Get(), nil
	}
	return nil, fmt.Errorf("slider: an image of type %T", i)
}

// decoy darkens another hole at about the same height, where it touches neither
// the first nor the piece at its start, if there is room.
func decoy(master *image.NRGBA, hole image.Image, x, y int, r *rand.Rand) {
	const apart = pieceSize + 4
	for range 8 {
		at := image.Pt(apart+r.IntN(sliderWidth-apart-pieceSize), min(max(y+r.IntN(25)-12, 2), sliderHeight-pieceSize-2))
		if at.X >= x+apart || at.X <= x-apart {
			draw.Draw(master, image.Rectangle{at, at.Add(image.Pt(pieceSize, pieceSize))}, hole, image.Point{}, draw.Over)
			return
		}
	}
}
