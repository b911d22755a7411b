package outbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// Message is one message to enqueue. Subject and one of Payload and Bytes are
// required. The database checks every field; its constraint names say what is
// wrong with a value.
type Message struct {
	// ID makes a repeated enqueue harmless: consumers run their handler once for
	// each ID. Zero means a new UUIDv7.
	ID uuid.UUID
	// Subject is the NATS subject: up to 16 tokens of letters, digits, dash and
	// underscore, 200 bytes in all.
	Subject string
	// Key is the ordering key, such as an aggregate's ID. Messages of one key are
	// published in the order of their rows. Empty means no order.
	Key string
	// Headers travel with the message. Names that start with Nats- or Jetbox-
	// are refused.
	Headers map[string]string
	// Payload is encoded as JSON; a json.RawMessage is kept byte for byte.
	Payload any
	// Bytes is a body that is not JSON, described by ContentType.
	Bytes []byte
	// ContentType of Bytes. Empty means application/octet-stream.
	ContentType string
}

// ErrPayload reports a message with neither or both of Payload and Bytes.
var ErrPayload = errors.New("exactly one of Payload and Bytes is required")

const (
	enqueueSQL = `
INSERT INTO jetbox.outbox (message_id, subject, key, headers, payload, payload_bytes, content_type)
SELECT id, subject, key, headers::json, payload::json, bytes, content_type
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bytea[], $7::text[])
	AS m (id, subject, key, headers, payload, bytes, content_type)`
	// enqueueOneSQL spares a single message the sixth of its price that unnest is.
	enqueueOneSQL = `
INSERT INTO jetbox.outbox (message_id, subject, key, headers, payload, payload_bytes, content_type)
VALUES ($1, $2, $3, $4::text::json, $5::text::json, $6, $7)`
)

// Enqueue inserts msgs as part of tx: they are published if and only if tx
// commits. It is one round trip, waits for no broker and no relay, and fails as
// a whole when one message breaks a rule.
func Enqueue(ctx context.Context, tx pgx.Tx, msgs ...Message) error {
	var c columns
	for i, m := range msgs {
		if err := c.add(m); err != nil {
			return fmt.Errorf("outbox: enqueue message %d: %w", i, err)
		}
	}
	sql, args := enqueueSQL, []any{c.ids, c.subjects, c.keys, c.headers, c.payloads, c.bytes, c.types}
	if len(msgs) == 1 {
		sql, args = enqueueOneSQL, []any{c.ids[0], c.subjects[0], c.keys[0], c.headers[0], c.payloads[0], c.bytes[0], c.types[0]}
	}
	if _, err := tx.Exec(ctx, sql, args...); err != nil {
		return fmt.Errorf("outbox: enqueue: %w", err)
	}
	return nil
}

// columns holds messages the way unnest takes them; nil stands for NULL.
type columns struct {
	ids                            []pgtype.UUID
	subjects                       []string
	keys, headers, payloads, types []*string
	bytes                          [][]byte
}

func (c *columns) add(m Message) error {
	if (m.Payload == nil) == (m.Bytes == nil) {
		return ErrPayload
	}
	id, err := m.id()
	if err != nil {
		return err
	}
	headers, err := headerText(m.Headers)
	if err != nil {
		return fmt.Errorf("headers: %w", err)
	}
	payload, err := jsonText(m.Payload, m.Payload != nil)
	if err != nil {
		return fmt.Errorf("payload: %w", err)
	}
	c.ids = append(c.ids, pgtype.UUID{Bytes: id, Valid: true})
	c.subjects = append(c.subjects, m.Subject)
	c.keys = append(c.keys, nullable(m.Key))
	c.headers = append(c.headers, headers)
	c.payloads = append(c.payloads, payload)
	c.bytes = append(c.bytes, m.Bytes)
	c.types = append(c.types, nullable(m.ContentType))
	return nil
}

func (m Message) id() (uuid.UUID, error) {
	if m.ID != uuid.Nil {
		return m.ID, nil
	}
	return uuid.NewV7()
}

// headerText refuses what encoding/json would write as other characters.
func headerText(headers map[string]string) (*string, error) {
	for name, value := range headers {
		if !utf8.ValidString(name) || !utf8.ValidString(value) {
			return nil, fmt.Errorf("%q is not UTF-8", name)
		}
	}
	return jsonText(headers, len(headers) > 0)
}

func jsonText(v any, present bool) (*string, error) {
	if !present {
		return nil, nil
	}
	if raw, ok := v.(json.RawMessage); ok {
		return nullable(string(raw)), nil
	}
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return nullable(string(b)), nil
}

func nullable(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
