package api

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"mime"
	"path"
	"strings"

	"github.com/valyala/fasthttp"
)

// Asset is one static file, ready to be served in either encoding.
type Asset struct {
	ContentType string
	Body        []byte
	Gzip        []byte // nil where it gains nothing
	ETag        string // strong, quoted
	Immutable   bool   // its URL names this content and no other
}

// maxImages bounds the pictures held in memory, in bytes.
const maxImages = 64 << 20

// What a browser may do with what is served here. Product pictures may come
// from the shop's own host, nothing else from elsewhere. A picture opened by
// itself is a document that may do nothing at all (an SVG can hold scripts).
const (
	shellPolicy = "default-src 'self'; img-src 'self' https: data:; object-src 'none'; " +
		"base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
	imagePolicy = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
)

// files are all static files by URL path.
type files struct {
	shell  Asset
	byPath map[string]Asset
}

//go:embed openapi.json
var openAPIDocument []byte

func newFiles(shell Asset, assets map[string]Asset, images fs.FS) (files, error) {
	f := files{shell: shell, byPath: make(map[string]Asset, len(assets))}
	for p, a := range assets {
		f.byPath[p] = a
	}
	if images == nil {
		return f, nil
	}
	total := 0
	err := fs.WalkDir(images, ".", func(name string, d fs.DirEntry, err error) error {
		kind := mime.TypeByExtension(path.Ext(name))
		if err != nil || d.IsDir() || !strings.HasPrefix(kind, "image/") {
			return err
		}
		body, err := fs.ReadFile(images, name)
		if err != nil {
			return err
		}
		if total += len(body); total > maxImages {
			return fmt.Errorf("more than %d MB: serve them from elsewhere and give their full URLs", maxImages>>20)
		}
		f.byPath["/images/"+name] = picture(kind, body)
		return nil
	})
	if err != nil {
		return files{}, fmt.Errorf("images: %w", err)
	}
	return f, nil
}

func picture(kind string, body []byte) Asset {
	sum := sha256.Sum256(body)
	a := Asset{ContentType: kind, Body: body, ETag: `"` + hex.EncodeToString(sum[:10]) + `"`}
	if strings.HasPrefix(kind, "image/svg") {
		if z := zipped(body); len(z) < len(body) {
			a.Gzip = z
		}
	}
	return a
}

func zipped(body []byte) []byte {
	var out bytes.Buffer // writes to it do not fail
	w, _ := gzip.NewWriterLevel(&out, gzip.BestCompression)
	_, _ = w.Write(body)
	_ = w.Close()
	return out.Bytes()
}

// shell serves GET / and GET /a/{id}: the same page, which asks the API.
func (s *Server) shell(ctx *fasthttp.RequestCtx, _ string) {
	ctx.Response.Header.Set("Content-Security-Policy", shellPolicy)
	s.static(ctx, &s.files.shell)
}

// file serves GET /assets/… and GET /images/….
func (s *Server) file(ctx *fasthttp.RequestCtx, urlPath string) {
	a, ok := s.files.byPath[urlPath]
	if !ok {
		s.answer(ctx, notFound)
		return
	}
	if strings.HasPrefix(urlPath, "/images/") {
		ctx.Response.Header.Set("Content-Security-Policy", imagePolicy)
	}
	s.static(ctx, &a)
}

// openAPI serves GET /openapi.json: this API, as a document.
func (s *Server) openAPI(ctx *fasthttp.RequestCtx, _ string) {
	ctx.Response.Header.SetContentTypeBytes(plainJSON)
	ctx.Response.Header.SetCanonical(cacheControl, shortly)
	ctx.Response.SetBodyRaw(openAPIDocument)
}

func (s *Server) static(ctx *fasthttp.RequestCtx, a *Asset) {
	h := &ctx.Response.Header
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "same-origin")
	// A picture keeps its name when it changes, so it is asked about again.
	switch {
	case a.Immutable:
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	case strings.HasPrefix(a.ContentType, "image/"):
		h.Set("Cache-Control", "public, max-age=300")
	default:
		h.Set("Cache-Control", "no-cache")
	}
	body, tag := a.Body, a.ETag
	if a.Gzip != nil {
		h.Set("Vary", "Accept-Encoding")
		if ctx.Request.Header.HasAcceptEncoding("gzip") {
			h.Set("Content-Encoding", "gzip")
			body, tag = a.Gzip, "W/"+tag // other bytes, same meaning
		}
	}
	h.Set("ETag", tag)
	if matches(ctx.Request.Header.Peek("If-None-Match"), a.ETag) {
		ctx.Response.SetStatusCode(fasthttp.StatusNotModified)
		ctx.Response.Header.SetContentType(a.ContentType)
		return
	}
	h.SetContentType(a.ContentType)
	ctx.Response.SetBodyRaw(body)
}

// matches compares weakly, as If-None-Match asks for (RFC 9110 §13.1.2).
func matches(ifNoneMatch []byte, tag string) bool {
	for one := range bytes.SplitSeq(ifNoneMatch, []byte(",")) {
		one = bytes.TrimPrefix(bytes.TrimSpace(one), []byte("W/"))
		if len(one) > 0 && string(one) == tag || string(one) == "*" {
			return true
		}
	}
	return false
}
