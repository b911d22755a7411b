package outbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/jetboxhq/jetbox/internal/deadletter"
)

// errFenced reports that another relay holds the lease or wrote the ledger: what
// this one knows is out of date.
var errFenced = errors.New("another relay has taken over")

// errRestored reports a ledger from a cluster that had counted further.
var errRestored = errors.New("the ledger is ahead of this cluster's transaction counter, as after a restore into another cluster; " +
	"run once, as the owner: UPDATE jetbox.outbox SET xid = pg_current_xact_id(); TRUNCATE jetbox.relay_batch; (the inbox absorbs the repeats)")

// ledger is the append-only table of batches. Its newest row is the position,
// and its primary key lets only one relay write the next.
type ledger struct {
	conn       querier
	epoch      int64
	seq        int64
	generation int
}

// streamState is what a stream had acknowledged when a batch was recorded.
type streamState struct {
	Created time.Time `json:"created"`
	LastSeq uint64    `json:"last_seq"`
}

const positionSQL = `
SELECT seq, generation, replay, snap::text, coalesce(prev_snap::text, ''), coalesce(pos_id, 0),
	pg_snapshot_xmax(snap) > pg_snapshot_xmax(pg_current_snapshot())
FROM jetbox.relay_batch
ORDER BY seq DESC
LIMIT 1`

// load reads the newest row. An empty ledger is a relay that has published
// nothing yet.
func (l *ledger) load(ctx context.Context) (position, error) {
	var snap, prev string
	var pos int64
	var replay, restored bool
	err := l.conn.QueryRow(ctx, positionSQL).Scan(&l.seq, &l.generation, &replay, &snap, &prev, &pos, &restored)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return position{snap: genesis}, nil
	case err != nil:
		return position{}, fmt.Errorf("load position: %w", err)
	case restored:
		return position{}, errRestored
	}
	at, err := parsePosition(snap, prev, pos)
	at.replay = replay
	return at, err
}

func parsePosition(snap, prev string, pos int64) (position, error) {
	at, err := parseSnapshot(snap)
	if err != nil || prev == "" {
		return position{snap: at}, err
	}
	from, err := parseSnapshot(prev)
	return position{snap: at, open: true, prev: from, pos: pos}, err
}

// appendSQL writes no row when the lease has a newer epoch. That only fails
// fast; the primary key is what decides between two relays.
const appendSQL = `
INSERT INTO jetbox.relay_batch (seq, epoch, generation, replay, snap, prev_snap, pos_id, n, first_id, last_id, streams, published_at)
SELECT @seq, @epoch, @generation, @replay, @snap::text::pg_snapshot, @prev::text::pg_snapshot, @pos, @n, @first, @last, @streams,
	clock_timestamp() - @age::interval
FROM jetbox.relay_lease
WHERE epoch = @epoch`

// append records that b is published, together with the letters of its rows
// that could not be.
func (l *ledger) append(ctx context.Context, b *batch) error {
	if b.replay {
		if err := l.takeBack(ctx, b); err != nil {
			return err
		}
	}
	if len(b.dead) == 0 {
		return l.insert(ctx, l.conn, b)
	}
	err := pgx.BeginFunc(ctx, l.conn, func(tx pgx.Tx) error {
		if err := deadletter.Insert(ctx, tx, b.dead...); err != nil {
			return err
		}
		return l.insert(ctx, tx, b)
	})
	if err != nil {
		return fmt.Errorf("record with dead letters: %w", err)
	}
	return nil
}

const takeBackSQL = `SELECT jetbox.take_back(@ids)`

// takeBack removes the letters of what a replay has published; those that are dead
// still are written anew. Until b is recorded all of it is pending.
func (l *ledger) takeBack(ctx context.Context, b *batch) error {
	ids := make([]pgtype.UUID, len(b.rows))
	for i, r := range b.rows {
		ids[i] = pgtype.UUID{Bytes: r.messageID, Valid: true}
	}
	if _, err := l.conn.Exec(ctx, takeBackSQL, pgx.StrictNamedArgs{"ids": ids}); err != nil {
		return fmt.Errorf("take letters back: %w", err)
	}
	return nil
}

type execer interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// querier is a connection, or in a test a model of the database.
type querier interface {
	execer
	Begin(ctx context.Context) (pgx.Tx, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

func (l *ledger) insert(ctx context.Context, db execer, b *batch) error {
	tag, err := db.Exec(ctx, appendSQL, l.row(b))
	switch e, _ := errors.AsType[*pgconn.PgError](err); {
	case e != nil && e.Code == "23505":
		return errFenced
	case err != nil:
		return fmt.Errorf("record: %w", err)
	case tag.RowsAffected() == 0:
		return errFenced
	}
	l.seq++
	return nil
}

func (l *ledger) row(b *batch) pgx.StrictNamedArgs {
	streams, err := json.Marshal(b.streams)
	if err != nil {
		panic(err) // strings, numbers and times always encode
	}
	args := pgx.StrictNamedArgs{
		"seq": l.seq + 1, "epoch": l.epoch, "generation": l.generation, "replay": b.after.replay,
		"snap": b.after.snap.text, "prev": nil, "pos": nil,
		"n": len(b.rows), "first": nil, "last": nil, "streams": string(streams), "age": time.Since(b.stored),
	}
	if b.after.open {
		args["prev"], args["pos"] = b.after.prev.text, b.after.pos
	}
	if len(b.rows) > 0 {
		args["first"], args["last"] = b.rows[0].id, b.lastID()
	}
	return args
}
