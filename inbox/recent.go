package inbox

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// No index says when a row was processed, for every INSERT would pay for it. A
// week's partition only ever grows, though: what is new stands in its last pages.
// They are all that is read here, of the partitions that can be growing. Of
// inbox_foreign, which is pruned, what is new may stand in earlier pages that have
// become free, and is then missed where there are more pages than are read.
const (
	tailPages = 1024
	tailWeeks = 4
)

// growthSQL lists the newest partitions that hold something, by their first and
// end day, with the page from which they are read.
const growthSQL = `
SELECT part.first, part.after, greatest(0, part.bytes / current_setting('block_size')::int - $1)
FROM (
	SELECT w::text, (w + 7)::text, pg_relation_size(to_regclass('jetbox.inbox_' || to_char(w, 'YYYYMMDD')))
	FROM jetbox.inbox_weeks() w
	UNION ALL
	SELECT '-infinity', '1970-01-01', pg_relation_size('jetbox.inbox_foreign')
) AS part (first, after, bytes)
WHERE part.bytes > 0
ORDER BY part.first = '-infinity' DESC, part.first DESC
LIMIT $2`

// endSQL reads a partition's end. Its days let the planner leave out the others,
// and cut tells that there are rows before the first that is read.
const endSQL = `
SELECT message_id, consumer, subject, result, processed_at, '%[1]s' AS part, %[3]d > 0 AS cut
FROM jetbox.inbox WHERE day >= '%[1]s' AND day < '%[2]s' AND ctid >= '(%[3]d,0)'`

// end returns a query of all those ends.
func end(ctx context.Context, db *pgx.Conn) (string, error) {
	rows, err := db.Query(ctx, growthSQL, tailPages, tailWeeks)
	if err != nil {
		return "", fmt.Errorf("partitions: %w", err)
	}
	parts := []string{fmt.Sprintf(endSQL, "-infinity", "-infinity", 0)} // no row, but the columns
	var first, after string
	var page int64
	_, err = pgx.ForEachRow(rows, []any{&first, &after, &page}, func() error {
		parts = append(parts, fmt.Sprintf(endSQL, first, after, page))
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("partitions: %w", err)
	}
	return strings.Join(parts, "\nUNION ALL"), nil
}

// Processed is a message that a consumer has done, or that was cancelled for it.
type Processed struct {
	MessageID   uuid.UUID       `json:"id"`
	Consumer    string          `json:"consumer"`
	Subject     string          `json:"subject"`
	Result      json.RawMessage `json:"result,omitempty"`
	ProcessedAt time.Time       `json:"processed_at"`
}

const recentSQL = `
SELECT message_id, consumer, subject, result, processed_at FROM (%s) AS t
WHERE processed_at > $1 ORDER BY processed_at DESC LIMIT $2`

// ReadRecent returns the last rows of the inbox that were processed after a
// time, the latest first: at most limit, and of a burst no more than the pages
// that are looked at.
func ReadRecent(ctx context.Context, db *pgx.Conn, after time.Time, limit int) ([]Processed, error) {
	from, err := end(ctx, db)
	if err != nil {
		return nil, fmt.Errorf("inbox: recent: %w", err)
	}
	rows, err := db.Query(ctx, fmt.Sprintf(recentSQL, from), after, limit)
	if err != nil {
		return nil, fmt.Errorf("inbox: recent: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByName[Processed])
	if err != nil {
		return nil, fmt.Errorf("inbox: recent: %w", err)
	}
	return list, nil
}

// rateSQL divides by a minute, or by what the pages cover where that is less.
const rateSQL = `
WITH tail AS (%s), span AS (
	SELECT least(60, extract(epoch FROM clock_timestamp() - max(first)))::float8 AS seconds
	FROM (SELECT min(processed_at) AS first FROM tail WHERE cut GROUP BY part) AS parts)
SELECT consumer, count(*) / seconds
FROM tail, span
WHERE processed_at > clock_timestamp() - seconds * interval '1 second'
GROUP BY consumer, seconds`

// readRates returns how many messages a second each consumer has processed in
// the last minute.
func readRates(ctx context.Context, db *pgx.Conn) (map[string]float64, error) {
	from, err := end(ctx, db)
	if err != nil {
		return nil, fmt.Errorf("rates: %w", err)
	}
	rows, err := db.Query(ctx, fmt.Sprintf(rateSQL, from))
	if err != nil {
		return nil, fmt.Errorf("rates: %w", err)
	}
	rates := map[string]float64{}
	var consumer string
	var rate float64
	_, err = pgx.ForEachRow(rows, []any{&consumer, &rate}, func() error { rates[consumer] = rate; return nil })
	if err != nil {
		return nil, fmt.Errorf("rates: %w", err)
	}
	return rates, nil
}
