package api

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
	"unsafe"

	"github.com/valyala/fastjson"

	"sluice/internal/pricing"
	"sluice/internal/stock"
)

// decoder reads one JSON object strictly. It is reused; what it returns lives
// until its next use.
type decoder struct{ parser fastjson.Parser }

// maxDepth is how deep any body of this API nests: object, items, item.
const maxDepth = 3

// object parses body, which must be one JSON object and nothing else. The
// parser alone is too lenient: it takes numbers such as "+1" and "nan", and
// strings with raw control characters or broken escapes, so its validator runs
// first. And before both, depth: their error messages nest, at a cost that
// grows with depth × size.
func (d *decoder) object(body []byte) (*fastjson.Object, error) {
	if len(body) == 0 {
		return nil, &fieldError{"body", "is empty"}
	}
	if deeper(body, maxDepth) {
		return nil, &fieldError{"body", fmt.Sprintf("nests deeper than %d levels", maxDepth)}
	}
	if fastjson.ValidateBytes(body) != nil {
		return nil, &fieldError{"body", "is not valid JSON"}
	}
	v, err := d.parser.ParseBytes(body)
	if err != nil {
		return nil, &fieldError{"body", "is not valid JSON"}
	}
	if v.Type() != fastjson.TypeObject {
		return nil, &fieldError{"body", "must be a JSON object"}
	}
	o, _ := v.Object()
	return o, nil
}

// strings reads an object whose only fields are strings named in want, of
// 1..limit printable ASCII characters without spaces. The values are copies.
func (d *decoder) strings(body []byte, limit int, want ...string) (map[string]string, error) {
	o, err := d.object(body)
	if err != nil {
		return nil, err
	}
	got := make(map[string]string, len(want))
	o.Visit(func(key []byte, v *fastjson.Value) {
		if err != nil {
			return
		}
		name := string(key)
		if !slices.Contains(want, name) {
			err = unknownField("", key)
			return
		}
		if _, seen := got[name]; seen {
			err = once(name, true)
			return
		}
		var s string
		s, err = text(name, v, limit)
		got[name] = strings.Clone(s)
	})
	return got, err
}

// deeper tells whether brackets outside strings nest deeper than limit.
func deeper(b []byte, limit int) bool {
	depth := 0
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '{', '[':
			if depth++; depth > limit {
				return true
			}
		case '}', ']':
			depth--
		case '"':
			for i++; i < len(b) && b[i] != '"'; i++ {
				if b[i] == '\\' {
					i++
				}
			}
		}
	}
	return false
}

// unknownField names a field that is not in the contract; it came from
// outside, so only a bounded part of it is echoed.
func unknownField(prefix string, key []byte) *fieldError {
	name := strings.ToValidUTF8(string(key[:min(len(key), 64)]), "\uFFFD")
	return &fieldError{prefix + name, "is not a known field"}
}

// text reads a string of 1..limit printable ASCII bytes without spaces. The
// result is a view of the decoder's buffer.
func text(field string, v *fastjson.Value, limit int) (string, error) {
	if v.Type() != fastjson.TypeString {
		return "", &fieldError{field, "must be a string"}
	}
	b := v.GetStringBytes()
	if !printable(b, limit) {
		return "", &fieldError{field, fmt.Sprintf("must be 1..%d printable ASCII characters without spaces", limit)}
	}
	return view(b), nil
}

// printable allows 1..limit bytes '!'..'~'.
func printable(b []byte, limit int) bool {
	if len(b) < 1 || len(b) > limit {
		return false
	}
	for _, c := range b {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return true
}

// validID is catalog.ID by hand: it stands on the path of every attempt.
func validID(s string) bool {
	if len(s) < 1 || len(s) > stock.MaxID || s[0] == '-' || s[0] == '_' {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

// view is b as a string without a copy: valid only as long as b is, that is at
// most until the handler returns.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// appendString writes s as a JSON string. Invalid UTF-8 becomes U+FFFD.
func appendString(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if c >= ' ' && c != '"' && c != '\\' {
				i++
				continue
			}
			dst = append(dst, s[start:i]...)
			if c < ' ' {
				dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
			} else {
				dst = append(dst, '\\', c)
			}
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && size == 1 {
			dst = append(dst, s[start:i]...)
			dst = append(dst, `\ufffd`...)
			start = i + 1
		}
		i += size
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}

// timeLayout is RFC 3339 in UTC with milliseconds.
const timeLayout = "2006-01-02T15:04:05.000Z"

// appendTime writes a time as a JSON string.
func appendTime(dst []byte, m stock.Millis) []byte {
	dst = append(dst, '"')
	dst = time.UnixMilli(int64(m)).UTC().AppendFormat(dst, timeLayout)
	return append(dst, '"')
}

// totalOf reads the total out of a reservation's terms (pricing.Terms), without
// decoding the rest of them. Where the terms are gone, so is the total: it is
// the zero Money.
func (d *decoder) totalOf(terms []byte) (pricing.Money, error) {
	if len(terms) == 0 {
		return pricing.Money{}, nil
	}
	v, err := d.parser.ParseBytes(terms)
	if err != nil {
		return pricing.Money{}, fmt.Errorf("terms of a reservation: %w", err)
	}
	return pricing.Money{Amount: v.GetInt64("total"), Currency: currency(v.GetStringBytes("currency"))}, nil
}

// currency avoids a copy of the usual codes.
func currency(b []byte) string {
	for _, known := range [...]string{"CNY", "USD", "EUR"} {
		if bytes.Equal(b, []byte(known)) {
			return known
		}
	}
	return string(b)
}
