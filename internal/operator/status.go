package operator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/jetboxhq/jetbox/inbox"
	"github.com/jetboxhq/jetbox/internal/deadletter"
	"github.com/jetboxhq/jetbox/outbox"
)

// The states of a message.
const (
	Unknown   = "unknown"
	Scheduled = "scheduled"
	Queued    = "queued"
	Sent      = "sent"
	Done      = "done"
	Dead      = "dead"
	Cancelled = "cancelled"
)

// Status is what has become of a message.
type Status struct {
	ID        uuid.UUID            `json:"id" db:"id"`
	Status    string               `json:"status" enum:"queued,scheduled,sent,done,dead,cancelled" doc:"sent: a worker has it, or soon will"`
	Subject   *string              `json:"subject,omitempty"`
	Consumer  *string              `json:"consumer,omitempty"`
	Result    json.RawMessage      `json:"result,omitempty" doc:"What the handler returned"`
	Reason    *string              `json:"reason,omitempty" doc:"Why it is dead"`
	Errors    []deadletter.Attempt `json:"errors,omitempty" doc:"The attempts that failed, oldest first"`
	Attempts  *int                 `json:"attempts,omitempty" doc:"How many attempts failed so far"`
	RunAt     *time.Time           `json:"run_at,omitempty"`
	ChangedAt *time.Time           `json:"changed_at,omitempty"`
}

// Ended reports whether nothing more will happen to the message by itself.
func (s Status) Ended() bool { return s.Status == Done || s.Status == Dead || s.Status == Cancelled }

const statusSQL = `SELECT k.id, s.* FROM unnest($1::uuid[]) AS k (id), jetbox.message_status(k.id) s`

// ReadStatuses returns the status of each of ids.
func ReadStatuses(ctx context.Context, db DB, ids ...uuid.UUID) ([]Status, error) {
	rows, err := db.Query(ctx, statusSQL, ids)
	if err != nil {
		return nil, fmt.Errorf("operator: status: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByName[Status])
	if err != nil {
		return nil, fmt.Errorf("operator: status: %w", err)
	}
	return list, nil
}

// ReadStatus returns the status of one message.
func ReadStatus(ctx context.Context, db DB, id uuid.UUID) (Status, error) {
	list, err := ReadStatuses(ctx, db, id)
	if err != nil {
		return Status{}, err
	}
	return list[0], nil
}

const endedSQL = `SELECT jetbox.ended($1::uuid[])`

// Ended returns which of ids have ended, in one query that is cheap for many.
func Ended(ctx context.Context, db DB, ids []uuid.UUID) ([]uuid.UUID, error) {
	rows, err := db.Query(ctx, endedSQL, ids)
	if err != nil {
		return nil, fmt.Errorf("operator: ended: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	if err != nil {
		return nil, fmt.Errorf("operator: ended: %w", err)
	}
	return list, nil
}

// StateError reports a message that is not in a state for what was asked.
type StateError struct{ Status Status }

func (e *StateError) Error() string { return "operator: message is " + e.Status.Status }

// Cancel ends a message that no consumer has processed: a scheduled one is
// removed, any other is skipped by consumers. It returns a StateError for one
// that is done, dead or unknown; one that is cancelled stays so.
func Cancel(ctx context.Context, db DB, actor string, id uuid.UUID, consumers ...string) error {
	err := pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		err := cancelScheduled(ctx, tx, actor, id)
		if !errors.Is(err, outbox.ErrNotScheduled) {
			return err
		}
		if err := cancelSent(ctx, tx, id, consumers); err != nil {
			return err
		}
		return Record(ctx, tx, Action{Actor: actor, Action: ActionCancel, MessageID: &id})
	})
	if !errors.Is(err, inbox.ErrSettled) {
		if e, ok := errors.AsType[*StateError](err); ok && e.Status.Status == Cancelled {
			return nil
		}
		return err
	}
	now, err := ReadStatus(ctx, db, id)
	if err != nil || now.Status == Cancelled {
		return err // two cancelled it at the same moment
	}
	return &StateError{now}
}

// CancelScheduled ends a message that waits for its time, and no other.
func CancelScheduled(ctx context.Context, db DB, actor string, id uuid.UUID) error {
	return pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error { return cancelScheduled(ctx, tx, actor, id) })
}

// cancelScheduled says in the audit that nothing stands in the inbox for id: it may
// be enqueued again, and is then what becomes of it.
func cancelScheduled(ctx context.Context, tx pgx.Tx, actor string, id uuid.UUID) error {
	if err := outbox.CancelScheduled(ctx, tx, id); err != nil {
		return err
	}
	return Record(ctx, tx, Action{Actor: actor, Action: ActionCancel, MessageID: &id, Details: details(map[string]any{"scheduled": true})})
}

func cancelSent(ctx context.Context, tx pgx.Tx, id uuid.UUID, consumers []string) error {
	s, err := ReadStatus(ctx, tx, id)
	if err != nil {
		return err
	}
	if s.Status != Queued && s.Status != Sent {
		return &StateError{s}
	}
	return inbox.Cancel(ctx, tx, id, *s.Subject, consumers...)
}
