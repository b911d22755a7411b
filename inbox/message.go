package inbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
)

// Message is one delivery as a handler sees it.
type Message[T any] struct {
	ID          uuid.UUID
	Subject     string
	Key         string              // empty when the message has none
	Headers     map[string][]string // the application's own
	ContentType string              // empty for JSON
	Payload     T
	// Attempt is 1 for the first run that counts, and one more for each that failed.
	Attempt int
	// StoredAt is when the stream stored the message, by the broker's clock.
	StoredAt time.Time

	consumer string
}

// IdempotencyKey is the same for every attempt at this message by this
// consumer, and for nothing else: hand it to whatever is called outside the
// transaction.
func (m Message[T]) IdempotencyKey() string {
	return m.consumer + "/" + m.ID.String()
}

func newMessage[T any](d *delivery) Message[T] {
	payload, _ := d.payload.(T) // an interface T may be nil
	return Message[T]{
		ID: d.env.ID, Subject: d.msg.Subject(), Key: d.env.Key, Headers: cloned(d.env.Headers),
		ContentType: d.env.ContentType, Payload: payload,
		Attempt: d.attempt, StoredAt: d.meta.Timestamp, consumer: d.meta.Consumer,
	}
}

// cloned is what a handler may change.
func cloned(h map[string][]string) map[string][]string {
	own := make(map[string][]string, len(h))
	for name, values := range h {
		own[name] = slices.Clone(values)
	}
	return own
}

// decode makes a T of a body: the bytes themselves for []byte and
// json.RawMessage, else what the JSON says. It is the handler's own, to change as
// it likes: another run decodes anew.
func decode[T any](d *delivery) (any, error) {
	var payload T
	switch p := any(&payload).(type) {
	case *[]byte:
		*p = bytes.Clone(d.msg.Data())
	case *json.RawMessage:
		*p = bytes.Clone(d.msg.Data())
	default:
		if err := json.Unmarshal(d.msg.Data(), &payload); err != nil {
			return nil, decodeError(payload, err)
		}
	}
	return payload, nil
}

// decodeError says where a payload goes wrong and quotes none of it.
func decodeError(target any, err error) error {
	if e, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Errorf("payload is not JSON: syntax error at byte %d", e.Offset)
	}
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Errorf("payload does not fit %T: field %q at byte %d cannot be a %v", target, e.Field, e.Offset, e.Type)
	}
	return fmt.Errorf("payload does not fit %T", target)
}
