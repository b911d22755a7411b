// Package operator is what people do to messages, whichever door they come
// through: look at one, cancel it, send a dead letter out again or discard it.
//
// Each change is one transaction with its line in jetbox.operator_action, so an
// audit never misses one and never tells of one that did not happen. Doing a
// thing twice does it once. What a handler has already done outside of Postgres
// no operator takes back.
package operator

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// DB is a pool or a connection.
type DB interface {
	Begin(ctx context.Context) (pgx.Tx, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// The actions.
const (
	ActionCancel  = "cancel"
	ActionRedrive = "redrive"
	ActionDiscard = "discard"
	ActionReplay  = "replay"
	ActionPause   = "pause"
	ActionResume  = "resume"

	ActionCreateToken = "create token"
	ActionRevokeToken = "revoke token"
)

// Action is one line of the audit.
type Action struct {
	At        time.Time       `json:"at"`
	Actor     string          `json:"actor"`
	Action    string          `json:"action"`
	MessageID *uuid.UUID      `json:"id,omitempty"`
	Consumer  *string         `json:"consumer,omitempty"`
	Details   json.RawMessage `json:"details"`
}

const recordSQL = `
INSERT INTO jetbox.operator_action (actor, action, message_id, consumer, details)
SELECT a.actor, a.action, a.id, nullif(a.consumer, ''), a.details::jsonb
FROM unnest($1::text[], $2::text[], $3::uuid[], $4::text[], $5::text[]) AS a (actor, action, id, consumer, details)`

// Execer is a connection, a pool or a transaction.
type Execer interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// Record writes actions to the audit.
func Record(ctx context.Context, db Execer, actions ...Action) error {
	n := len(actions)
	actors, names, ids := make([]string, n), make([]string, n), make([]*uuid.UUID, n)
	consumers, details := make([]*string, n), make([]string, n)
	for i, a := range actions {
		actors[i], names[i], ids[i], consumers[i], details[i] = a.Actor, a.Action, a.MessageID, a.Consumer, string(a.Details)
		if a.Details == nil {
			details[i] = "{}"
		}
	}
	if _, err := db.Exec(ctx, recordSQL, actors, names, ids, consumers, details); err != nil {
		return fmt.Errorf("operator: record: %w", err)
	}
	return nil
}

const historySQL = `
SELECT at, actor, action, message_id, consumer, details FROM jetbox.operator_action
WHERE message_id = $1 ORDER BY id`

// History is what was done to one message, in order.
func History(ctx context.Context, db DB, id uuid.UUID) ([]Action, error) {
	rows, err := db.Query(ctx, historySQL, id)
	if err != nil {
		return nil, fmt.Errorf("operator: history: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByName[Action])
	if err != nil {
		return nil, fmt.Errorf("operator: history: %w", err)
	}
	return list, nil
}

const pruneSQL = `DELETE FROM jetbox.operator_action WHERE at < now() - $1::interval`

// Prune removes what is older than keep.
func Prune(ctx context.Context, db Execer, keep time.Duration) error {
	if _, err := db.Exec(ctx, pruneSQL, keep); err != nil {
		return fmt.Errorf("operator: prune: %w", err)
	}
	return nil
}

func details(fields map[string]any) json.RawMessage {
	text, err := json.Marshal(fields)
	if err != nil {
		panic(err) // strings, numbers and JSON from the database always encode
	}
	return text
}
