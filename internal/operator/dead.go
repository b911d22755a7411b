package operator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/jetboxhq/jetbox/inbox"
	"github.com/jetboxhq/jetbox/internal/deadletter"
	"github.com/jetboxhq/jetbox/outbox"
)

// Outcome is what a redrive or a discard did.
type Outcome struct {
	Messages []uuid.UUID `json:"ids" doc:"The letters' messages"`
	// Letters may be more than Messages: each consumer that gave up wrote one.
	Letters int `json:"letters" doc:"How many letters that were"`
	// Refused are letters that no outbox or no inbox takes; they stay dead.
	Refused []Refusal `json:"refused,omitempty"`
}

// Refusal is why a letter stays.
type Refusal struct {
	ID   uuid.UUID `json:"id"`
	Rule string    `json:"rule" doc:"What the message breaks: a constraint of jetbox.outbox, or the age of its ID"`
}

// Redrive sends at most limit of the letters that f chooses out again, under
// their own IDs, in one transaction. A message that the broker may remember
// waits until its duplicate window is over, as the relay last saw it: the broker
// would drop it unseen. Consumers that have processed the message already skip it.
// Letters whose IDs are older than the inbox remembers stay: no worker would take
// the messages, and what is known of them would be gone for a letter that says so.
func Redrive(ctx context.Context, db DB, actor string, f deadletter.Filter, limit int) (Outcome, error) {
	fit, err := Redrivable(ctx, db, f)
	if err != nil {
		return Outcome{}, err
	}
	out, err := redriveTogether(ctx, db, actor, fit, limit)
	if outbox.BrokenRule(err) != "" {
		out, err = redriveOneByOne(ctx, db, actor, fit, limit)
	}
	if err == nil && len(f.IDs) > 0 {
		fit.Old = true
		err = refuse(ctx, db, fit, &out)
	}
	return out, err
}

// Redrivable leaves of f what Redrive would not refuse for the age of its ID.
func Redrivable(ctx context.Context, db DB, f deadletter.Filter) (deadletter.Filter, error) {
	oldest, err := inbox.Oldest(ctx, db)
	if err != nil {
		return f, fmt.Errorf("operator: redrive: %w", err)
	}
	f.From = oldest
	return f, nil
}

// tooOld is why a letter stays that was asked for by its ID.
const tooOld = "its ID is older than the inbox remembers: enqueue its payload under a new one"

// refuse adds the letters that old chooses to out.
func refuse(ctx context.Context, db DB, old deadletter.Filter, out *Outcome) error {
	letters, err := deadletter.Oldest(ctx, db, old, math.MaxInt32)
	for _, l := range letters {
		out.Refused = append(out.Refused, Refusal{l.MessageID, tooOld})
	}
	return err
}

const windowSQL = `SELECT clock_timestamp(), duplicate_window FROM jetbox.relay_lease`

func redriveTogether(ctx context.Context, db DB, actor string, f deadletter.Filter, limit int) (out Outcome, err error) {
	err = pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		letters, err := deadletter.Take(ctx, tx, f, limit)
		if err != nil || len(letters) == 0 {
			return err
		}
		var now time.Time
		var window time.Duration
		if err := tx.QueryRow(ctx, windowSQL).Scan(&now, &window); err != nil {
			return fmt.Errorf("read the duplicate window: %w", err)
		}
		out.Letters = len(letters)
		for _, l := range once(letters) {
			if err := sendAgain(ctx, tx, l, now, window); err != nil {
				return err
			}
			out.Messages = append(out.Messages, l.MessageID)
		}
		return Record(ctx, tx, actions(actor, ActionRedrive, letters)...)
	})
	if err != nil {
		return Outcome{}, fmt.Errorf("operator: redrive: %w", err)
	}
	return out, nil
}

// redriveOneByOne leaves out the letters that break a rule of the outbox. They
// count as well: each costs a transaction.
func redriveOneByOne(ctx context.Context, db DB, actor string, f deadletter.Filter, limit int) (out Outcome, err error) {
	for len(out.Messages)+len(out.Refused) < limit {
		letters, err := deadletter.Oldest(ctx, db, f, 1)
		if err != nil || len(letters) == 0 {
			return out, err
		}
		l := letters[0]
		one, err := redriveTogether(ctx, db, actor, deadletter.Filter{IDs: []uuid.UUID{l.MessageID}, Consumer: l.Consumer}, 1)
		if rule := outbox.BrokenRule(err); rule != "" {
			out.Refused = append(out.Refused, Refusal{l.MessageID, rule})
			f.Except = append(f.Except, l.MessageID)
			continue
		}
		if err != nil {
			return out, err
		}
		out.Messages, out.Letters = append(out.Messages, one.Messages...), out.Letters+one.Letters
	}
	return out, nil
}

// once drops all but one of a message's letters: one message serves all
// consumers.
func once(letters []deadletter.Full) []deadletter.Full {
	seen := map[uuid.UUID]bool{}
	var list []deadletter.Full
	for _, l := range letters {
		if !seen[l.MessageID] {
			seen[l.MessageID] = true
			list = append(list, l)
		}
	}
	return list
}

// margin is how much later than the last moment of the duplicate window.
const margin = time.Second

func sendAgain(ctx context.Context, tx pgx.Tx, l deadletter.Full, now time.Time, window time.Duration) error {
	m, err := message(l)
	if err != nil {
		return err
	}
	free := l.DiedAt.Add(window + margin)
	if l.Consumer == deadletter.Relay || !free.After(now) {
		return outbox.Enqueue(ctx, tx, m)
	}
	return outbox.Schedule(ctx, tx, free, m)
}

func message(l deadletter.Full) (outbox.Message, error) {
	m := outbox.Message{ID: l.MessageID, Subject: l.Subject, Bytes: l.PayloadBytes}
	if l.Payload != nil {
		m.Payload = l.Payload
	}
	if l.Key != nil {
		m.Key = *l.Key
	}
	if l.ContentType != nil {
		m.ContentType = *l.ContentType
	}
	if l.Headers != nil {
		if err := json.Unmarshal(l.Headers, &m.Headers); err != nil {
			return m, fmt.Errorf("headers: %w", err)
		}
	}
	return m, nil
}

// Discard removes at most limit of the letters that f chooses, for good: no
// replay brings them back to their consumer. One that no stream took had none, and
// a replay publishes it where a stream takes it by then. The audit keeps their
// reasons, not their payloads.
func Discard(ctx context.Context, db DB, actor string, f deadletter.Filter, limit int) (out Outcome, err error) {
	err = pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		letters, err := deadletter.Take(ctx, tx, f, limit)
		if err != nil || len(letters) == 0 {
			return err
		}
		out.Letters = len(letters)
		for _, l := range letters {
			if err := settle(ctx, tx, l); err != nil {
				return err
			}
			out.Messages = append(out.Messages, l.MessageID)
		}
		return Record(ctx, tx, actions(actor, ActionDiscard, letters)...)
	})
	if err != nil {
		return Outcome{}, fmt.Errorf("operator: discard: %w", err)
	}
	return out, nil
}

// settle has l's consumer skip the message should it come again. The savepoint
// lets the rest go on after a message that the inbox refuses.
func settle(ctx context.Context, tx pgx.Tx, l deadletter.Full) error {
	err := pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error {
		return inbox.Cancel(ctx, tx, l.MessageID, l.Subject, l.Consumer)
	})
	if errors.Is(err, inbox.ErrSettled) || errors.Is(err, inbox.ErrForgotten) {
		return nil
	}
	return err
}

func actions(actor, action string, letters []deadletter.Full) []Action {
	list := make([]Action, len(letters))
	for i, l := range letters {
		list[i] = Action{Actor: actor, Action: action, MessageID: &l.MessageID, Consumer: &l.Consumer, Details: details(map[string]any{
			"reason": l.Reason, "errors": l.Errors, "attempts": l.Attempts, "died_at": l.DiedAt, "subject": l.Subject,
		})}
	}
	return list
}

const clockSQL = `SELECT clock_timestamp()`

// Clock is the database's time, by which letters die.
func Clock(ctx context.Context, db DB) (time.Time, error) {
	rows, err := db.Query(ctx, clockSQL)
	if err != nil {
		return time.Time{}, fmt.Errorf("operator: clock: %w", err)
	}
	return pgx.CollectExactlyOneRow(rows, pgx.RowTo[time.Time])
}
