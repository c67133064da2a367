package outbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
)

// Letters are the dead letters of several queues as one list: those that could
// not be sent, and those that each reader of a bus could not take. A message has
// one id in all of them.
type Letters []Queue

// Dead lists dead letters with id > after in the order of their ids, at most
// limit, and one or two more where several readers gave up the last of the list.
func (l Letters) Dead(ctx context.Context, after int64, limit int) (page []Message, err error) {
	for _, q := range l {
		more, err := q.Dead(ctx, after, limit)
		if err != nil {
			return nil, err
		}
		page = append(page, more...)
	}
	slices.SortStableFunc(page, func(a, b Message) int { return cmp.Compare(a.ID, b.ID) })
	// Never between two of one id: the next list begins after it.
	for limit < len(page) && limit > 0 && page[limit].ID == page[limit-1].ID {
		limit++
	}
	return page[:min(limit, len(page))], nil
}

// Redrive makes the message due again wherever it is dead. ErrNoSuchMessage
// when that is nowhere.
func (l Letters) Redrive(ctx context.Context, id int64) error {
	var errs []error
	found := false
	for _, q := range l {
		switch err := q.Redrive(ctx, id); {
		case err == nil:
			found = true
		case !errors.Is(err, ErrNoSuchMessage):
			errs = append(errs, err)
		}
	}
	if !found && len(errs) == 0 {
		return fmt.Errorf("%w: no dead letter %d", ErrNoSuchMessage, id)
	}
	return errors.Join(errs...)
}
