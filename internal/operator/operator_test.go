package operator_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/jetboxhq/jetbox/integration/testenv"
	"github.com/jetboxhq/jetbox/internal/deadletter"
	"github.com/jetboxhq/jetbox/internal/operator"
	"github.com/jetboxhq/jetbox/outbox"
)

func TestMain(m *testing.M) { testenv.Main(m) }

const someone = "ada"

func enqueue(t *testing.T, db *pgxpool.Pool) uuid.UUID {
	t.Helper()
	return one[uuid.UUID](t, db, `INSERT INTO jetbox.outbox (subject, payload) VALUES ('jobs.a', '1') RETURNING message_id`)
}

func one[T any](t *testing.T, db *pgxpool.Pool, sql string, args ...any) T {
	t.Helper()
	var v T
	if err := db.QueryRow(t.Context(), sql, args...).Scan(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

func execute(t *testing.T, db *pgxpool.Pool, sql string, args ...any) {
	t.Helper()
	if _, err := db.Exec(t.Context(), sql, args...); err != nil {
		t.Fatal(err)
	}
}

func bury(t *testing.T, db *pgxpool.Pool, id uuid.UUID, subject string) {
	t.Helper()
	buryFor(t, db, id, subject, "worker")
}

func buryFor(t *testing.T, db *pgxpool.Pool, id uuid.UUID, subject, consumer string) {
	t.Helper()
	err := pgx.BeginFunc(t.Context(), db, func(tx pgx.Tx) error {
		return deadletter.Insert(t.Context(), tx, deadletter.Letter{
			MessageID: id, Consumer: consumer, Subject: subject, Payload: []byte(`{"n": 1e400}`), Key: "k",
			Headers: map[string][]string{"a": {"b"}}, Reason: "order 17 is broken", Attempts: 1,
			Errors: []deadletter.Attempt{{Attempt: 1, At: time.Now(), Error: "boom"}},
		})
	})
	if err != nil {
		t.Fatal(err)
	}
}

func state(t *testing.T, db *pgxpool.Pool, id uuid.UUID) string {
	t.Helper()
	s, err := operator.ReadStatus(t.Context(), db, id)
	if err != nil {
		t.Fatal(err)
	}
	return s.Status
}

const publishSQL = `
INSERT INTO jetbox.relay_batch (seq, epoch, snap, n) VALUES (1, 1, pg_current_snapshot(), 1)`

const processSQL = `
INSERT INTO jetbox.inbox (message_id, consumer, day, subject, result)
VALUES ($1, 'worker', (now() AT TIME ZONE 'UTC')::date, 'jobs.a', '{"b": 2}')`

func TestReadStatus_FollowsAMessageThroughItsLife(t *testing.T) {
	t.Parallel()
	db := testenv.Database(t)
	later := outbox.NewID(time.Now())
	execute(t, db, `SELECT jetbox.schedule('jobs.a', '1', message_id => $1, run_at => now() + interval '1 hour')`, later)
	sent := enqueue(t, db)
	execute(t, db, publishSQL)
	queued, done, dead := enqueue(t, db), enqueue(t, db), enqueue(t, db)
	execute(t, db, processSQL, done)
	bury(t, db, dead, "jobs.a")
	for id, want := range map[uuid.UUID]string{
		later: operator.Scheduled, queued: operator.Queued, sent: operator.Sent,
		done: operator.Done, dead: operator.Dead, outbox.NewID(time.Now()): operator.Unknown, uuid.New(): operator.Unknown,
	} {
		if got := state(t, db, id); got != want {
			t.Errorf("status = %s, want %s", got, want)
		}
	}
	s, err := operator.ReadStatus(t.Context(), db, done)
	if err != nil || string(s.Result) != `{"b": 2}` || *s.Consumer != "worker" {
		t.Errorf("status = %+v, %v, want the result", s, err)
	}
	s, err = operator.ReadStatus(t.Context(), db, dead)
	if err != nil || *s.Reason != "order 17 is broken" || len(s.Errors) != 1 || s.Errors[0].Error != "boom" {
		t.Errorf("status = %+v, %v, want the reason and its errors", s, err)
	}
	ended, err := operator.Ended(t.Context(), db, []uuid.UUID{later, queued, sent, done, dead})
	if err != nil || len(ended) != 2 || !slices.Contains(ended, done) || !slices.Contains(ended, dead) {
		t.Errorf("Ended = %v, %v, want %v", ended, err, []uuid.UUID{done, dead})
	}
}

// A planner without statistics would read the whole outbox for one message.
func TestReadStatus_AsksTheOutboxByItsBRIN(t *testing.T) {
	t.Parallel()
	db := testenv.Database(t)
	execute(t, db, `INSERT INTO jetbox.outbox (subject, payload) SELECT 'jobs.a', '1' FROM generate_series(1, 50000)`)
	execute(t, db, `SELECT brin_summarize_new_values('jetbox.outbox_0_brin')`)
	id := enqueue(t, db)
	if got := state(t, db, id); got != operator.Queued {
		t.Fatalf("status = %s, want %s", got, operator.Queued)
	}
	var plan strings.Builder
	conn, err := db.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	if _, err := conn.Exec(t.Context(), `SET enable_seqscan = off`); err != nil {
		t.Fatal(err)
	}
	rows, err := conn.Query(t.Context(), `EXPLAIN SELECT FROM jetbox.outbox o WHERE o.message_id = $1 ORDER BY o.id DESC LIMIT 1`, id)
	if err != nil {
		t.Fatal(err)
	}
	var line string
	if _, err := pgx.ForEachRow(rows, []any{&line}, func() error { plan.WriteString(line + "\n"); return nil }); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(plan.String(), "outbox_0_brin") || strings.Contains(plan.String(), "Seq Scan") {
		t.Errorf("plan = %s, want the BRIN", plan.String())
	}
}

func TestStatus_OfWhatWasCancelledBeforeItsTimeAndDoneLaterIsDone(t *testing.T) {
	t.Parallel()
	db := testenv.Database(t)
	id := one[uuid.UUID](t, db, `SELECT jetbox.schedule('jobs.a', '1', run_at => now() + interval '1 hour')`)
	if err := operator.Cancel(t.Context(), db, someone, id, "worker"); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(t.Context(), `INSERT INTO jetbox.inbox (message_id, consumer, day, subject)
		VALUES ($1, 'worker', (now() AT TIME ZONE 'UTC')::date, 'jobs.a')`, id); err != nil {
		t.Fatal(err)
	}
	if got := state(t, db, id); got != operator.Done {
		t.Errorf("status = %s, want %s", got, operator.Done)
	}
}

func TestCancel_EndsWhatIsNotProcessed(t *testing.T) {
	t.Parallel()
	db := testenv.Database(t)
	later := one[uuid.UUID](t, db, `SELECT jetbox.schedule('jobs.a', '1', run_at => now() + interval '1 hour')`)
	for _, id := range []uuid.UUID{later, enqueue(t, db)} {
		for range 2 { // a second time changes nothing
			if err := operator.Cancel(t.Context(), db, someone, id, "worker"); err != nil {
				t.Fatal(err)
			}
		}
		if got := state(t, db, id); got != operator.Cancelled {
			t.Errorf("status = %s, want %s", got, operator.Cancelled)
		}
		if history, err := operator.History(t.Context(), db, id); err != nil || len(history) != 1 || history[0].Actor != someone {
			t.Errorf("History = %v, %v, want one cancel by %s", history, err, someone)
		}
	}
}

func TestCancel_LeavesAloneWhatHasEnded(t *testing.T) {
	t.Parallel()
	db := testenv.Database(t)
	done, dead := enqueue(t, db), enqueue(t, db)
	execute(t, db, processSQL, done)
	bury(t, db, dead, "jobs.a")
	for id, want := range map[uuid.UUID]string{done: operator.Done, dead: operator.Dead, uuid.New(): operator.Unknown} {
		err := operator.Cancel(t.Context(), db, someone, id, "worker")
		if e, ok := errors.AsType[*operator.StateError](err); !ok || e.Status.Status != want {
			t.Errorf("Cancel = %v, want a StateError of %s", err, want)
		}
		if n := one[int](t, db, `SELECT count(*) FROM jetbox.operator_action`); n != 0 {
			t.Errorf("the audit has %d lines, want 0", n)
		}
	}
}

// A worker whose transaction is open when a cancel comes wins if it commits.
func TestCancel_WaitsForTheWorkerThatRuns(t *testing.T) {
	t.Parallel()
	db := testenv.Database(t)
	id := enqueue(t, db)
	tx, err := db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), processSQL, id); err != nil {
		t.Fatal(err)
	}
	cancelled := make(chan error, 1)
	go func() { cancelled <- operator.Cancel(t.Context(), db, someone, id, "worker") }()
	testenv.Eventually(t, "the cancel to wait", func() bool {
		return one[int](t, db, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`) == 1
	})
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if e, ok := errors.AsType[*operator.StateError](<-cancelled); !ok || e.Status.Status != operator.Done {
		t.Errorf("Cancel = %v, want a StateError of done", e)
	}
}

func TestRedrive_SendsTheMessageAgainOnce(t *testing.T) {
	t.Parallel()
	db := testenv.Database(t)
	id := enqueue(t, db)
	bury(t, db, id, "jobs.a")
	execute(t, db, `UPDATE jetbox.dead_letter SET died_at = now() - interval '1 hour'`)
	for _, want := range []int{1, 0} {
		out, err := operator.Redrive(t.Context(), db, someone, deadletter.Filter{IDs: []uuid.UUID{id}}, 10)
		if err != nil || len(out.Messages) != want {
			t.Errorf("Redrive = %+v, %v, want %d", out, err, want)
		}
	}
	got := one[string](t, db, `SELECT subject || key || headers || payload FROM jetbox.outbox WHERE message_id = $1 AND key IS NOT NULL`, id)
	if want := `jobs.ak{"a":"b"}{"n": 1e400}`; got != want {
		t.Errorf("outbox = %s, want %s", got, want)
	}
	history, err := operator.History(t.Context(), db, id)
	if err != nil || len(history) != 1 || !strings.Contains(string(history[0].Details), "boom") {
		t.Errorf("History = %+v, %v, want the errors of the letter", history, err)
	}
}

// The broker would take a message it remembers for a duplicate, and drop it.
func TestRedrive_WaitsOutTheDuplicateWindow(t *testing.T) {
	t.Parallel()
	db := testenv.Database(t)
	id := enqueue(t, db)
	bury(t, db, id, "jobs.a")
	execute(t, db, `UPDATE jetbox.relay_lease SET duplicate_window = '1 hour'`) // as the relay notes it
	if _, err := operator.Redrive(t.Context(), db, someone, deadletter.Filter{}, 10); err != nil {
		t.Fatal(err)
	}
	if wait := one[float64](t, db, `SELECT extract(epoch FROM run_at - now())::float8 FROM jetbox.scheduled WHERE message_id = $1`, id); wait < 3590 || wait > 3602 {
		t.Errorf("the message waits %v s, want an hour", wait)
	}
}

// A worker would refuse it, and what is known of it would be gone. What no stream
// took may still be for somebody.
func TestRedrive_LeavesWhatTheInboxNoLongerRemembers(t *testing.T) {
	t.Parallel()
	db := testenv.Database(t)
	old, unpublished, foreign, fresh := outbox.NewID(time.Now().AddDate(-1, 0, 0)), outbox.NewID(time.Now().AddDate(-1, 0, 0)), uuid.New(), outbox.NewID(time.Now())
	bury(t, db, old, "jobs.a")
	buryFor(t, db, unpublished, "jobs.a", deadletter.Relay)
	bury(t, db, foreign, "jobs.a")
	bury(t, db, fresh, "jobs.a")
	out, err := operator.Redrive(t.Context(), db, someone, deadletter.Filter{}, 10)
	if err != nil || len(out.Messages) != 3 || slices.Contains(out.Messages, old) || len(out.Refused) != 0 {
		t.Errorf("Redrive of all = %+v, %v, want all but %s", out, err, old)
	}
	out, err = operator.Redrive(t.Context(), db, someone, deadletter.Filter{IDs: []uuid.UUID{old}}, 10)
	if err != nil || len(out.Messages) != 0 || len(out.Refused) != 1 || !strings.Contains(out.Refused[0].Rule, "older than the inbox remembers") {
		t.Errorf("Redrive of the old one = %+v, %v, want it refused", out, err)
	}
	if got := state(t, db, old); got != operator.Dead {
		t.Errorf("status = %s, want %s", got, operator.Dead)
	}
}

// Letters beyond the limit, or that somebody else has in hand, are not refused.
func TestRedrive_RefusesNoLetterThatItHasNotReached(t *testing.T) {
	t.Parallel()
	db := testenv.Database(t)
	var ids []uuid.UUID
	for range 3 {
		ids = append(ids, enqueue(t, db))
		bury(t, db, ids[len(ids)-1], "jobs.a")
	}
	out, err := operator.Redrive(t.Context(), db, someone, deadletter.Filter{IDs: ids}, 2)
	if err != nil || len(out.Messages) != 2 || len(out.Refused) != 0 {
		t.Errorf("Redrive = %+v, %v, want two and no refusal", out, err)
	}
}

// Each letter that the outbox refuses costs a transaction, so it counts.
func TestRedrive_LooksAtNoMoreLettersThanItsLimit(t *testing.T) {
	t.Parallel()
	db := testenv.Database(t)
	for range 5 {
		bury(t, db, outbox.NewID(time.Now()), "jobs.ä")
	}
	out, err := operator.Redrive(t.Context(), db, someone, deadletter.Filter{}, 3)
	if err != nil || len(out.Messages) != 0 || len(out.Refused) != 3 {
		t.Errorf("Redrive = %+v, %v, want three refused", out, err)
	}
}

func TestRedrive_SendsAMessageOnceThatIsDeadForTwoConsumers(t *testing.T) {
	t.Parallel()
	db := testenv.Database(t)
	id := enqueue(t, db)
	bury(t, db, id, "jobs.a")
	buryFor(t, db, id, "jobs.a", "mail")
	out, err := operator.Redrive(t.Context(), db, someone, deadletter.Filter{}, 10)
	if err != nil || len(out.Messages) != 1 || out.Letters != 2 {
		t.Errorf("Redrive = %+v, %v, want one message of two letters", out, err)
	}
	if n := one[int](t, db, `SELECT count(*) FROM jetbox.scheduled WHERE message_id = $1`, id); n != 1 {
		t.Errorf("%d messages wait, want 1", n)
	}
}

func TestRedrive_LeavesWhatNoOutboxTakes(t *testing.T) {
	t.Parallel()
	db := testenv.Database(t)
	good, bad := enqueue(t, db), enqueue(t, db)
	bury(t, db, bad, "jobs.ä") // the older one
	bury(t, db, good, "jobs.a")
	out, err := operator.Redrive(t.Context(), db, someone, deadletter.Filter{}, 2)
	if err != nil || !slices.Equal(out.Messages, []uuid.UUID{good}) || len(out.Refused) != 1 || out.Refused[0].ID != bad ||
		out.Refused[0].Rule != "subject_is_1_to_16_tokens_of_letters_digits_dash_underscore" {
		t.Errorf("Redrive = %+v, %v, want %s redriven and %s refused", out, err, good, bad)
	}
	if got := state(t, db, bad); got != operator.Dead {
		t.Errorf("status = %s, want %s", got, operator.Dead)
	}
}

func TestDiscard_IsForGood(t *testing.T) {
	t.Parallel()
	db := testenv.Database(t)
	id, old := enqueue(t, db), outbox.NewID(time.Now().AddDate(-1, 0, 0))
	bury(t, db, id, "jobs.a")
	bury(t, db, old, "jobs.a")
	out, err := operator.Discard(t.Context(), db, someone, deadletter.Filter{Subject: "jobs.a", Reason: "broken"}, 10)
	if err != nil || len(out.Messages) != 2 {
		t.Fatalf("Discard = %+v, %v, want both", out, err)
	}
	for _, id := range []uuid.UUID{id, old} {
		if got := state(t, db, id); got != operator.Cancelled {
			t.Errorf("status = %s, want %s", got, operator.Cancelled)
		}
	}
	if n := one[int](t, db, `SELECT count(*) FROM jetbox.inbox WHERE message_id = $1`, id); n != 1 {
		t.Error("nothing keeps the consumer from running it again")
	}
}
