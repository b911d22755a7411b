// Package deadletter owns the table jetbox.dead_letter, where the relay and the
// worker set aside, with a reason, what no retry can help.
//
// A letter is written in its caller's transaction, so that a message is never
// both dead and alive. Whatever the broker delivered can be stored: bytes that
// a Postgres type would refuse go to payload_bytes or are replaced.
package deadletter

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// Relay is the consumer of a letter about a message the relay could not publish.
const Relay = "$relay"

// Letter is a message set aside for a person.
type Letter struct {
	MessageID   uuid.UUID
	Consumer    string // the worker's durable consumer, or Relay
	Subject     string
	Key         string              // empty is none
	Headers     map[string][]string // the application's own
	Payload     []byte
	ContentType string // empty is JSON
	Reason      string
	Errors      []Attempt // oldest first
	Attempts    int
	OutboxID    int64  // zero where the outbox row is not known
	Stream      string // empty for a message that was never published
	StreamSeq   uint64
}

// Attempt is one run of a handler that failed.
type Attempt struct {
	Attempt int       `json:"attempt"`
	At      time.Time `json:"at"`
	Error   string    `json:"error"`
}

// insertSQL replaces a letter that exists: the newer one has the later reason.
const insertSQL = `
INSERT INTO jetbox.dead_letter (message_id, consumer, subject, key, headers, payload, payload_bytes,
	content_type, reason, errors, attempts, outbox_id, stream, stream_seq)
SELECT message_id, consumer, subject, nullif(key, ''), headers::json, payload::json, payload_bytes,
	nullif(content_type, ''), reason, errors::jsonb, attempts, nullif(outbox_id, 0), nullif(stream, ''), nullif(stream_seq, 0)
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bytea[],
	$8::text[], $9::text[], $10::text[], $11::int[], $12::bigint[], $13::text[], $14::bigint[])
	AS l (message_id, consumer, subject, key, headers, payload, payload_bytes,
		content_type, reason, errors, attempts, outbox_id, stream, stream_seq)
ORDER BY message_id, consumer
ON CONFLICT (message_id, consumer) DO UPDATE SET
	subject = excluded.subject, key = excluded.key, headers = excluded.headers,
	payload = excluded.payload, payload_bytes = excluded.payload_bytes, content_type = excluded.content_type,
	reason = excluded.reason, errors = excluded.errors, attempts = excluded.attempts,
	outbox_id = coalesce(excluded.outbox_id, dead_letter.outbox_id),
	stream = excluded.stream, stream_seq = excluded.stream_seq, died_at = excluded.died_at`

// Insert writes letters as part of tx. Of two about the same message and
// consumer the last one stays.
func Insert(ctx context.Context, tx pgx.Tx, letters ...Letter) error {
	if len(letters) == 0 {
		return nil
	}
	c, err := newColumns(lastOfEach(letters))
	if err != nil {
		return fmt.Errorf("deadletter: encode: %w", err)
	}
	if _, err := tx.Exec(ctx, insertSQL, c.id, c.consumer, c.subject, c.key, c.headers, c.payload, c.bytes,
		c.contentType, c.reason, c.errors, c.attempts, c.outboxID, c.stream, c.streamSeq); err != nil {
		return fmt.Errorf("deadletter: insert: %w", err)
	}
	return nil
}

// lastOfEach drops all but the last letter of each message and consumer: ON
// CONFLICT refuses to touch a row twice in one statement.
func lastOfEach(letters []Letter) []Letter {
	type identity struct {
		id       uuid.UUID
		consumer string
	}
	at := make(map[identity]int, len(letters))
	kept := make([]Letter, 0, len(letters))
	for _, l := range letters {
		who := identity{l.MessageID, l.Consumer}
		if i, ok := at[who]; ok {
			kept[i] = l
			continue
		}
		at[who] = len(kept)
		kept = append(kept, l)
	}
	return kept
}

// columns is the letters as insertSQL takes them: an array a column.
type columns struct {
	id                                  []pgtype.UUID
	consumer, subject, key, contentType []string
	headers, payload                    []*string
	bytes                               [][]byte
	reason, errors, stream              []string
	attempts                            []int
	outboxID, streamSeq                 []int64
}

func newColumns(letters []Letter) (columns, error) {
	var c columns
	for _, l := range letters {
		errs, err := json.Marshal(l.Errors)
		if err != nil {
			return c, err
		}
		headers, err := HeaderText(l.Headers)
		if err != nil {
			return c, err
		}
		if l.Errors == nil {
			errs = []byte("[]")
		}
		payload, raw := SplitPayload(l.ContentType, l.Payload)
		c.id = append(c.id, pgtype.UUID{Bytes: l.MessageID, Valid: true})
		c.consumer = append(c.consumer, Text(l.Consumer))
		c.subject = append(c.subject, Text(l.Subject))
		c.key = append(c.key, Text(l.Key))
		c.headers = append(c.headers, headers)
		c.payload = append(c.payload, payload)
		c.bytes = append(c.bytes, raw)
		c.contentType = append(c.contentType, Text(l.ContentType))
		c.reason = append(c.reason, Text(l.Reason))
		c.errors = append(c.errors, withoutNUL(string(errs)))
		c.attempts = append(c.attempts, l.Attempts)
		c.outboxID = append(c.outboxID, l.OutboxID)
		c.stream = append(c.stream, Text(l.Stream))
		c.streamSeq = append(c.streamSeq, int64(l.StreamSeq))
	}
	return c, nil
}

// Count is how many letters a consumer has.
type Count struct {
	Consumer string
	Letters  int64
}

const countSQL = `SELECT consumer, count(*) AS letters FROM jetbox.dead_letter GROUP BY consumer ORDER BY consumer`

// CountByConsumer counts the letters of each consumer that has any.
func CountByConsumer(ctx context.Context, db *pgx.Conn) ([]Count, error) {
	rows, err := db.Query(ctx, countSQL)
	if err != nil {
		return nil, fmt.Errorf("deadletter: count: %w", err)
	}
	counts, err := pgx.CollectRows(rows, pgx.RowToStructByName[Count])
	if err != nil {
		return nil, fmt.Errorf("deadletter: count: %w", err)
	}
	return counts, nil
}
