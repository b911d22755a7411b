// Package inboxtest runs a handler in a test, without NATS, and shows what it has
// enqueued.
//
// The test owns the transaction: whatever a handler does in it is there to be
// looked at, and gone when the test rolls it back. A message is decoded, run,
// judged and recorded by the worker's own code. What takes a commit is not
// tested: deferred constraints, and what other transactions see.
package inboxtest

import (
	"encoding/json"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"

	"github.com/jetboxhq/jetbox/inbox"
	"github.com/jetboxhq/jetbox/internal/wire"
	"github.com/jetboxhq/jetbox/outbox"
)

// Message is one delivery. Subject is required.
type Message struct {
	// ID is what makes a second Run a duplicate. Zero means a new UUIDv7.
	ID      uuid.UUID
	Subject string
	Key     string
	Headers map[string]string
	// Payload is encoded as JSON; a json.RawMessage or []byte is kept as it is.
	Payload any
	// ContentType of the payload. Empty means JSON.
	ContentType string
	// Attempt is which attempt at the message this is. Zero means the first.
	Attempt int
	// Consumer is the worker's durable consumer. Empty means worker.
	Consumer string
}

// Run hands m to handler as part of tx and returns how that ended. A failed
// attempt is undone and leaves tx usable. Run fails the test only when there was
// no attempt.
func Run(t testing.TB, tx pgx.Tx, handler inbox.Handler, m Message) inbox.Outcome {
	t.Helper()
	if m.ID == uuid.Nil {
		m.ID = uuid.Must(uuid.NewV7())
	}
	if m.Consumer == "" {
		m.Consumer = "worker"
	}
	o, err := inbox.Try(t.Context(), tx, m.Consumer, handler, m.wire(t), max(m.Attempt, 1))
	if err != nil {
		t.Fatalf("inboxtest: %v", err)
	}
	return o
}

// Enqueued returns what tx has enqueued, in the order in which the relay would
// publish it. Their Payload is a json.RawMessage.
func Enqueued(t testing.TB, tx pgx.Tx) []outbox.Message {
	t.Helper()
	msgs, err := outbox.Enqueued(t.Context(), tx)
	if err != nil {
		t.Fatalf("inboxtest: %v", err)
	}
	return msgs
}

// wire is m as the relay would have published it.
func (m Message) wire(t testing.TB) *nats.Msg {
	t.Helper()
	e := wire.Envelope{ID: m.ID, Key: m.Key, ContentType: m.ContentType, Headers: nats.Header{}}
	for name, value := range m.Headers {
		e.Headers.Set(name, value)
	}
	return &nats.Msg{Subject: m.Subject, Header: wire.Encode(e), Data: m.body(t)}
}

func (m Message) body(t testing.TB) []byte {
	t.Helper()
	switch p := m.Payload.(type) {
	case []byte:
		return p
	case json.RawMessage:
		return p
	}
	body, err := json.Marshal(m.Payload)
	if err != nil {
		t.Fatalf("inboxtest: payload: %v", err)
	}
	return body
}
