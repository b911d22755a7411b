package outbox

import (
	"encoding/binary"
	"encoding/json"
	"errors"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"

	"github.com/jetboxhq/jetbox/internal/wire"
)

// rowColumns is the order in which scan expects them, in binary format.
const rowColumns = `id, message_id, subject, key, headers, payload, payload_bytes, content_type`

// binaryFormat asks for every column as Postgres sends it, so that a payload
// goes from one wire to the other without being parsed.
var binaryFormat = pgx.QueryResultFormats{pgx.BinaryFormatCode}

// row is one message of the outbox as it was read.
type row struct {
	id          int64
	messageID   uuid.UUID
	subject     string
	key         string
	headers     []byte // JSON object of strings; nil when NULL
	body        []byte
	binary      bool // body came from payload_bytes
	contentType string
}

// size is what a row weighs in memory and on the wire, near enough.
func (r *row) size() int {
	return len(r.body) + len(r.headers) + len(r.subject) + len(r.key) + 128
}

// arena copies the bytes of many rows into few allocations. pgx reuses its
// buffer at the next row.
type arena []byte

func (a *arena) keep(b []byte) []byte {
	if b == nil {
		return nil
	}
	if cap(*a)-len(*a) < len(b) {
		*a = make([]byte, 0, max(64<<10, len(b)))
	}
	n := len(*a)
	*a = append(*a, b...)
	return (*a)[n:len(*a):len(*a)]
}

// scan reads the row of rowColumns that rows stands on.
func (a *arena) scan(v [][]byte) row {
	r := row{
		id:          int64(binary.BigEndian.Uint64(v[0])),
		messageID:   uuid.UUID(v[1]),
		subject:     string(v[2]),
		key:         string(v[3]),
		headers:     a.keep(v[4]),
		body:        a.keep(v[5]),
		contentType: string(v[7]),
	}
	if v[6] != nil {
		r.body, r.binary = a.keep(v[6]), true
	}
	return r
}

// message turns the row into what goes to the broker. An error means that no
// stream could ever take it.
func (r *row) message(generation int) (*nats.Msg, error) {
	if err := errors.Join(checkSubject(r.subject), checkKey(r.key)); err != nil {
		return nil, err
	}
	headers, err := r.header()
	if err != nil {
		return nil, err
	}
	return &nats.Msg{
		Subject: r.subject,
		Data:    r.body,
		Header: wire.Encode(wire.Envelope{
			ID: r.messageID, Generation: generation, Key: r.key, ContentType: r.mediaType(), Headers: headers,
		}),
	}, nil
}

func (r *row) mediaType() string {
	if r.binary && r.contentType == "" {
		return "application/octet-stream"
	}
	return r.contentType
}

// header is the application's own headers.
func (r *row) header() (nats.Header, error) {
	if r.headers == nil {
		return nil, nil
	}
	var values map[string]string
	if err := json.Unmarshal(r.headers, &values); err != nil {
		return nil, errors.New("headers are not a JSON object of strings")
	}
	h := make(nats.Header, len(values))
	var err error
	for name, value := range values {
		h[name] = []string{value}
		if wrong := checkHeader(name, value); wrong != nil {
			err = wrong
		}
	}
	return h, err
}
