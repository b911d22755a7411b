package deadletter

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Filter chooses letters. Its zero value chooses all.
type Filter struct {
	IDs      []uuid.UUID // empty is any
	Consumer string      // empty is any
	Subject  string      // empty is any
	Reason   string      // a part of the reason, as it is or as Groups shows it
	Before   time.Time   // died before; zero is any time
	Except   []uuid.UUID // not these
	From     uuid.UUID   // but for letters of a relay, no UUIDv7 that is lower; zero is any
	Old      bool        // only those that From leaves out
}

// plainReason is the reason without numbers and IDs, which otherwise differ in
// each letter.
const plainReason = `regexp_replace(left(reason, 200), '[0-9a-f]{8}-[0-9a-f-]{27}|[0-9]+', 'N', 'g')`

const filterSQL = ` (@ids::uuid[] IS NULL OR message_id = ANY (@ids))
	AND @consumer IN ('', consumer) AND @subject IN ('', subject)
	AND (strpos(reason, @reason) > 0 OR strpos(` + plainReason + `, @reason) > 0) AND message_id <> ALL (@except::uuid[])
	AND (@before::timestamptz IS NULL OR died_at < @before)
	AND (message_id >= @from::uuid OR consumer = '$relay' OR get_byte(uuid_send(message_id), 6) >> 4 <> 7) <> @old`

func (f Filter) args() pgx.StrictNamedArgs {
	args := pgx.StrictNamedArgs{
		"ids": nil, "consumer": f.Consumer, "subject": f.Subject, "reason": f.Reason, "before": nil,
		"except": append([]uuid.UUID{}, f.Except...), "from": f.From, "old": f.Old,
	} // not NULL, which nothing differs from
	if len(f.IDs) > 0 {
		args["ids"] = f.IDs
	}
	if !f.Before.IsZero() {
		args["before"] = f.Before
	}
	return args
}

// Summary is a letter without its payload.
type Summary struct {
	MessageID uuid.UUID `json:"id"`
	Consumer  string    `json:"consumer"`
	Subject   string    `json:"subject"`
	Key       *string   `json:"key,omitempty"`
	Reason    string    `json:"reason"`
	Attempts  int       `json:"attempts"`
	DiedAt    time.Time `json:"died_at"`
}

// Place is where a page of a list ended; the next one begins after it.
type Place struct {
	DiedAt    time.Time
	MessageID uuid.UUID
	Consumer  string
}

const listSQL = `
SELECT message_id, consumer, subject, key, reason, attempts, died_at
FROM jetbox.dead_letter
WHERE` + filterSQL + `
	AND (@after_time::timestamptz IS NULL OR (died_at, message_id, consumer) < (@after_time, @after_id::uuid, @after_consumer))
ORDER BY died_at DESC, message_id DESC, consumer DESC
LIMIT @limit`

// List returns letters after a place, the latest first. A nil place is the
// beginning.
func List(ctx context.Context, db Querier, f Filter, after *Place, limit int) ([]Summary, error) {
	args := f.args()
	args["limit"], args["after_time"], args["after_id"], args["after_consumer"] = limit, nil, nil, ""
	if after != nil {
		args["after_time"], args["after_id"], args["after_consumer"] = after.DiedAt, after.MessageID, after.Consumer
	}
	return collect[Summary](ctx, db, "list", listSQL, args)
}

const oldestSQL = `
SELECT message_id, consumer, subject, key, reason, attempts, died_at
FROM jetbox.dead_letter
WHERE` + filterSQL + `
ORDER BY died_at, message_id, consumer
LIMIT @limit`

// Oldest returns the letters that Take would remove.
func Oldest(ctx context.Context, db Querier, f Filter, limit int) ([]Summary, error) {
	args := f.args()
	args["limit"] = limit
	return collect[Summary](ctx, db, "oldest", oldestSQL, args)
}

// Group is the letters that one mistake has probably in common.
type Group struct {
	Consumer string    `json:"consumer"`
	Subject  string    `json:"subject"`
	Reason   string    `json:"reason"`
	Letters  int64     `json:"letters"`
	First    time.Time `json:"first"`
	Last     time.Time `json:"last"`
	Example  uuid.UUID `json:"example"`
}

const groupSQL = `
SELECT consumer, subject, ` + plainReason + ` AS reason,
	count(*) AS letters, min(died_at) AS first, max(died_at) AS last, (array_agg(message_id ORDER BY died_at DESC))[1] AS example
FROM jetbox.dead_letter
WHERE` + filterSQL + `
GROUP BY 1, 2, 3
ORDER BY letters DESC, last DESC
LIMIT 1000`

// Groups counts letters by consumer, subject and reason, the most first.
func Groups(ctx context.Context, db Querier, f Filter) ([]Group, error) {
	return collect[Group](ctx, db, "group", groupSQL, f.args())
}

// Full is a letter with everything in it.
type Full struct {
	Summary
	Headers      json.RawMessage `json:"headers,omitempty"`
	Payload      json.RawMessage `json:"payload,omitempty"`
	PayloadBytes []byte          `json:"payload_bytes,omitempty"`
	ContentType  *string         `json:"content_type,omitempty"`
	Errors       []Attempt       `json:"errors"`
	OutboxID     *int64          `json:"outbox_id,omitempty"`
	Stream       *string         `json:"stream,omitempty"`
	StreamSeq    *int64          `json:"stream_seq,omitempty"`
}

const fullColumns = `d.message_id, d.consumer, d.subject, d.key, d.reason, d.attempts, d.died_at,
	d.headers, d.payload, d.payload_bytes, d.content_type, d.errors, d.outbox_id, d.stream, d.stream_seq`

const showSQL = `SELECT ` + fullColumns + ` FROM jetbox.dead_letter d WHERE d.message_id = @id ORDER BY d.consumer`

// Show returns the letters of one message, one a consumer.
func Show(ctx context.Context, db Querier, id uuid.UUID) ([]Full, error) {
	return collect[Full](ctx, db, "show", showSQL, pgx.StrictNamedArgs{"id": id})
}

const countMatchingSQL = `SELECT count(*) FROM jetbox.dead_letter WHERE` + filterSQL

// CountMatching counts the letters that f chooses.
func CountMatching(ctx context.Context, db Querier, f Filter) (int64, error) {
	rows, err := db.Query(ctx, countMatchingSQL, f.args())
	if err != nil {
		return 0, fmt.Errorf("deadletter: count: %w", err)
	}
	n, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[int64])
	if err != nil {
		return 0, fmt.Errorf("deadletter: count: %w", err)
	}
	return n, nil
}

// takeSQL leaves alone what another person takes at this moment.
const takeSQL = `
DELETE FROM jetbox.dead_letter d
USING (
	SELECT message_id, consumer FROM jetbox.dead_letter
	WHERE` + filterSQL + `
	ORDER BY died_at, message_id, consumer
	LIMIT @limit
	FOR UPDATE SKIP LOCKED) AS t
WHERE d.message_id = t.message_id AND d.consumer = t.consumer
RETURNING ` + fullColumns

// Take removes letters as part of tx, the oldest first, and returns them.
func Take(ctx context.Context, tx pgx.Tx, f Filter, limit int) ([]Full, error) {
	args := f.args()
	args["limit"] = limit
	return collect[Full](ctx, tx, "take", takeSQL, args)
}

// Querier is a connection, a pool or a transaction.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

func collect[T any](ctx context.Context, db Querier, step, sql string, args pgx.StrictNamedArgs) ([]T, error) {
	rows, err := db.Query(ctx, sql, args)
	if err != nil {
		return nil, fmt.Errorf("deadletter: %s: %w", step, err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByName[T])
	if err != nil {
		return nil, fmt.Errorf("deadletter: %s: %w", step, err)
	}
	return list, nil
}
