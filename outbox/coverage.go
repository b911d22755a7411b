package outbox

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// coverage makes the BRIN of the ring cover what was inserted, which no INSERT
// does. What it does not cover is read whole by each chunk of a walk and by each
// look-up of one message.
type coverage struct{ lap, block int64 } // to go on with

// coverEvery is after how many rows more is covered: until then a look-up reads
// some five megabytes too many.
const coverEvery = 20_000

const summarizeSQL = `SELECT jetbox.summarize_outbox($1, $2)`

// extend covers more. It returns whether there may be more still.
func (c *coverage) extend(ctx context.Context, conn *pgx.Conn) (more bool, err error) {
	last, err := lastID(ctx, conn)
	if err != nil {
		return false, err
	}
	live := lapOf(last)
	if oldest := max(0, live-children+1); c.lap < oldest || c.lap > live {
		*c = coverage{lap: oldest}
	}
	var to int64
	err = conn.QueryRow(ctx, summarizeSQL, c.lap%children, c.block).Scan(&to)
	switch {
	case isLocked(err):
		return false, nil // by a vacuum: next time
	case err != nil:
		return false, fmt.Errorf("summarize child %d: %w", c.lap%children, err)
	}
	more, c.block = to > c.block, to
	if !more && c.lap < live {
		more, *c = true, coverage{lap: c.lap + 1}
	}
	return more, nil
}
