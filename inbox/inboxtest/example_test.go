package inboxtest_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/jetboxhq/jetbox/inbox"
	"github.com/jetboxhq/jetbox/inbox/inboxtest"
)

var db interface {
	Begin(ctx context.Context) (pgx.Tx, error)
} // a pool, in your tests

// A test of a handler: nothing but a database with the schema, and nothing stays
// in it.
func ExampleRun() {
	_ = func(t *testing.T) { // func TestBook(t *testing.T)
		tx, err := db.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback(t.Context()) }()

		o := inboxtest.Run(t, tx, inbox.HandleTx("jobs.orders.placed", book), inboxtest.Message{
			Subject: "jobs.orders.placed", Payload: order{Number: 7, To: "ada@example.com"},
		})
		if o.Verdict != inbox.Done {
			t.Errorf("book = %+v", o)
		}
		for _, m := range inboxtest.Enqueued(t, tx) {
			fmt.Println(m.Subject)
		}
	}
}
