package outbox

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

const enqueuedSQL = `
SELECT message_id, subject, coalesce(key, ''), headers, payload, payload_bytes, coalesce(content_type, '')
FROM jetbox.outbox WHERE xid = pg_current_xact_id() ORDER BY id`

// Enqueued returns what tx itself has enqueued, in any language, oldest first.
// It is there for tests: a Payload is a json.RawMessage.
func Enqueued(ctx context.Context, tx pgx.Tx) ([]Message, error) {
	rows, err := tx.Query(ctx, enqueuedSQL)
	if err != nil {
		return nil, fmt.Errorf("outbox: enqueued: %w", err)
	}
	msgs, err := pgx.CollectRows(rows, scanMessage)
	if err != nil {
		return nil, fmt.Errorf("outbox: enqueued: %w", err)
	}
	return msgs, nil
}

func scanMessage(row pgx.CollectableRow) (m Message, err error) {
	var id uuid.UUID
	var payload json.RawMessage
	err = row.Scan(&id, &m.Subject, &m.Key, &m.Headers, &payload, &m.Bytes, &m.ContentType)
	if m.ID = id; payload != nil {
		m.Payload = payload
	}
	return m, err
}
