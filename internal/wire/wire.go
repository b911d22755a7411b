// Package wire is the protocol between the outbox and the inbox: the headers a
// message carries through JetStream, and their codec.
//
// It is the only thing the two halves share. Change it and you change the
// contract with every consumer, in any language.
package wire

import (
	"errors"
	"strconv"
	"strings"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
)

// Header names, exact: JetStream headers are case-sensitive.
const (
	// BrokerID is what JetStream deduplicates on: the message's ID, and after a
	// replay "<id>#r<generation>", which the duplicate window does not know.
	BrokerID = "Nats-Msg-Id"
	// MessageID is the message's ID where BrokerID is not.
	MessageID = "Jetbox-Message-Id"
	// Key is the ordering key, absent when the message has none.
	Key = "Jetbox-Key"
	// ContentType is absent for JSON.
	ContentType = "Content-Type"
)

// ErrNoID reports a message that carries no ID: nothing could tell it from its
// own redelivery under another sequence.
var ErrNoID = errors.New("wire: no " + BrokerID + " header")

// Envelope is what travels beside a message's body.
type Envelope struct {
	ID          uuid.UUID
	Generation  int // of the replay that published it; zero at first
	Key         string
	ContentType string
	Headers     nats.Header // the application's own
}

// Encode returns the headers to publish.
func Encode(e Envelope) nats.Header {
	h := make(nats.Header, 4+len(e.Headers))
	for name, values := range e.Headers {
		h[name] = values
	}
	id := e.ID.String()
	h[BrokerID] = []string{id}
	if e.Generation > 0 {
		h[BrokerID] = []string{id + "#r" + strconv.Itoa(e.Generation)}
		h[MessageID] = []string{id}
	}
	if e.Key != "" {
		h[Key] = []string{e.Key}
	}
	if e.ContentType != "" {
		h[ContentType] = []string{e.ContentType}
	}
	return h
}

// foreign is the namespace of IDs that are not UUIDs.
var foreign = uuid.NewSHA1(uuid.NameSpaceURL, []byte("https://github.com/jetboxhq/jetbox#foreign"))

// Decode reads the headers of a delivery. An ID that is not a UUID, as other
// publishers use, becomes the name-based UUID of its text.
func Decode(h nats.Header) (Envelope, error) {
	id := h.Get(MessageID)
	if id == "" {
		id = h.Get(BrokerID)
	}
	if id == "" {
		return Envelope{}, ErrNoID
	}
	e := Envelope{Key: h.Get(Key), ContentType: h.Get(ContentType), Headers: nats.Header{}}
	if e.ID = parseID(id); h.Get(MessageID) != "" {
		e.Generation = generation(h.Get(BrokerID))
	}
	for name, values := range h {
		if !Reserved(name) {
			e.Headers[name] = values
		}
	}
	return e, nil
}

// parseID accepts only the canonical form, so that one text means one ID.
func parseID(s string) uuid.UUID {
	if id, err := uuid.Parse(s); err == nil && id.String() == s {
		return id
	}
	return uuid.NewSHA1(foreign, []byte(s))
}

func generation(brokerID string) int {
	_, g, _ := strings.Cut(brokerID, "#r")
	n, err := strconv.Atoi(g)
	if err != nil {
		return 0 // another publisher's ID
	}
	return n
}

// Reserved reports whether a header belongs to the broker or to jetbox: the
// server acts on some of them, Nats-Rollup empties a stream.
func Reserved(name string) bool {
	l := strings.ToLower(name)
	return strings.HasPrefix(l, "nats-") || strings.HasPrefix(l, "jetbox-") || name == ContentType
}
