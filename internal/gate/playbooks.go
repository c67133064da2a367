package gate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sluice/internal/stock"
)

// PlaybookAction is what was done to a playbook or a freeze.
type PlaybookAction string

const (
	PlaybookSaved    PlaybookAction = "saved"
	PlaybookDeleted  PlaybookAction = "deleted"
	PlaybookPulled   PlaybookAction = "pulled"
	PlaybookReverted PlaybookAction = "reverted"
	FreezePlanned    PlaybookAction = "freeze_planned"
	FreezeLifted     PlaybookAction = "freeze_lifted"
)

// PlaybookChange is one line of the trail: who did what, when and why. Lines are
// never changed. What was asked for and changed nothing leaves none.
type PlaybookChange struct {
	Version  int64          `json:"version"` // 1, 2, 3, …
	At       stock.Millis   `json:"at"`
	By       string         `json:"by"`
	Note     string         `json:"note,omitempty"`
	Action   PlaybookAction `json:"action"`
	Subject  string         `json:"subject"`            // the id of the playbook or freeze
	Playbook *Playbook      `json:"playbook,omitempty"` // as it was saved, deleted, or pulled
	Freeze   *Freeze        `json:"freeze,omitempty"`
}

// playbookStore keeps a shelf and the changes that led to it.
type playbookStore interface {
	// PlaybooksVersion is the number of the last change, 0 if there was none.
	PlaybooksVersion(ctx context.Context) (int64, error)
	// Shelf is as the last change has left it; the zero Shelf if there was none.
	Shelf(ctx context.Context) (Shelf, error)
	// SaveShelf saves a change and what it leaves, both or neither, durably, or
	// answers ErrPlaybookChanged where its version is not the next one.
	SaveShelf(ctx context.Context, c PlaybookChange, s Shelf) error
	// PlaybookChanges pages through changes of versions < before (0: the newest),
	// newest first.
	PlaybookChanges(ctx context.Context, before int64, limit int) ([]PlaybookChange, error)
}

// Playbooks keeps Active on what is pulled, and is where playbooks are written
// and pulled. Of a fleet each process has one, over the same store; it is safe
// for concurrent use.
//
// Pull and Revert may be repeated: what stands already is no error, changes
// nothing, and leaves no line in the trail.
type Playbooks struct {
	Active *Active
	store  playbookStore
	now    func() time.Time

	mu    sync.Mutex // from asking the store until the answer is in force
	shelf atomic.Pointer[Shelf]
}

// NewPlaybooks has the default playbooks, none of them pulled, until its first Step.
func NewPlaybooks(s playbookStore, a *Active, now func() time.Time) *Playbooks {
	p := &Playbooks{Active: a, store: s, now: now}
	p.shelf.Store(&Shelf{Playbooks: DefaultPlaybooks()})
	return p
}

func (p *Playbooks) moment() stock.Millis { return stock.MillisOf(p.now()) }

// Shelf is what this process knows; nobody may change it.
func (p *Playbooks) Shelf() *Shelf { return p.shelf.Load() }

// Step puts into force what another process has changed. While the store is
// away, or holds what this program cannot read, what is pulled stays pulled.
func (p *Playbooks) Step(ctx context.Context) (worked bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return false, p.catchUp(ctx)
}

func (p *Playbooks) catchUp(ctx context.Context) error {
	newest, err := p.store.PlaybooksVersion(ctx)
	if err != nil || newest == p.Shelf().Version {
		return err
	}
	s, err := p.store.Shelf(ctx)
	if err == nil {
		err = p.apply(&s)
	}
	if err != nil {
		return fmt.Errorf("playbooks of version %d: %w", newest, err)
	}
	return nil
}

func (p *Playbooks) apply(s *Shelf) error {
	if err := p.Active.Apply(s.Pulled); err != nil {
		return err
	}
	p.shelf.Store(s)
	return nil
}

// maxTries bounds how often an edit begins anew because of another process.
const maxTries = 10

// edit changes a copy of the newest shelf, saves it on the condition that it
// still is the newest, and puts it into force. A change that answers nil has
// found nothing to do.
func (p *Playbooks) edit(ctx context.Context, change func(*Shelf) (*PlaybookChange, error)) (*Shelf, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for range maxTries {
		if err := p.catchUp(ctx); err != nil {
			return nil, err
		}
		next := p.Shelf().copied()
		c, err := change(next)
		if err != nil {
			return nil, err
		}
		if c == nil {
			return p.Shelf(), nil
		}
		next.Version++
		c.Version, c.At = next.Version, p.moment()
		if err = p.store.SaveShelf(ctx, *c, *next); err == nil {
			return next, p.apply(next)
		}
		if !errors.Is(err, ErrPlaybookChanged) {
			return nil, err
		}
	}
	return nil, ErrPlaybookChanged
}

// Save puts a playbook in place of the version that it was made from, p.Version,
// and answers it as saved; version 0 makes a new one. One that is pulled stays
// in force as it was. Errors are *RuleError and ErrPlaybookChanged, after which
// nothing has changed, and the store's.
func (p *Playbooks) Save(ctx context.Context, book Playbook, by, note string) (Playbook, error) {
	if err := book.Validate(); err != nil {
		return Playbook{}, err
	}
	asked := book.Steps
	book.Steps = slices.Clone(asked) // what is kept is nobody else's
	from := book.Version
	_, err := p.edit(ctx, func(s *Shelf) (*PlaybookChange, error) {
		book.Version = from + 1
		c := &PlaybookChange{Action: PlaybookSaved, Subject: book.ID, By: by, Note: note, Playbook: &book}
		old, _ := s.Playbook(book.ID)
		switch {
		case old == nil && from == 0:
			if len(s.Playbooks) >= MaxPlaybooks {
				return nil, &RuleError{"id", fmt.Sprintf("there are %d playbooks; delete one", MaxPlaybooks)}
			}
			s.Playbooks = append(s.Playbooks, book)
			slices.SortFunc(s.Playbooks, func(a, b Playbook) int { return cmp.Compare(a.ID, b.ID) })
			return c, nil
		case old == nil || old.Version != from:
			return nil, fmt.Errorf("%w: %s", ErrPlaybookChanged, book.ID)
		}
		*old = book
		return c, nil
	})
	if err != nil {
		return Playbook{}, err
	}
	book.Steps = asked
	return book, nil
}

// Delete takes away a playbook that is not pulled, on the condition of its
// version. Errors are ErrNoSuchPlaybook, ErrPlaybookChanged, ErrPlaybookPulled
// and the store's.
func (p *Playbooks) Delete(ctx context.Context, id string, version int64, by, note string) error {
	_, err := p.edit(ctx, func(s *Shelf) (*PlaybookChange, error) {
		book, err := s.Playbook(id)
		switch {
		case err != nil:
			return nil, err
		case book.Version != version:
			return nil, fmt.Errorf("%w: %s", ErrPlaybookChanged, id)
		case s.PulledOf(id) != nil:
			return nil, fmt.Errorf("%w: %s", ErrPlaybookPulled, id)
		}
		gone := *book
		s.Playbooks = slices.DeleteFunc(s.Playbooks, func(b Playbook) bool { return b.ID == id })
		return &PlaybookChange{Action: PlaybookDeleted, Subject: id, By: by, Note: note, Playbook: &gone}, nil
	})
	return err
}

// Pull puts a playbook into force, as it is now, here at once and everywhere
// within a second; of one that is pulled it answers the pull that stands. Errors
// are ErrNoSuchPlaybook and the store's. No freeze forbids it.
func (p *Playbooks) Pull(ctx context.Context, id, by, note string) (Pulled, error) {
	s, err := p.edit(ctx, func(s *Shelf) (*PlaybookChange, error) {
		book, err := s.Playbook(id)
		if err != nil || s.PulledOf(id) != nil {
			return nil, err
		}
		s.Pulled = append(s.Pulled, pulled(book, p.moment(), by, note))
		return &PlaybookChange{Action: PlaybookPulled, Subject: id, By: by, Note: note, Playbook: book}, nil
	})
	if err != nil {
		return Pulled{}, err
	}
	return *s.PulledOf(id), nil
}

func pulled(book *Playbook, at stock.Millis, by, note string) Pulled {
	return Pulled{book.ID, book.Version, book.Title, book.Steps, at, by, note}
}

// Revert takes a playbook out of force; what others have turned on stays on.
// Errors are ErrNoSuchPlaybook and the store's. No freeze forbids it.
func (p *Playbooks) Revert(ctx context.Context, id, by, note string) error {
	_, err := p.edit(ctx, func(s *Shelf) (*PlaybookChange, error) {
		book, err := s.Playbook(id)
		at := s.pulledAt(id)
		if err != nil || at < 0 {
			return nil, err
		}
		was := *book
		was.Version, was.Title, was.Steps = s.Pulled[at].Version, s.Pulled[at].Title, s.Pulled[at].Steps
		s.Pulled = slices.Delete(s.Pulled, at, at+1)
		return &PlaybookChange{Action: PlaybookReverted, Subject: id, By: by, Note: note, Playbook: &was}, nil
	})
	return err
}

// History pages through the trail, versions < before (0: the newest), newest first.
func (p *Playbooks) History(ctx context.Context, before int64, limit int) ([]PlaybookChange, error) {
	return p.store.PlaybookChanges(ctx, before, limit)
}
