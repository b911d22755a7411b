package bench

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// subject is what a benchmark publishes to.
func (l *lab) subject(s jetstream.Stream) string {
	return strings.TrimSuffix(s.CachedInfo().Config.Subjects[0], ">") + "work"
}

// messages are ready to publish to s.
func (l *lab) messages(s jetstream.Stream, n int) []*nats.Msg {
	subject, payload := l.subject(s), []byte(l.payload())
	msgs := make([]*nats.Msg, n)
	for i := range msgs {
		id := uuid.Must(uuid.NewV7()).String()
		msgs[i] = &nats.Msg{Subject: subject, Data: payload, Header: nats.Header{jetstream.MsgIDHeader: []string{id}}}
	}
	return msgs
}

// publish is a bare asynchronous publisher: as fast as a client can, with the
// IDs that make the broker refuse duplicates.
func (l *lab) publish(ctx context.Context, msgs []*nats.Msg) error {
	futures := make([]jetstream.PubAckFuture, len(msgs))
	for i, m := range msgs {
		f, err := l.js.PublishMsgAsync(m, jetstream.WithStallWait(10*time.Second))
		if err != nil {
			return fmt.Errorf("publish: %w", err)
		}
		futures[i] = f
	}
	for _, f := range futures {
		select {
		case <-f.Ok():
		case err := <-f.Err():
			return fmt.Errorf("publish: %w", err)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// publishBare returns the broker's limit: how many messages from memory it takes
// a second.
func (p *relayPair) publishBare(ctx context.Context) (float64, error) {
	if err := p.limit.Purge(ctx); err != nil {
		return 0, fmt.Errorf("purge: %w", err)
	}
	msgs := p.messages(p.limit, p.Messages)
	runtime.GC() // what was made before is not the publisher's to clear away
	start := time.Now()
	if err := p.publish(ctx, msgs); err != nil {
		return 0, err
	}
	return float64(p.Messages) / time.Since(start).Seconds(), nil
}

// copySQL has the columns that the relay reads.
const copySQL = `
COPY (SELECT id, message_id, subject, key, headers, payload, payload_bytes, content_type
	FROM jetbox.outbox WHERE id >= %d) TO STDOUT`

// copyBare returns the reader's limit: how many of the rows Postgres hands out a
// second.
func (p *relayPair) copyBare(ctx context.Context, firstID int64) (float64, error) {
	conn, err := p.db.Acquire(ctx)
	if err != nil {
		return 0, fmt.Errorf("copy: %w", err)
	}
	defer conn.Release()
	start := time.Now()
	tag, err := conn.Conn().PgConn().CopyTo(ctx, io.Discard, fmt.Sprintf(copySQL, firstID))
	if err != nil {
		return 0, fmt.Errorf("copy: %w", err)
	}
	if tag.RowsAffected() != int64(p.Messages) {
		return 0, fmt.Errorf("copy: %w: %d rows, want %d", errIncomplete, tag.RowsAffected(), p.Messages)
	}
	return float64(p.Messages) / time.Since(start).Seconds(), nil
}
