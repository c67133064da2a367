package stocktest

import (
	"context"
	"sync"

	"sluice/internal/stock"
)

// Local is a stock.Ledger over bare Books, without a log: what the suite
// compares every durable ledger with, and a ledger for tests that need none.
type Local struct {
	mu    sync.Mutex
	books map[stock.ActivityID]*stock.Book
}

var _ stock.Ledger = (*Local)(nil)

func (l *Local) book(a stock.ActivityID) (*stock.Book, error) {
	if b := l.books[a]; b != nil {
		return b, nil
	}
	return nil, stock.ErrNoSuchActivity
}

func (l *Local) Open(_ context.Context, a stock.Allocation) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	a.Epoch = 1
	if b := l.books[a.Activity]; b != nil {
		return b.Reopen(a)
	}
	b, _, err := stock.NewBook(a)
	if err != nil {
		return err
	}
	if l.books == nil {
		l.books = map[stock.ActivityID]*stock.Book{}
	}
	l.books[a.Activity] = b
	return nil
}

func (l *Local) Adjust(_ context.Context, a stock.Adjustment) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	b, err := l.book(a.Activity)
	if err != nil {
		return err
	}
	_, err = b.Adjust(a)
	return err
}

func (l *Local) Reserve(_ context.Context, r stock.Request) (stock.Receipt, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b, err := l.book(r.Activity)
	if err != nil {
		return stock.Receipt{}, err
	}
	rec, e, err := b.Reserve(&r)
	if err != nil {
		return stock.Receipt{}, err
	}
	return stock.Receipt{Reservation: rec.Reservation, Replayed: e == nil}, nil
}

func (l *Local) Settle(_ context.Context, s stock.Settlement) (stock.Outcome, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b, err := l.book(s.ID.Activity)
	if err != nil {
		return 0, err
	}
	outcome, _, err := b.Settle(s)
	return outcome, err
}

func (l *Local) Lookup(_ context.Context, ref stock.Ref) (stock.Receipt, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, b := range l.books {
		var rec *stock.Record
		var err error
		switch {
		case ref.ID != (stock.ID{}):
			rec, err = b.Find(ref.ID)
		case ref.Activity != "" && ref.Activity != id:
			continue
		default:
			rec, err = b.Lookup(ref.User, ref.Key, ref.Order)
		}
		if err == nil {
			return stock.Receipt{Reservation: rec.Reservation, Replayed: true}, nil
		}
	}
	return stock.Receipt{}, stock.ErrNoSuchReservation
}

func (l *Local) Counts(_ context.Context, a stock.ActivityID) (stock.Counts, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b, err := l.book(a)
	if err != nil {
		return stock.Counts{}, err
	}
	return b.Counts(), nil
}
