package outbox_test

import (
	"regexp"
	"strconv"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/jetboxhq/jetbox/integration/testenv"
)

// Nothing but the relay makes the BRIN cover what is inserted, and what it does
// not cover is read whole.
func TestRelay_KeepsTheLookUpOfAMessageSmall(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.relay()
	for i := range 12 {
		l.insert(3500*i, 3500) // too few for a walk
		l.waitCaughtUp()
	}
	id := ask[uuid.UUID](l, `SELECT message_id FROM jetbox.outbox ORDER BY id LIMIT 1`)
	all := ask[int](l, `SELECT pg_relation_size('jetbox.outbox_0') / current_setting('block_size')::int`)
	testenv.Eventually(t, "the BRIN to cover most pages", func() bool { return 3*pagesRead(l, id) < all })
}

var lossyPages = regexp.MustCompile(`"Lossy Heap Blocks": (\d+)`)

// pagesRead is how many pages of the outbox it takes to find a message.
func pagesRead(l *lab, id uuid.UUID) (n int) {
	l.t.Helper()
	var plan string
	err := pgx.BeginFunc(l.t.Context(), l.db, func(tx pgx.Tx) error {
		if _, err := tx.Exec(l.t.Context(), `SET LOCAL enable_seqscan = off`); err != nil { // as jetbox.message_status does
			return err
		}
		return tx.QueryRow(l.t.Context(), `EXPLAIN (ANALYZE, FORMAT JSON) SELECT FROM jetbox.outbox WHERE message_id = $1`, id).Scan(&plan)
	})
	if err != nil {
		l.t.Fatal(err)
	}
	for _, m := range lossyPages.FindAllStringSubmatch(plan, -1) {
		pages, _ := strconv.Atoi(m[1])
		n += pages
	}
	if n == 0 {
		l.t.Fatalf("no pages in %s", plan)
	}
	return n
}
