package linear

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

// format of a history's file: a head line, a line for each operation, and one
// that says that this is all.
const (
	format   = 1
	lastLine = What("end")
)

type head struct {
	Format int `json:"history"`
	History
}

// maxLine bounds a line of a history's file.
const maxLine = 1 << 20

// Write writes a history as JSON lines.
func Write(w io.Writer, h History) error {
	b := bufio.NewWriter(w)
	e := json.NewEncoder(b)
	if err := e.Encode(head{format, h}); err != nil {
		return err
	}
	for op := range h.Ops {
		if err := e.Encode(op); err != nil {
			return err
		}
	}
	if err := e.Encode(Op{What: lastLine}); err != nil {
		return err
	}
	return b.Flush()
}

// Read reads what Write wrote. A file that was cut off is ErrHistory.
func Read(r io.Reader) (History, error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	number := 0
	next := func(into any) (bool, error) {
		if !lines.Scan() {
			return false, lines.Err()
		}
		number++
		if err := json.Unmarshal(lines.Bytes(), into); err != nil {
			return false, fmt.Errorf("%w: line %d: %w", ErrHistory, number, err)
		}
		return true, nil
	}
	var first head
	ok, err := next(&first)
	if err != nil {
		return History{}, err
	}
	if !ok || first.Format != format {
		return History{}, fmt.Errorf("%w: the first line is not the head of a history of format %d", ErrHistory, format)
	}
	var ops []Op
	for {
		var op Op
		ok, err := next(&op)
		if errors.Is(err, bufio.ErrTooLong) {
			return History{}, fmt.Errorf("%w: line %d is too long", ErrHistory, number+1)
		}
		if err != nil {
			return History{}, err
		}
		if !ok {
			return History{}, fmt.Errorf("%w: it was cut off after line %d", ErrHistory, number)
		}
		if op.What == lastLine {
			first.Ops = slices.Values(ops)
			return first.History, nil
		}
		ops = append(ops, op)
	}
}
