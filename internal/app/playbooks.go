package app

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"sluice/internal/backend/sqlstore"
	"sluice/internal/gate"
)

// shelf is the store's playbooks in the gate's words.
type shelf struct {
	store *sqlstore.Store
	bells *bells
}

// PlaybooksVersion is the number of the last change.
func (s shelf) PlaybooksVersion(ctx context.Context) (int64, error) {
	return s.store.PlaybooksVersion(ctx)
}

// Shelf is as the last change has left it. A field that this program does not
// know is an error: without it a switch would be off that an operator has turned on.
func (s shelf) Shelf(ctx context.Context) (all gate.Shelf, err error) {
	version, body, err := s.store.PlaybookShelf(ctx)
	if err != nil || version == 0 {
		return gate.Shelf{}, err
	}
	return all, known(body, &all)
}

// SaveShelf saves a change and what it leaves.
func (s shelf) SaveShelf(ctx context.Context, c gate.PlaybookChange, all gate.Shelf) error {
	about, err := json.Marshal(gate.PlaybookChange{Playbook: c.Playbook, Freeze: c.Freeze})
	if err != nil {
		return err
	}
	body, err := json.Marshal(all)
	if err != nil {
		return err
	}
	saved, err := s.store.SavePlaybooks(ctx, sqlstore.PlaybookChange{
		Version: c.Version, At: c.At, Actor: c.By, Action: string(c.Action), Subject: c.Subject, Note: c.Note, Body: about,
	}, body)
	if err == nil && !saved {
		err = gate.ErrPlaybookChanged
	}
	s.bells.saved(bellPlaybooks)
	return err
}

// PlaybookChanges pages through changes, newest first.
func (s shelf) PlaybookChanges(ctx context.Context, before int64, limit int) ([]gate.PlaybookChange, error) {
	found, err := s.store.PlaybookChanges(ctx, before, limit)
	all := make([]gate.PlaybookChange, len(found))
	for i, c := range found {
		if err := known(c.Body, &all[i]); err != nil {
			return nil, fmt.Errorf("change %d of playbooks: %w", c.Version, err)
		}
		all[i].Version, all[i].At, all[i].By, all[i].Note = c.Version, c.At, c.Actor, c.Note
		all[i].Action, all[i].Subject = gate.PlaybookAction(c.Action), c.Subject
	}
	return all, err
}

// known reads JSON all of whose fields this program knows.
func known(body []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	return d.Decode(into)
}
