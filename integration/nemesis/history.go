package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// acks is when the server received the ack of which message of the stream.
type acks struct {
	mu sync.Mutex
	at map[uint64]time.Time
}

// watchAcks has the server tell of every ack, for as long as the consumer that
// exists now does.
func (l *lab) watchAcks(ctx context.Context) error {
	_, err := l.nc.Subscribe("$JS.EVENT.METRIC.CONSUMER.ACK."+stream+"."+consumer, l.acks.note)
	if err != nil {
		return fmt.Errorf("watch acks: %w", err)
	}
	return insist(ctx, func(ctx context.Context) error {
		c, err := l.js.Consumer(ctx, stream, consumer)
		if err != nil {
			return err
		}
		cfg := c.CachedInfo().Config
		cfg.SampleFrequency = "100"
		_, err = l.js.UpdateConsumer(ctx, stream, cfg)
		return err
	})
}

func (a *acks) note(m *nats.Msg) {
	var metric struct {
		Sequence uint64    `json:"stream_seq"`
		At       time.Time `json:"timestamp"`
	}
	if err := json.Unmarshal(m.Data, &metric); err != nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, again := a.at[metric.Sequence]; !again {
		a.at[metric.Sequence] = metric.At
	}
}

// checkStream reads the stream from its beginning. It counts the messages that
// stand before their predecessor of the same key first does (what was sent again
// may stand behind, but nothing may be skipped), and those that were acked
// before what a worker did about them was committed.
func (l *lab) checkStream(ctx context.Context, found map[string]int64) error {
	if l.plan.WorkQueue {
		return nil // it keeps nothing to be read
	}
	reached, ids := map[string]int64{}, map[uint64]string{}
	err := l.readStream(ctx, func(seq uint64, m jetstream.Msg) {
		if !follows(reached, m) {
			found[inverted]++
		}
		ids[seq] = m.Headers().Get("Jetbox-Message-Id")
		if ids[seq] == "" {
			ids[seq] = m.Headers().Get(jetstream.MsgIDHeader)
		}
	})
	if err != nil {
		return fmt.Errorf("read the stream: %w", err)
	}
	return l.checkAcks(ctx, ids, found)
}

// readStream is patient: three servers on a busy machine may be without a leader
// for a moment, long after the last fault.
func (l *lab) readStream(ctx context.Context, each func(seq uint64, m jetstream.Msg)) error {
	var c jetstream.Consumer
	err := until(ctx, time.Minute, func(ctx context.Context) (found bool, err error) {
		c, err = l.js.OrderedConsumer(ctx, stream, jetstream.OrderedConsumerConfig{})
		return err == nil, err
	})
	if err != nil {
		return err
	}
	for left := uint64(1); left > 0; {
		var batch jetstream.MessageBatch
		err := until(ctx, time.Minute, func(context.Context) (fetched bool, err error) {
			batch, err = c.Fetch(1000, jetstream.FetchMaxWait(time.Second)) // goes on after the last it gave
			return err == nil, err
		})
		if err != nil {
			return err
		}
		for m := range batch.Messages() {
			meta, err := m.Metadata()
			if err != nil {
				return err
			}
			each(meta.Sequence.Stream, m)
			left = meta.NumPending
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// follows notes m, and reports whether its predecessor was there.
func follows(reached map[string]int64, m jetstream.Msg) bool {
	var body struct{ N int64 }
	key := m.Headers().Get("Jetbox-Key")
	if err := json.Unmarshal(m.Data(), &body); err != nil {
		return false
	}
	ok := body.N <= reached[key]+1
	reached[key] = max(reached[key], body.N)
	return ok
}

// uncommittedSQL counts messages whose ack was there before the commit.
const uncommittedSQL = `
SELECT count(*) FROM unnest($1::uuid[], $2::timestamptz[]) AS a (id, at)
LEFT JOIN jetbox.inbox i ON i.message_id = a.id
WHERE NOT coalesce(pg_xact_commit_timestamp(i.xmin) <= a.at, false)`

// spoilsTimes reports whether what a server says of the times cannot be compared:
// sequences stand for one message before a rollback, and another after it; and
// Postgres' clock is no longer that of NATS.
func spoilsTimes(f fault) bool { return f.Kind == "nats-rollback" || shiftsClock(f) }

func (l *lab) checkAcks(ctx context.Context, ids map[uint64]string, found map[string]int64) (err error) {
	if slices.ContainsFunc(l.plan.Faults, spoilsTimes) {
		return nil
	}
	l.acks.mu.Lock()
	defer l.acks.mu.Unlock()
	var acked []string
	var at []time.Time
	for seq, t := range l.acks.at {
		if id, ok := ids[seq]; ok {
			acked, at = append(acked, id), append(at, t)
		}
	}
	found["acks before the commit"], err = l.count(ctx, uncommittedSQL, acked, at)
	return err
}
