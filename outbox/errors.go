package outbox

import (
	"errors"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// class says what a publish error means for the relay.
type class int

const (
	// unknown: the message may or may not be stored. Publish it again under the
	// same ID.
	unknown class = iota
	// badRow: no retry can help, the row goes to the dead letters.
	badRow
	// wholeBatch: an atomic batch was refused, and nobody says for which of its
	// messages; publish them one by one.
	wholeBatch
	// configuration: an operator has to act; retry slowly.
	configuration
	// backPressure: the stream is full or the server busy; retry later.
	backPressure
	// fenced: another relay publishes.
	fenced
)

func (c class) String() string {
	return [...]string{"unknown", "bad_row", "whole_batch", "configuration", "back_pressure", "fenced"}[c]
}

// classes maps the server's error codes (nats-server 2.15.2, errors.json). What
// is not listed is unknown, and is published again.
var classes = map[jetstream.ErrorCode]class{
	10054: badRow, // message size exceeds maximum allowed
	10060: badRow, // expected stream does not match
	10097: badRow, // header size exceeds maximum allowed of 64k
	10111: badRow, // rollup not permitted
	10165: badRow, // invalid per-message TTL
	10166: badRow, // per-message TTL is disabled
	10168: badRow, // message counter increment is missing
	10169: badRow, // message counter increment is missing
	10170: badRow, // message counter is broken
	10171: badRow, // message counter is incompatible
	10188: badRow, // message schedules is disabled
	10189: badRow, // message schedules pattern is invalid
	10190: badRow, // message schedules target is invalid
	10191: badRow, // message schedules TTL is invalid
	10192: badRow, // message schedules invalid rollup
	10193: badRow, // message schedules source is invalid
	10203: badRow, // message schedules time zone is invalid
	10212: badRow, // message schedules, other
	10223: badRow, // message schedules, other
	10227: badRow, // message schedules source header

	10176: wholeBatch, // batch is incomplete: one message was lost, or refused as a bad row
	10201: wholeBatch, // batch contains a duplicate message ID

	10002: configuration, // resource limits exceeded for account
	10028: configuration, // account resources exceeded
	10039: configuration, // jetstream not enabled for account
	10047: configuration, // insufficient storage resources available
	10059: configuration, // stream not found
	10076: configuration, // jetstream not enabled
	10109: configuration, // stream is sealed
	10122: configuration, // maximum messages size exceeds the account's limit
	10174: configuration, // batch publish is disabled
	10185: configuration, // required API level not supported
	10205: configuration, // fast batch publish is disabled

	10023: backPressure, // insufficient resources
	10077: backPressure, // maximum messages, bytes or messages per subject exceeded
	10167: backPressure, // too many requests
	10210: backPressure, // too many inflight batches of the stream
	10211: backPressure, // too many inflight batches of the server

	10070: fenced, // wrong last msg ID
	10071: fenced, // wrong last sequence
	10164: fenced, // wrong last sequence, constant
}

// classify says what err, from a publish, means. It looks at codes, never at
// texts.
func classify(err error) class {
	if e, ok := errors.AsType[*jetstream.APIError](err); ok {
		return classes[e.ErrorCode]
	}
	switch {
	case errors.Is(err, errFenced):
		return fenced
	case errors.Is(err, nats.ErrBadSubject), errors.Is(err, nats.ErrBadHeaderMsg), errors.Is(err, nats.ErrMaxPayload):
		return badRow
	case errors.Is(err, nats.ErrPermissionViolation), errors.Is(err, nats.ErrAuthorization):
		return configuration
	}
	return unknown
}
