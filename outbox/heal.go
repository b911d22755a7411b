package outbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go/jetstream"
)

// healer notices what the broker has lost. A PubAck is no fsync: a power cut, a
// restored backup or a deleted stream can take back what was acknowledged. The
// ledger knows each stream's creation time and last sequence, so a stream that
// is younger or shorter than that has lost messages, and the relay goes back to
// the last batch the stream still holds. The inbox absorbs what comes twice.
type healer struct {
	conn    querier
	js      jetstream.JetStream
	streams []string
	confirm *confirmation
	log     *slog.Logger
	m       *metrics
	// generation of the session: a newer one in the ledger is a replay.
	generation int
	known      map[string]known // by stream
	window     time.Duration    // that is noted, zero for none yet
}

// known is what batches up to one say of a stream.
type known struct {
	upTo  int64
	state *streamState
}

// errRewound ends a session whose position is no longer the ledger's.
var errRewound = errors.New("sent back to publish again what the broker lost")

// check returns errRewound when it has found a loss and sent the relay back, or
// when an operator has.
func (h *healer) check(ctx context.Context) error {
	if err := h.checkReplay(ctx); err != nil {
		return err
	}
	var window time.Duration
	for _, name := range h.streams {
		info, err := h.checkStream(ctx, name)
		if err != nil {
			return err
		}
		window = max(window, info.Config.Duplicates)
	}
	return h.noteWindow(ctx, window)
}

const noteWindowSQL = `UPDATE jetbox.relay_lease SET duplicate_window = $1 WHERE duplicate_window <> $1`

// noteWindow tells who redrives for how long the broker remembers IDs.
func (h *healer) noteWindow(ctx context.Context, window time.Duration) error {
	if window == h.window {
		return nil
	}
	if _, err := h.conn.Exec(ctx, noteWindowSQL, window); err != nil {
		return fmt.Errorf("note the duplicate window: %w", err)
	}
	h.window = window
	return nil
}

// apiAdvisories is where the server tells of calls to its API.
const apiAdvisories = "$JS.EVENT.ADVISORY.API"

// isPurge reports whether an advisory tells of a purge of one of streams.
func isPurge(advisory []byte, streams []jetstream.StreamConfig) bool {
	var call struct {
		Subject string `json:"subject"`
	}
	_ = json.Unmarshal(advisory, &call) // what is no call to the API has no subject
	purged, ok := strings.CutPrefix(call.Subject, "$JS.API.STREAM.PURGE.")
	return ok && slices.ContainsFunc(streams, func(c jetstream.StreamConfig) bool { return c.Name == purged })
}

const generationSQL = `SELECT generation FROM jetbox.relay_batch ORDER BY seq DESC LIMIT 1`

func (h *healer) checkReplay(ctx context.Context) error {
	var generation int
	err := h.conn.QueryRow(ctx, generationSQL).Scan(&generation)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("look for a replay: %w", err)
	}
	if generation > h.generation {
		return errRewound
	}
	return nil
}

func (h *healer) checkStream(ctx context.Context, name string) (*jetstream.StreamInfo, error) {
	// The order matters: the stream must not be older news than the ledger.
	recorded, err := h.recorded(ctx, name)
	if err != nil {
		return nil, err
	}
	s, err := h.js.Stream(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", name, err)
	}
	info := s.CachedInfo()
	has := streamState{info.Created, info.State.LastSeq}
	if recorded == nil || (has.Created.Equal(recorded.Created) && has.LastSeq >= recorded.LastSeq) {
		return info, nil
	}
	h.log.LogAttrs(ctx, slog.LevelError, "stream has lost acknowledged messages, publishing them again",
		slog.String("stream", name), slog.Uint64("recorded_seq", recorded.LastSeq), slog.Uint64("has_seq", has.LastSeq),
		slog.Bool("recreated", !has.Created.Equal(recorded.Created)))
	target, err := h.lastHeld(ctx, name, has)
	if err != nil {
		return nil, err
	}
	return nil, h.rewind(ctx, target, map[string]streamState{name: has})
}

// recordedSQL looks only at what is newer than batch $2: a stream that nobody
// publishes to would else cost a walk through the whole ledger.
const recordedSQL = `
SELECT newest.seq, (
	SELECT b.streams->$1
	FROM jetbox.relay_batch b
	WHERE b.seq > $2 AND b.seq <= newest.seq AND b.streams ? $1
	ORDER BY b.seq DESC
	LIMIT 1)
FROM (SELECT coalesce(max(seq), 0) AS seq FROM jetbox.relay_batch) newest`

// recorded returns what the ledger last saw of a stream, nil for nothing yet.
func (h *healer) recorded(ctx context.Context, name string) (*streamState, error) {
	k := h.known[name]
	var text []byte
	if err := h.conn.QueryRow(ctx, recordedSQL, name, k.upTo).Scan(&k.upTo, &text); err != nil {
		return nil, fmt.Errorf("read recorded state of stream %s: %w", name, err)
	}
	if text != nil {
		k.state = new(streamState)
		if err := json.Unmarshal(text, k.state); err != nil {
			return nil, fmt.Errorf("read recorded state of stream %s: %w", name, err)
		}
	}
	h.known[name] = k
	return k.state, nil
}

// lastHeldSQL compares creation times as the text that was recorded: Postgres
// keeps only microseconds of a timestamp.
const lastHeldSQL = `
SELECT coalesce(max(seq), 0)
FROM jetbox.relay_batch
WHERE streams->$1->>'created' = $2 AND (streams->$1->>'last_seq')::bigint <= $3`

// lastHeld finds the newest batch that the stream still holds, 0 for none.
func (h *healer) lastHeld(ctx context.Context, name string, has streamState) (seq int64, err error) {
	created := has.Created.Format(time.RFC3339Nano)
	if err := h.conn.QueryRow(ctx, lastHeldSQL, name, created, has.LastSeq).Scan(&seq); err != nil {
		return 0, fmt.Errorf("find what stream %s still holds: %w", name, err)
	}
	return seq, nil
}

// rewind goes back to after batch target. The session that reads the ledger next
// starts there.
func (h *healer) rewind(ctx context.Context, target int64, states map[string]streamState) error {
	if err := rewind(ctx, h.conn, target, states); err != nil {
		return err
	}
	h.m.rewinds.Inc()
	return errRewound
}

// furtherBackSQL completes a recursive query back (seq): a row that a later rewind
// went behind claims messages which only come again now, or are lost. Whoever
// returns to such a row goes as far back as that rewind did.
const furtherBackSQL = `
	UNION
	SELECT r.rewound_to FROM back JOIN jetbox.relay_batch r ON r.seq > back.seq AND r.rewound_to < back.seq`

// rewindSQL appends the position of an older row under a higher generation.
const rewindSQL = `
WITH RECURSIVE back (seq) AS (
	SELECT @target::bigint` + furtherBackSQL + `
), furthest AS (
	SELECT min(seq) AS seq FROM back
)
INSERT INTO jetbox.relay_batch (seq, epoch, generation, replay, rewound_to, snap, prev_snap, pos_id, n, streams)
SELECT newest.seq + 1, newest.epoch, newest.generation + 1, true, furthest.seq,
	coalesce(target.snap, '1:1:'), target.prev_snap, target.pos_id, 0, @streams
FROM (SELECT * FROM jetbox.relay_batch ORDER BY seq DESC LIMIT 1) newest
CROSS JOIN furthest
LEFT JOIN jetbox.relay_batch target ON target.seq = furthest.seq`

func rewind(ctx context.Context, db execer, target int64, states map[string]streamState) error {
	text, err := json.Marshal(states)
	if err != nil {
		return fmt.Errorf("rewind: %w", err)
	}
	if _, err := db.Exec(ctx, rewindSQL, pgx.StrictNamedArgs{"target": target, "streams": string(text)}); err != nil {
		return fmt.Errorf("rewind: %w", err)
	}
	return nil
}
