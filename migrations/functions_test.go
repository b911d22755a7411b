package migrations_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/jetboxhq/jetbox/integration/testenv"
)

// lockKey is the lock that a sleeping relay holds.
const lockKey = "116983976849272"

func TestSchedule_KeepsTheMessageUntilItIsCancelled(t *testing.T) {
	t.Parallel()
	db := producer(t)
	const scheduleSQL = `SELECT jetbox.schedule('jobs.a', '{"a": 1}', 'k', '{"h": "v"}', run_at => '2030-01-02 03:04:05Z')`
	var id string
	if err := db.QueryRow(t.Context(), scheduleSQL).Scan(&id); err != nil {
		t.Fatal(err)
	}
	if n := count(t, db, `SELECT id FROM jetbox.scheduled WHERE message_id = $1 AND run_at = '2030-01-02 03:04:05Z'`, id); n != 1 {
		t.Errorf("scheduled rows = %d, want 1", n)
	}
	// A UUIDv7 of today would be too old for the inbox by then.
	const timeSQL = `SELECT id FROM jetbox.scheduled
		WHERE to_timestamp(('x' || translate(left(message_id::text, 13), '-', ''))::bit(48)::bigint / 1000.0) = run_at`
	if n := count(t, db, timeSQL); n != 1 {
		t.Errorf("the scheduled message's ID does not carry its run_at")
	}
	if n := count(t, db, `DELETE FROM jetbox.scheduled WHERE message_id = $1 RETURNING id`, id); n != 1 {
		t.Errorf("cancelled rows = %d, want 1", n)
	}
	if n := count(t, db, `SELECT id FROM jetbox.outbox`); n != 0 {
		t.Errorf("outbox rows = %d, want 0", n)
	}
}

func TestSchedule_RefusesATimeThatNeverComes(t *testing.T) {
	t.Parallel()
	db := testenv.Database(t)
	refuses(t, db, checkViolation, "run_at_is_a_finite_time", `SELECT jetbox.schedule('jobs.a', '1', run_at => 'infinity')`)
	refuses(t, db, checkViolation, "run_at_is_a_finite_time", `SELECT jetbox.schedule('jobs.a', '1', run_at => '-infinity')`)
	refuses(t, db, "23502", "", `SELECT jetbox.schedule('jobs.a', '1', run_at => NULL)`)
	refuses(t, db, "22008", "", `SELECT jetbox.schedule('jobs.a', '1', run_at => '300000-01-01')`)
	refuses(t, db, checkViolation, payloads, `SELECT jetbox.schedule('jobs.a', NULL)`)
}

func TestEnqueue_RefusesWhatTheOutboxRefuses(t *testing.T) {
	t.Parallel()
	db := testenv.Database(t)
	refuses(t, db, checkViolation, badSubject, `SELECT jetbox.enqueue('jobs.*', '1')`)
	refuses(t, db, checkViolation, payloads, `SELECT jetbox.enqueue('jobs.a', NULL)`)
	refuses(t, db, checkViolation, reservedHeaders, `SELECT jetbox.enqueue('jobs.a', '1', headers => '{"Nats-TTL": "1s"}')`)
}

func TestOutboxEvent_BecomesAMessage(t *testing.T) {
	t.Parallel()
	db := testenv.Database(t)
	if _, err := db.Exec(t.Context(), `INSERT INTO jetbox.outboxevent (aggregatetype, aggregateid, type, payload)
		VALUES ('order', '17', 'placed', '{"total": 3}')`); err != nil {
		t.Fatal(err)
	}
	if n := count(t, db, `SELECT FROM jetbox.outbox WHERE (subject, key, payload::text) = ('jobs.order.placed', '17', '{"total": 3}')`); n != 1 {
		t.Errorf("outbox rows = %d, want 1", n)
	}
	if n := count(t, db, `SELECT FROM jetbox.outboxevent WHERE (aggregatetype, aggregateid, type) = ('order', '17', 'placed')`); n != 1 {
		t.Errorf("rows of the view = %d, want 1", n)
	}
}

func TestOutboxEvent_RefusesABadRow(t *testing.T) {
	t.Parallel()
	db := testenv.Database(t)
	for name, tt := range map[string]struct{ code, constraint, values string }{
		"no type":             {"23502", "", `'order', '17', NULL, '1'`},
		"no aggregate type":   {"23502", "", `NULL, '17', 'placed', '1'`},
		"no payload":          {checkViolation, payloads, `'order', '17', 'placed', NULL`},
		"space in the type":   {checkViolation, badSubject, `'order', '17', 'was placed', '1'`},
		"empty type":          {checkViolation, badSubject, `'order', '17', '', '1'`},
		"wildcard":            {checkViolation, badSubject, `'*', '17', 'placed', '1'`},
		"empty aggregate ID":  {checkViolation, badKey, `'order', '', 'placed', '1'`},
		"payload not of JSON": {"22P02", "", `'order', '17', 'placed', '{bad'`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			refuses(t, db, tt.code, tt.constraint,
				`INSERT INTO jetbox.outboxevent (aggregatetype, aggregateid, type, payload) VALUES (`+tt.values+`)`)
		})
	}
}

func TestOutbox_CommitsSynchronouslyWhateverTheSession(t *testing.T) {
	t.Parallel()
	db := testenv.Database(t)
	for _, tt := range []struct{ session, want string }{
		{"off", "on"}, {"local", "local"}, {"on", "on"}, {"remote_apply", "remote_apply"},
	} {
		t.Run(tt.session, func(t *testing.T) {
			t.Parallel()
			rollback(t, db, func(tx pgx.Tx) {
				must(t, tx, `SET LOCAL synchronous_commit = `+tt.session)
				must(t, tx, `INSERT INTO jetbox.outbox (subject, payload) VALUES ('jobs.a', '1')`)
				var got string
				if err := tx.QueryRow(t.Context(), `SHOW synchronous_commit`).Scan(&got); err != nil || got != tt.want {
					t.Errorf("synchronous_commit = %s, %v, want %s", got, err, tt.want)
				}
			})
		})
	}
}

func TestDoorbell_RingsOnlyForASleepingRelay(t *testing.T) {
	t.Parallel()
	db := testenv.Database(t)
	relay, err := db.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer relay.Release()
	must(t, relay, `LISTEN jetbox_outbox`)
	enqueue(t, db, "awake")
	must(t, relay, `SELECT pg_advisory_lock(`+lockKey+`)`)
	enqueue(t, db, "asleep")
	if !rang(t, relay.Conn(), 10*time.Second) {
		t.Error("no notification although the relay sleeps")
	}
	must(t, relay, `SELECT pg_advisory_unlock(`+lockKey+`)`)
	enqueue(t, db, "awake again")
	if rang(t, relay.Conn(), 200*time.Millisecond) {
		t.Error("a notification although the relay was awake")
	}
}

func TestDoorbell_HoldsARelayAwakeUntilTheWriterCommits(t *testing.T) {
	t.Parallel()
	db := testenv.Database(t)
	sleeps := func() (ok bool) {
		if err := db.QueryRow(t.Context(), `SELECT pg_try_advisory_xact_lock(`+lockKey+`)`).Scan(&ok); err != nil {
			t.Fatal(err)
		}
		return ok
	}
	rollback(t, db, func(tx pgx.Tx) {
		must(t, tx, `INSERT INTO jetbox.outbox (subject, payload) VALUES ('jobs.a', '1')`)
		if sleeps() {
			t.Error("the relay may sleep although a row is coming")
		}
	})
	if !sleeps() {
		t.Error("the relay may not sleep although nobody writes")
	}
}

func TestDoorbell_StaysOffForPreparedTransactions(t *testing.T) {
	t.Parallel()
	db := testenv.Database(t)
	if count(t, db, `SELECT WHERE current_setting('max_prepared_transactions') = '0'`) == 1 {
		t.Skip("this server has max_prepared_transactions = 0")
	}
	relay, err := db.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer relay.Release()
	must(t, relay, `SELECT pg_advisory_lock(`+lockKey+`)`)
	err = pgx.BeginFunc(t.Context(), db, func(tx pgx.Tx) error {
		must(t, tx, `SET LOCAL jetbox.doorbell = off`)
		must(t, tx, `INSERT INTO jetbox.outbox (subject, payload) VALUES ('jobs.a', '1')`)
		must(t, tx, `PREPARE TRANSACTION 'p'`)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	must(t, db, `COMMIT PREPARED 'p'`)
	if n := count(t, db, `SELECT FROM jetbox.outbox`); n != 1 {
		t.Errorf("outbox rows = %d, want 1", n)
	}
}

// session is what a pool, a connection and a transaction share.
type session interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

func must(t *testing.T, s session, sql string) {
	t.Helper()
	if _, err := s.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func enqueue(t *testing.T, db *pgxpool.Pool, key string) {
	t.Helper()
	if _, err := db.Exec(t.Context(), `INSERT INTO jetbox.outbox (subject, payload, key) VALUES ('jobs.a', '1', $1)`, key); err != nil {
		t.Fatal(err)
	}
}

func count(t *testing.T, db *pgxpool.Pool, sql string, args ...any) int64 {
	t.Helper()
	tag, err := db.Exec(t.Context(), sql, args...)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return tag.RowsAffected()
}

func rollback(t *testing.T, db *pgxpool.Pool, fn func(tx pgx.Tx)) {
	t.Helper()
	tx, err := db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(t.Context()) }() // nothing to keep
	fn(tx)
}

func rang(t *testing.T, conn *pgx.Conn, within time.Duration) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	_, err := conn.WaitForNotification(ctx)
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	return err == nil
}

func TestKnown_TellsWhatIsDoneDeadOrTriedByConsumer(t *testing.T) {
	t.Parallel()
	db := testenv.Database(t)
	const givenSQL = `
		WITH done AS (
			INSERT INTO jetbox.inbox (message_id, consumer, day, subject) VALUES
				('00000000-0000-0000-0000-000000000001', 'w', current_date, 's'),
				('00000000-0000-0000-0000-000000000002', 'audit', current_date, 's')),
		tried AS (
			INSERT INTO jetbox.failed_attempt (message_id, consumer, attempt, error) VALUES
				('00000000-0000-0000-0000-000000000003', 'w', 1, 'e'), ('00000000-0000-0000-0000-000000000005', 'w', 1, 'e'),
				('00000000-0000-0000-0000-000000000005', 'w', 2, 'e'), ('00000000-0000-0000-0000-000000000006', 'audit', 1, 'e'))
		INSERT INTO jetbox.dead_letter (message_id, consumer, subject, reason) VALUES
			('00000000-0000-0000-0000-000000000003', 'w', 's', 'r'), ('00000000-0000-0000-0000-000000000004', 'audit', 's', 'r')`
	if _, err := db.Exec(t.Context(), givenSQL); err != nil {
		t.Fatal(err)
	}
	const askSQL = `
		SELECT string_agg(right(id::text, 1) || ' ' || state, ', ' ORDER BY id, state)
		FROM jetbox.known('w', ARRAY(SELECT ('00000000-0000-0000-0000-00000000000' || n)::uuid FROM generate_series(1, 6) n),
			array_fill(current_date, '{6}'))`
	var got string
	if err := db.QueryRow(t.Context(), askSQL).Scan(&got); err != nil || got != "1 done, 3 dead, 3 tried, 5 tried" {
		t.Errorf("known: %q, %v, want 1 done, 3 dead and tried, 5 tried", got, err)
	}
}

func TestKnown_ScansNoPartitionThatWasEmptyWhenItWasAnalyzed(t *testing.T) {
	t.Parallel()
	db := testenv.Database(t)
	if _, err := db.Exec(t.Context(), `ANALYZE jetbox.inbox, jetbox.dead_letter, jetbox.failed_attempt`); err != nil {
		t.Fatal(err)
	}
	const askSQL = `SELECT count(*) FROM jetbox.known('w', ARRAY[gen_random_uuid()], ARRAY[current_date])`
	const scansSQL = `
		SELECT coalesce(sum(seq_scan), 0), coalesce(sum(idx_scan), 0) FROM pg_stat_xact_user_tables WHERE relname ~ '^(inbox_|dead_letter|failed_attempt)'`
	err := pgx.BeginFunc(t.Context(), db, func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), askSQL); err != nil {
			return err
		}
		var scans, lookups int
		err := tx.QueryRow(t.Context(), scansSQL).Scan(&scans, &lookups)
		if scans != 0 || lookups != 3 {
			t.Errorf("%d scans and %d index lookups, want none and 3", scans, lookups)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
