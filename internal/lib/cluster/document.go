package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

var (
	// ErrChanged: somebody else has saved the document meanwhile.
	ErrChanged = errors.New("document has been changed")
	// ErrNoSuchDocument: no document has this name, or not in this version (any more).
	ErrNoSuchDocument = errors.New("no such document")
)

// Document is one version of something that is set for all processes.
type Document struct {
	Name    string          `json:"name"`
	Version int64           `json:"version"` // ≥ 1
	Data    json.RawMessage `json:"data"`    // any JSON
	At      time.Time       `json:"at"`
	By      string          `json:"by"` // an operator
	Note    string          `json:"note,omitempty"`
}

// Check says what is out of bounds.
func (d Document) Check() error {
	switch {
	case len(d.Name) < 1 || len(d.Name) > MaxName:
		return fmt.Errorf("%w: a document's name has 1 to %d bytes", ErrInvalid, MaxName)
	case len(d.Data) > MaxData:
		return fmt.Errorf("%w: document %s has %d bytes, at most %d", ErrInvalid, d.Name, len(d.Data), MaxData)
	case !json.Valid(d.Data):
		return fmt.Errorf("%w: document %s is not JSON", ErrInvalid, d.Name)
	}
	return nil
}
