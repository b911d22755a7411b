package outbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/jetboxhq/jetbox/internal/streams"
)

// confirmation compares what was published with the inbox of one consumer, which
// also shows a loss that moves no sequence: a purge. It looks only at what the
// consumer says is settled or gone, so a slow worker is never mistaken for a loss.
type confirmation struct {
	stream, consumer string // empty: nobody confirms
	seq              int64  // batches up to here are confirmed
	epoch            int64  // of the lease under which they were

	// goesTo says whether a subject's messages are published to a stream: those that
	// share a batch with them may be another's.
	goesTo func(stream, subject string) bool
}

// goOn is called when a session begins, at batch seq of the ledger: it confirms
// from where this relay has come, but from the beginning if another has led since.
func (c *confirmation) goOn(epoch, seq int64) {
	if c.seq > seq || c.epoch+1 != epoch {
		c.seq = 0
	}
	c.epoch = epoch
}

// upTo is the last batch that nobody needs any more.
func (c *confirmation) upTo() int64 {
	if c.consumer == "" {
		return math.MaxInt64
	}
	return c.seq
}

// cutoffSQL is read before the consumer is asked: what is published later may
// still be on its way when the inbox is.
const cutoffSQL = `SELECT clock_timestamp() - $1::interval`

// maxRounds keeps one check short; the next goes on where it ends.
const maxRounds = 20

// check confirms what was published longer ago than grace.
func (c *confirmation) check(ctx context.Context, h *healer, grace time.Duration) error {
	if c.consumer == "" {
		return nil
	}
	var before time.Time
	if err := h.conn.QueryRow(ctx, cutoffSQL, grace).Scan(&before); err != nil {
		return fmt.Errorf("confirm: %w", err)
	}
	s, err := c.settled(ctx, h.js)
	if err != nil {
		return err
	}
	for range maxRounds {
		upTo, missing, err := c.missing(ctx, h.conn, s, before)
		switch {
		case err != nil:
			return err
		case missing > 0:
			return c.publishAgain(ctx, h, missing)
		case upTo <= c.seq:
			return nil
		}
		c.seq = upTo
	}
	return nil
}

func (c *confirmation) publishAgain(ctx context.Context, h *healer, missing int64) error {
	h.log.LogAttrs(ctx, slog.LevelError, "stream has dropped messages that were not processed, publishing them again",
		slog.String("stream", c.stream), slog.String("consumer", c.consumer), slog.Int64("batch", missing))
	return h.rewind(ctx, missing-1, map[string]streamState{})
}

// settled is what a consumer says it owes nobody any more: its subjects' messages
// up to a sequence of the stream.
type settled struct {
	filters []string
	upTo    uint64
}

func (c *confirmation) settled(ctx context.Context, js jetstream.JetStream) (s settled, err error) {
	consumer, err := js.Consumer(ctx, c.stream, c.consumer)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		return s, nil // no worker has started yet
	}
	if err != nil {
		return s, fmt.Errorf("confirm: consumer %s of stream %s: %w", c.consumer, c.stream, err)
	}
	info := consumer.CachedInfo()
	s.filters, s.upTo = info.Config.FilterSubjects, info.AckFloor.Stream
	if info.Config.FilterSubject != "" {
		s.filters = append(s.filters, info.Config.FilterSubject)
	}
	if info.NumPending == 0 && info.NumAckPending == 0 {
		s.upTo = math.MaxUint64 // the floor stands at the last message that it takes
	}
	return s, nil
}

// batchesSQL is the next batches that are old enough to be confirmed, or of a time
// to come, since when the clock was set back; without those that a replay covers:
// they come again in a later batch.
const batchesSQL = `
SELECT b.seq, coalesce(b.first_id, 0), coalesce(b.last_id, 0), b.streams ? @stream,
	coalesce((b.streams->@stream->>'last_seq')::bigint, 0)
FROM jetbox.relay_batch b
WHERE b.seq > @seq AND (b.published_at < @before OR b.published_at > clock_timestamp())
	AND NOT EXISTS (SELECT FROM jetbox.relay_batch r WHERE r.seq > b.seq AND r.rewound_to < b.seq)
ORDER BY b.seq
LIMIT 50`

// missingSQL finds messages of a range of ids that batch @upto or an earlier one
// published, and that the consumer neither processed nor set aside. Whatever
// the batch before had published has an older xid, or is in range again: the
// bounds let the index on xid find the rows of one batch.
const missingSQL = `
SELECT o.id, o.message_id, o.subject
FROM jetbox.outbox o, jetbox.relay_batch b
WHERE o.id BETWEEN @first AND @last AND b.seq = @upto
	AND o.xid < pg_snapshot_xmax(b.snap)
	AND o.xid >= coalesce((
		SELECT pg_snapshot_xmin(coalesce(p.prev_snap, p.snap)) FROM jetbox.relay_batch p WHERE p.seq = @upto - 1), '0')
	AND (pg_visible_in_snapshot(o.xid, coalesce(b.prev_snap, b.snap))
		OR (o.id <= b.pos_id AND pg_visible_in_snapshot(o.xid, b.snap)))
	AND NOT EXISTS (SELECT FROM jetbox.inbox i WHERE i.message_id = o.message_id AND i.consumer IN (@consumer, '$relay'))
	AND NOT EXISTS (SELECT FROM jetbox.dead_letter d WHERE d.message_id = o.message_id AND d.consumer IN (@consumer, '$relay'))`

// onItsWaySQL tells whether each of some messages is to be published once more, or
// was since: somebody has redriven its dead letter. OFFSET 0 has the outbox asked
// for one message at a time, up to the first that is gone.
const onItsWaySQL = `
SELECT NOT EXISTS (
	SELECT FROM unnest($1::bigint[], $2::uuid[]) AS m (id, message_id)
	WHERE NOT EXISTS (SELECT FROM jetbox.scheduled s WHERE s.message_id = m.message_id)
		AND NOT EXISTS (SELECT FROM jetbox.outbox o WHERE o.message_id = m.message_id AND o.id > m.id OFFSET 0))`

type ledgerRange struct {
	Seq, First, Last int64
	Ours             bool
	StreamSeq        uint64
}

// missing returns the last batch it looked at, and the first that holds a
// message which is gone, 0 for none.
func (c *confirmation) missing(ctx context.Context, conn querier, s settled, before time.Time) (upTo, batch int64, err error) {
	rows, err := conn.Query(ctx, batchesSQL, pgx.StrictNamedArgs{"stream": c.stream, "seq": c.seq, "before": before})
	if err != nil {
		return 0, 0, fmt.Errorf("confirm: read ledger: %w", err)
	}
	batches, err := pgx.CollectRows(rows, pgx.RowToStructByPos[ledgerRange])
	if err != nil {
		return 0, 0, fmt.Errorf("confirm: read ledger: %w", err)
	}
	for _, b := range batches {
		if b.StreamSeq > s.upTo {
			break
		}
		gone, err := c.gone(ctx, conn, b, s.filters)
		if err != nil || gone {
			return upTo, b.Seq, err
		}
		upTo = b.Seq
	}
	return upTo, 0, nil
}

func (c *confirmation) gone(ctx context.Context, conn querier, b ledgerRange, filters []string) (bool, error) {
	if !b.Ours || b.First == 0 {
		return false, nil
	}
	rows, err := conn.Query(ctx, missingSQL, pgx.StrictNamedArgs{
		"first": b.First, "last": b.Last, "upto": b.Seq, "consumer": c.consumer,
	})
	if err != nil {
		return false, fmt.Errorf("confirm: compare with inbox: %w", err)
	}
	var id int64
	var messageID uuid.UUID
	var subject string
	var ids []int64
	var messageIDs []uuid.UUID
	_, err = pgx.ForEachRow(rows, []any{&id, &messageID, &subject}, func() error {
		if c.goesTo(c.stream, subject) && takes(filters, subject) {
			ids, messageIDs = append(ids, id), append(messageIDs, messageID)
		}
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("confirm: compare with inbox: %w", err)
	}
	return c.anyGone(ctx, conn, ids, messageIDs)
}

func (c *confirmation) anyGone(ctx context.Context, conn querier, ids []int64, messageIDs []uuid.UUID) (bool, error) {
	if len(ids) == 0 {
		return false, nil
	}
	var onTheirWay bool
	if err := conn.QueryRow(ctx, onItsWaySQL, ids, messageIDs).Scan(&onTheirWay); err != nil {
		return false, fmt.Errorf("confirm: look for redriven messages: %w", err)
	}
	return !onTheirWay, nil
}

// takes reports whether a consumer with these filters gets the subject.
func takes(filters []string, subject string) bool {
	for _, f := range filters {
		if streams.Covers(f, subject) {
			return true
		}
	}
	return len(filters) == 0
}
