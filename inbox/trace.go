package inbox

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Trace is one thing that the inbox knows of a message: that a consumer has
// processed it, or that an attempt failed.
type Trace struct {
	Consumer string          `json:"consumer"`
	At       time.Time       `json:"at"`
	Attempt  int             `json:"attempt,omitempty"` // zero: it is processed
	Error    string          `json:"error,omitempty"`
	Result   json.RawMessage `json:"result,omitempty"`
}

const traceSQL = `
SELECT consumer, processed_at AS at, 0 AS attempt, '' AS error, result FROM jetbox.inbox WHERE message_id = $1
UNION ALL
SELECT consumer, failed_at, attempt, error, NULL FROM jetbox.failed_attempt WHERE message_id = $1
ORDER BY at`

// ReadTrace returns what the inbox knows of a message, in order.
func ReadTrace(ctx context.Context, db *pgx.Conn, id uuid.UUID) ([]Trace, error) {
	rows, err := db.Query(ctx, traceSQL, id)
	if err != nil {
		return nil, fmt.Errorf("inbox: trace: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByName[Trace])
	if err != nil {
		return nil, fmt.Errorf("inbox: trace: %w", err)
	}
	return list, nil
}
