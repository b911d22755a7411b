package outbox

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/jetboxhq/jetbox/integration/testenv"
)

// A replay, or a second stream's loss, must not bring the relay past what a first
// loss sent it back for.
func TestRewind_NeverSkipsWhatAnEarlierOneWentBackFor(t *testing.T) {
	t.Parallel()
	conn := openConn(t, testenv.Database(t))
	if _, err := conn.Exec(t.Context(), `INSERT INTO jetbox.relay_batch (seq, epoch, snap, n, first_id, last_id)
		SELECT i, 1, (i * 10 || ':' || i * 10 || ':')::pg_snapshot, 5, i * 5, i * 5 + 4 FROM generate_series(1, 4) i`); err != nil {
		t.Fatal(err)
	}
	if err := rewind(t.Context(), conn, 1, map[string]streamState{"A": {LastSeq: 5}}); err != nil {
		t.Fatal(err)
	}
	if err := rewind(t.Context(), conn, 3, map[string]streamState{"B": {LastSeq: 15}}); err != nil {
		t.Fatal(err)
	}
	if plan, err := PlanReplay(t.Context(), conn, ReplayFrom{Batch: 3}); err != nil || plan.AfterBatch != 1 {
		t.Errorf("PlanReplay goes back to after batch %d, %v, want 1", plan.AfterBatch, err)
	}
	at, err := (&ledger{conn: conn}).load(t.Context())
	if err != nil || at.snap.xmax != 10 {
		t.Errorf("the relay goes on at xmax %d, %v, want that of batch 1: 10", at.snap.xmax, err)
	}
	if err := pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error {
		return StartReplay(t.Context(), tx, Replay{AfterBatch: 0})
	}); err != nil {
		t.Fatal(err)
	}
	if at, err = (&ledger{conn: conn}).load(t.Context()); err != nil || at.snap.xmax != 1 {
		t.Errorf("the relay goes on at xmax %d, %v, want the beginning: 1", at.snap.xmax, err)
	}
}
