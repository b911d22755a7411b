package inboxtest_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/jetboxhq/jetbox/inbox"
	"github.com/jetboxhq/jetbox/inbox/inboxtest"
	"github.com/jetboxhq/jetbox/integration/testenv"
	"github.com/jetboxhq/jetbox/outbox"
)

func TestMain(m *testing.M) { testenv.Main(m) }

type order struct {
	Number int    `json:"number"`
	To     string `json:"to"`
}

type receipt struct {
	Booked int `json:"booked"`
}

var errSoldOut = errors.New("sold out")

// book is a handler as an application has one: it books an order and enqueues a
// mail.
func book(ctx context.Context, tx pgx.Tx, msg inbox.Message[order]) (receipt, error) {
	if _, err := tx.Exec(ctx, `INSERT INTO booking VALUES ($1)`, msg.Payload.Number); err != nil {
		return receipt{}, err
	}
	switch {
	case msg.Payload.To == "":
		return receipt{}, inbox.Permanent(errors.New("order without a customer"))
	case msg.Payload.Number == 13:
		return receipt{}, inbox.RetryAfter(time.Minute, errSoldOut)
	}
	return receipt{Booked: msg.Payload.Number}, outbox.Enqueue(ctx, tx, outbox.Message{
		Subject: "jobs.mail", Key: msg.Key, Headers: map[string]string{"traceparent": msg.Headers["traceparent"][0]}, Payload: msg.Payload,
	})
}

// begin returns a transaction that is rolled back when the test ends.
func begin(t *testing.T) pgx.Tx {
	t.Helper()
	tx, err := testenv.Database(t).Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tx.Rollback(context.Background()) })
	exec(t, tx, `CREATE TABLE booking (number int PRIMARY KEY)`)
	return tx
}

func exec(t *testing.T, tx pgx.Tx, sql string) {
	t.Helper()
	if _, err := tx.Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

func count(t *testing.T, tx pgx.Tx, sql string) (n int) {
	t.Helper()
	if err := tx.QueryRow(t.Context(), sql).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestRun_ShowsEffectsResultAndWhatWasEnqueued(t *testing.T) {
	t.Parallel()
	tx := begin(t)
	o := inboxtest.Run(t, tx, inbox.HandleTx("jobs.orders.*", book), inboxtest.Message{
		Subject: "jobs.orders.placed", Key: "ada", Payload: order{7, "ada@example.com"}, Headers: map[string]string{"traceparent": "00-1"},
	})
	if o.Verdict != inbox.Done || string(o.Result) != `{"booked":7}` {
		t.Errorf("outcome = %+v, want it done and booked", o)
	}
	if n := count(t, tx, `SELECT count(*) FROM booking`); n != 1 {
		t.Errorf("%d bookings, want 1", n)
	}
	got := inboxtest.Enqueued(t, tx)
	if len(got) != 1 {
		t.Fatalf("%d messages enqueued, want 1", len(got))
	}
	m := got[0]
	if m.Subject != "jobs.mail" || m.Key != "ada" || m.Headers["traceparent"] != "00-1" ||
		string(m.Payload.(json.RawMessage)) != `{"number":7,"to":"ada@example.com"}` {
		t.Errorf("enqueued = %+v", m)
	}
}

func TestRun_RunsAMessageOnceForEachConsumer(t *testing.T) {
	t.Parallel()
	tx := begin(t)
	h := inbox.HandleBatch("jobs.note", func(_ context.Context, _ pgx.Tx, msgs []inbox.Message[string]) ([]string, error) {
		return []string{msgs[0].Payload}, nil
	})
	id := uuid.Must(uuid.NewV7())
	for _, want := range []struct {
		consumer string
		verdict  inbox.Verdict
	}{{"", inbox.Done}, {"", inbox.Duplicate}, {"audit", inbox.Done}} {
		o := inboxtest.Run(t, tx, h, inboxtest.Message{ID: id, Subject: "jobs.note", Payload: "hello", Consumer: want.consumer})
		if o.Verdict != want.verdict {
			t.Errorf("consumer %q: %v, want %v", want.consumer, o.Verdict, want.verdict)
		}
	}
}

func TestRun_JudgesAFailureAndUndoesIt(t *testing.T) {
	t.Parallel()
	tx := begin(t)
	h := inbox.HandleTx("jobs.orders.placed", book)
	message := func(o order, attempt int) inboxtest.Message {
		return inboxtest.Message{Subject: "jobs.orders.placed", Payload: o, Attempt: attempt}
	}
	for name, c := range map[string]struct {
		m     inboxtest.Message
		want  inbox.Verdict
		after time.Duration
	}{
		"permanent":       {message(order{Number: 1}, 1), inbox.Dead, 0},
		"to be tried":     {message(order{13, "ada"}, 1), inbox.Retry, time.Minute},
		"tried too often": {message(order{13, "ada"}, 5), inbox.Dead, 0},
		"panic":           {message(order{2, "ada"}, 1), inbox.Retry, 0}, // no traceparent
		"no JSON":         {inboxtest.Message{Subject: "jobs.orders.placed", Payload: []byte("{")}, inbox.Dead, 0},
		"other subject":   {inboxtest.Message{Subject: "jobs.orders.gone"}, inbox.Dead, 0},
	} {
		o := inboxtest.Run(t, tx, h, c.m)
		if o.Verdict != c.want || o.After != c.after || o.Err == nil {
			t.Errorf("%s: %+v, want %v after %v", name, o, c.want, c.after)
		}
	}
	if n := count(t, tx, `SELECT count(*) FROM booking`); n != 0 {
		t.Errorf("%d bookings of failed attempts", n)
	}
}

func TestRun_CallsFunctionsInSQLAndHandlersOutside(t *testing.T) {
	t.Parallel()
	tx := begin(t)
	exec(t, tx, `CREATE FUNCTION public.shout(m jetbox.message) RETURNS json LANGUAGE sql AS $$ SELECT to_json(upper(m.payload #>> '{}')) $$`)
	call := func(_ context.Context, m inbox.Message[string]) (string, error) { return m.IdempotencyKey(), nil }
	id := uuid.Must(uuid.NewV7())
	for _, c := range []struct {
		h    inbox.Handler
		want string
	}{
		{inbox.SQLFunction("jobs.>", "public.shout"), `"HELLO"`},
		{inbox.Handle("jobs.>", call), `"mailer/` + id.String() + `"`},
	} {
		o := inboxtest.Run(t, tx, c.h, inboxtest.Message{ID: id, Subject: "jobs.x", Payload: "hello", Consumer: "mailer"})
		if string(o.Result) != c.want {
			t.Errorf("outcome = %+v, want result %s", o, c.want)
		}
		exec(t, tx, `DELETE FROM jetbox.inbox`)
	}
}

// The test goes on as who it was, whoever the function is run as.
func TestRun_KeepsTheTestsRole(t *testing.T) {
	t.Parallel()
	tx := begin(t)
	exec(t, tx, `CREATE FUNCTION public.who(m jetbox.message) RETURNS text LANGUAGE sql AS $$ SELECT current_user::text $$`)
	o := inboxtest.Run(t, tx, inbox.SQLFunctionAs("jetbox_producer", "jobs.x", "public.who"), inboxtest.Message{Subject: "jobs.x"})
	if string(o.Result) != `"jetbox_producer"` {
		t.Errorf("outcome = %+v, want the role's name", o)
	}
	if n := count(t, tx, `SELECT count(*) FROM pg_roles WHERE rolname = current_user AND rolname <> 'jetbox_producer'`); n != 1 {
		t.Error("the test goes on as jetbox_producer")
	}
}
