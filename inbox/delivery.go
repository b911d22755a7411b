package inbox

import (
	"bytes"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/jetboxhq/jetbox/internal/wire"
)

// delivery is one message in hand, from its arrival to its settlement.
type delivery struct {
	msg     jetstream.Msg
	meta    *jetstream.MsgMetadata
	env     wire.Envelope
	day     pgtype.Date
	handler *Handler // nil: no handler has its subject
	payload any      // decoded for handler
	arrived time.Time

	tried   bool    // a delivery of another copy has failed
	apart   bool    // is to run in a transaction of its own
	attempt int     // of this run, from 1
	suspect bool    // a worker did not survive an attempt
	result  *string // JSON, once the handler is done
	refusal error   // why it is not to be handled, if so
	failure error   // of the last attempt, if that has failed
}

// newDelivery reads what the broker says about msg. A message without an ID
// gets one of its place in the stream, and a refusal.
func newDelivery(msg jetstream.Msg) (*delivery, error) {
	meta, err := msg.Metadata()
	if err != nil {
		return nil, err
	}
	d := &delivery{msg: msg, meta: meta, attempt: 1, arrived: time.Now()}
	if d.env, d.refusal = wire.Decode(msg.Headers()); d.refusal != nil {
		d.env.ID = placeID(meta)
	}
	d.day = dayOf(d.env.ID)
	return d, nil
}

// placeID is the name-based UUID of a message's place in its stream. The time
// tells a stream from an earlier one of the same name.
func placeID(meta *jetstream.MsgMetadata) uuid.UUID {
	place := fmt.Sprintf("https://github.com/jetboxhq/jetbox#place/%s/%d/%d",
		meta.Stream, meta.Sequence.Stream, meta.Timestamp.UnixNano())
	return uuid.NewSHA1(uuid.NameSpaceURL, []byte(place))
}

// dayOf is the partition key of the inbox: the UTC day that a UUIDv7 carries,
// -infinity for any other ID.
func dayOf(id uuid.UUID) pgtype.Date {
	if !isV7(id) {
		return pgtype.Date{InfinityModifier: pgtype.NegativeInfinity, Valid: true}
	}
	return pgtype.Date{Time: bornAt(id).Truncate(24 * time.Hour), Valid: true}
}

func isV7(id uuid.UUID) bool { return id.Version() == 7 && id.Variant() == uuid.RFC4122 }

// bornAt is the time in a UUIDv7.
func bornAt(id uuid.UUID) time.Time {
	var ms int64
	for _, b := range id[:6] {
		ms = ms<<8 | int64(b)
	}
	return time.UnixMilli(ms).UTC()
}

func (d *delivery) id() pgtype.UUID {
	return pgtype.UUID{Bytes: d.env.ID, Valid: true}
}

func (d *delivery) redelivered() bool { return d.meta.NumDelivered > 1 }

// again says whether d may have attempts on record.
func (d *delivery) again() bool { return d.redelivered() || d.tried }

// explained says whether each delivery before this one has ended on record.
func (d *delivery) explained() bool { return d.meta.NumDelivered <= uint64(d.attempt) }

// copies returns a copy of each of ds for a handler's goroutine, which may be
// left behind with it while another attempt goes on.
func copies(ds []*delivery) []*delivery {
	all := make([]delivery, len(ds))
	own := make([]*delivery, len(ds))
	for i, d := range ds {
		all[i] = *d
		own[i] = &all[i]
	}
	return own
}

// withHistory returns those of ds that may have attempts on record.
func withHistory(ds []*delivery) (again []*delivery) {
	for _, d := range ds {
		if d.again() || d.attempt > 1 {
			again = append(again, d)
		}
	}
	return again
}

// ids are the IDs of ds, for a statement.
func ids(ds []*delivery) []pgtype.UUID {
	list := make([]pgtype.UUID, len(ds))
	for i, d := range ds {
		list[i] = d.id()
	}
	return list
}

// attrs is what a log line says about d.
func (d *delivery) attrs(err error) []slog.Attr {
	return []slog.Attr{
		slog.String("message_id", d.env.ID.String()), slog.String("subject", d.msg.Subject()),
		slog.Uint64("stream_seq", d.meta.Sequence.Stream), slog.Uint64("delivery", d.meta.NumDelivered),
		slog.Int("attempt", d.attempt), slog.Any("error", err),
	}
}

// sorted has ds in the order of their IDs, so that transactions meet each other's IDs in one
// order and cannot deadlock on them.
func sorted(ds []*delivery) []*delivery {
	return slices.SortedFunc(slices.Values(ds), func(a, b *delivery) int {
		return bytes.Compare(a.env.ID[:], b.env.ID[:])
	})
}

// unique splits off the second and later deliveries of a message in one batch:
// they are looked up once the first is settled.
func unique(ds []*delivery) (first, again []*delivery) {
	seen := make(map[uuid.UUID]bool, len(ds))
	for _, d := range ds {
		if seen[d.env.ID] {
			again = append(again, d)
			continue
		}
		seen[d.env.ID] = true
		first = append(first, d)
	}
	return first, again
}
