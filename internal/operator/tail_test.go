package operator_test

import (
	"context"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/jetboxhq/jetbox/integration/testenv"
	"github.com/jetboxhq/jetbox/internal/operator"
)

func tail(t *testing.T, db *pgxpool.Pool, subject string) *operator.Tail {
	t.Helper()
	conn, err := pgx.ConnectConfig(t.Context(), db.Config().ConnConfig)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	f, err := operator.NewTail(t.Context(), conn, subject)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func next(t *testing.T, f *operator.Tail) (what string, list []operator.Passing) {
	t.Helper()
	list, err := f.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range list {
		what += p.What + " "
	}
	return strings.TrimSpace(what), list
}

const publishAllSQL = `
INSERT INTO jetbox.relay_batch (seq, epoch, snap, n, first_id, last_id)
SELECT (SELECT count(*) + 1 FROM jetbox.relay_batch), 1, pg_current_snapshot(), count(*), min(id), max(id) FROM jetbox.outbox`

func TestTail_TellsEachStepOnce(t *testing.T) {
	t.Parallel()
	db := testenv.Database(t)
	execute(t, db, processSQL, enqueue(t, db))
	f := tail(t, db, "jobs.*")
	done, dead := enqueue(t, db), enqueue(t, db)
	execute(t, db, `INSERT INTO jetbox.outbox (subject, payload) VALUES ('other.a', '1')`)
	execute(t, db, publishAllSQL)
	if what, _ := next(t, f); what != "sent sent sent" { // the first one was sent only now, too
		t.Errorf("Next = %s, want what is sent on jobs.*", what)
	}
	execute(t, db, processSQL, done)
	bury(t, db, dead, "jobs.a")
	what, list := next(t, f)
	if what != "done dead" || *list[0].ID != done || list[0].Text != `{"b": 2}` || list[1].Text != "order 17 is broken" {
		t.Errorf("Next = %s %+v, want the result and the reason", what, list)
	}
	if what, _ := next(t, f); what != "" {
		t.Errorf("Next = %s, want nothing twice", what)
	}
}

// A row that another transaction held back comes after later ones.
func TestTail_MissesNoLateCommit(t *testing.T) {
	t.Parallel()
	db := testenv.Database(t)
	f := tail(t, db, "")
	late, soon := uuid.New(), enqueue(t, db)
	tx, err := db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), processSQL, late); err != nil {
		t.Fatal(err)
	}
	execute(t, db, processSQL, soon)
	if _, list := next(t, f); len(list) != 1 || *list[0].ID != soon {
		t.Errorf("Next = %+v, want the one that is committed", list)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, list := next(t, f); len(list) != 1 || *list[0].ID != late {
		t.Errorf("Next = %+v, want the late one", list)
	}
}

func TestTail_SaysWhenItSkips(t *testing.T) {
	t.Parallel()
	db := testenv.Database(t)
	f := tail(t, db, "none.at.all")
	execute(t, db, `INSERT INTO jetbox.inbox (message_id, consumer, day, subject)
		SELECT jetbox.uuidv7(), 'worker', (now() AT TIME ZONE 'UTC')::date, 'jobs.a' FROM generate_series(1, 3000)`)
	if what, _ := next(t, f); what != operator.Skipped {
		t.Errorf("Next = %s, want %s", what, operator.Skipped)
	}
	if what, _ := next(t, f); what != "" {
		t.Errorf("Next = %s, want nothing more", what)
	}
}
