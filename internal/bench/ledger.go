package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go/jetstream"
)

func (l *lab) clock(ctx context.Context) (now time.Time, err error) {
	if err = l.db.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&now); err != nil {
		err = fmt.Errorf("clock: %w", err)
	}
	return now, err
}

func (l *lab) ledgerSeq(ctx context.Context) (seq int64, err error) {
	if err = l.db.QueryRow(ctx, `SELECT coalesce(max(seq), 0) FROM jetbox.relay_batch`).Scan(&seq); err != nil {
		err = fmt.Errorf("read ledger: %w", err)
	}
	return seq, err
}

// recorded counts the messages of the batches after seq.
func (l *lab) recorded(ctx context.Context, seq int64) (n int, err error) {
	err = l.db.QueryRow(ctx, `SELECT coalesce(sum(n), 0) FROM jetbox.relay_batch WHERE seq > $1`, seq).Scan(&n)
	if err != nil {
		err = fmt.Errorf("read ledger: %w", err)
	}
	return n, err
}

const seriesSQL = `
SELECT extract(epoch FROM published_at - $2)::float8, n FROM jetbox.relay_batch
WHERE seq > $1 AND n > 0
ORDER BY seq`

// ledgerSeries returns how the batches after seq went, and when the last was
// recorded, in seconds after began.
func (l *lab) ledgerSeries(ctx context.Context, seq int64, began time.Time) (s Series, end float64, err error) {
	rows, err := l.db.Query(ctx, seriesSQL, seq, began)
	if err != nil {
		return s, 0, fmt.Errorf("read ledger: %w", err)
	}
	var m meter
	var n int
	_, err = pgx.ForEachRow(rows, []any{&end, &n}, func() error {
		m.add(end, n)
		return nil
	})
	if err != nil {
		return s, 0, fmt.Errorf("read ledger: %w", err)
	}
	return m.series("published", end), end, nil
}

// deadTuples waits until the sessions that may have left some have reported.
func (l *lab) deadTuples(ctx context.Context) (n int64, err error) {
	if err := sleep(ctx, time.Second); err != nil {
		return 0, err
	}
	err = l.db.QueryRow(ctx, `SELECT coalesce(sum(n_dead_tup), 0)::bigint FROM pg_stat_user_tables
		WHERE schemaname = 'jetbox' AND relname LIKE 'outbox\_%'`).Scan(&n)
	if err != nil {
		err = fmt.Errorf("dead tuples: %w", err)
	}
	return n, err
}

// errIncomplete reports a run whose figures would be of less than was asked for.
var errIncomplete = errors.New("the count is wrong")

// checkDrained compares the stream with what was enqueued, which includes the
// relay's first message, and finds out by which route it came.
func (p *relayPair) checkDrained(ctx context.Context, d *drained) error {
	info, err := p.relayed.Info(ctx)
	if err != nil {
		return fmt.Errorf("stream info: %w", err)
	}
	if want := uint64(p.Messages) + 1; info.State.Msgs != want {
		return fmt.Errorf("%w: the stream holds %d messages, want %d", errIncomplete, info.State.Msgs, want)
	}
	d.route, err = p.route(ctx, p.relayed, info.State)
	return err
}

// route looks at messages across the stream: a server keeps the headers of an
// atomic batch. Those of other routes look alike; the relay's log says which it
// was then.
func (l *lab) route(ctx context.Context, s jetstream.Stream, state jetstream.StreamState) (string, error) {
	const samples = 50
	atomic := 0
	for i := range uint64(samples) {
		seq := state.FirstSeq + 1 + (state.LastSeq-state.FirstSeq-1)*i/samples // after the first, published alone
		msg, err := s.GetMsg(ctx, seq)
		if err != nil {
			return "", fmt.Errorf("sample the stream: %w", err)
		}
		if msg.Header.Get("Nats-Batch-Id") != "" {
			atomic++
		}
	}
	other, err := l.loggedRoute(s.CachedInfo().Config.Name)
	switch {
	case err != nil:
		return "", err
	case atomic == samples:
		return "atomic", nil
	case atomic == 0:
		return other, nil
	}
	return fmt.Sprintf("atomic for %d%%, %s", 100*atomic/samples, other), nil
}

// loggedRoute is what the relay began with; a relay that can only do otherwise
// than atomic publishes plainly.
func (l *lab) loggedRoute(stream string) (string, error) {
	text, err := os.ReadFile(l.path("relay.log"))
	if err != nil {
		return "", fmt.Errorf("relay's log: %w", err)
	}
	for line := range bytes.Lines(text) {
		var entry struct{ Routes map[string]string }
		if json.Unmarshal(line, &entry) == nil && entry.Routes[stream] != "" && entry.Routes[stream] != "atomic" {
			return entry.Routes[stream], nil
		}
	}
	return "plain", nil
}
