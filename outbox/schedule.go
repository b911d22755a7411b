package outbox

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

const scheduleSQL = `
INSERT INTO jetbox.scheduled (message_id, subject, key, headers, payload, payload_bytes, content_type, run_at)
SELECT id, subject, key, headers::json, payload::json, bytes, content_type, @run_at::timestamptz
FROM unnest(@ids::uuid[], @subjects::text[], @keys::text[], @headers::text[], @payloads::text[], @bytes::bytea[], @types::text[])
	AS m (id, subject, key, headers, payload, bytes, content_type)`

// Schedule has msgs enqueued at runAt, by the database's clock, if tx commits.
// The inbox keeps a message's ID by the day that a UUIDv7 carries: give an ID
// from ScheduledID, or none, when runAt is more than a day away.
func Schedule(ctx context.Context, tx pgx.Tx, runAt time.Time, msgs ...Message) error {
	var c columns
	for i, m := range msgs {
		if m.ID == uuid.Nil {
			m.ID = ScheduledID(runAt)
		}
		if err := c.add(m); err != nil {
			return fmt.Errorf("outbox: schedule message %d: %w", i, err)
		}
	}
	_, err := tx.Exec(ctx, scheduleSQL, pgx.StrictNamedArgs{
		"ids": c.ids, "subjects": c.subjects, "keys": c.keys, "headers": c.headers,
		"payloads": c.payloads, "bytes": c.bytes, "types": c.types, "run_at": runAt,
	})
	if err != nil {
		return fmt.Errorf("outbox: schedule: %w", err)
	}
	return nil
}

// ScheduledID returns the ID of a message for runAt: of the day on which the inbox
// meets it, which is today where runAt has passed.
func ScheduledID(runAt time.Time) uuid.UUID {
	if now := time.Now(); runAt.Before(now) {
		return NewID(now)
	}
	return NewID(runAt)
}

// NewID returns a UUIDv7 that carries the time at.
func NewID(at time.Time) uuid.UUID {
	id := uuid.New()
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(at.UnixMilli()))
	copy(id[:6], ms[2:])
	id[6] = id[6]&0x0f | 0x70
	return id
}

// ErrNotScheduled reports a message that is not, or no longer, scheduled.
var ErrNotScheduled = errors.New("outbox: not scheduled")

const cancelScheduledSQL = `DELETE FROM jetbox.scheduled WHERE message_id = $1`

// CancelScheduled removes a scheduled message as part of tx. It waits for a
// relay that moves the message at this moment, and then finds it gone.
func CancelScheduled(ctx context.Context, tx pgx.Tx, id uuid.UUID) error {
	tag, err := tx.Exec(ctx, cancelScheduledSQL, id)
	if err != nil {
		return fmt.Errorf("outbox: cancel scheduled: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return ErrNotScheduled
	}
	return nil
}

// Scheduled is a message that waits for its time.
type Scheduled struct {
	ID      uuid.UUID `json:"id" db:"message_id"`
	RunAt   time.Time `json:"run_at"`
	Subject string    `json:"subject"`
	Key     *string   `json:"key,omitempty"`
}

const listScheduledSQL = `
SELECT message_id, run_at, subject, key FROM jetbox.scheduled
WHERE $1 IN ('', subject) ORDER BY run_at, id LIMIT $2`

// ListScheduled returns what is scheduled, the next first. An empty subject
// means all.
func ListScheduled(ctx context.Context, db *pgx.Conn, subject string, limit int) ([]Scheduled, error) {
	rows, err := db.Query(ctx, listScheduledSQL, subject, limit)
	if err != nil {
		return nil, fmt.Errorf("outbox: list scheduled: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByName[Scheduled])
	if err != nil {
		return nil, fmt.Errorf("outbox: list scheduled: %w", err)
	}
	return list, nil
}
