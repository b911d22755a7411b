package inbox_test

import (
	"context"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/jetboxhq/jetbox/inbox"
)

func TestHandleTx_SendsAnIDAsBytes(t *testing.T) {
	e := newEnv(t) // not parallel: it counts allocations
	id := e.publish("n", "")
	allocs := make(chan float64, 1)
	e.start(e.config(), inbox.HandleTx(e.subject("n"), func(ctx context.Context, tx pgx.Tx, m inbox.Message[[]byte]) (any, error) {
		allocs <- testing.AllocsPerRun(10, func() {
			if _, err := tx.Conn().TypeMap().Encode(pgtype.UUIDOID, pgx.BinaryFormatCode, m.ID, make([]byte, 0, 16)); err != nil {
				t.Error(err)
			}
		})
		var same uuid.UUID
		var text string
		var none *uuid.UUID
		err := tx.QueryRow(ctx, `SELECT $1::uuid, $2::text, NULL::uuid`, m.ID, m.ID).Scan(&same, &text, &none)
		if same != id || text != id.String() || none != nil {
			t.Errorf("read back %v, %q and %v, want %v twice and nil", same, text, none, id)
		}
		return nil, err
	}))
	e.eventuallySettled()
	e.wantNoTrace()
	if n := <-allocs; n > 3 { // by way of a string it is 21
		t.Errorf("sending an ID takes %v allocations", n)
	}
}
