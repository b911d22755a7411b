package inbox_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"

	"github.com/jetboxhq/jetbox/inbox"
	"github.com/jetboxhq/jetbox/integration/testenv"
)

func TestWorker_CommitsOnceWhenACommitsOutcomeIsUnknown(t *testing.T) {
	t.Parallel()
	cases := map[string]func(n *network){
		"the reply is lost":              func(n *network) { n.afterCommit.Store(2) },
		"the COMMIT is lost":             func(n *network) { n.beforeCommit.Store(2) },
		"first the COMMIT, then a reply": func(n *network) { n.beforeCommit.Store(1); n.afterCommit.Store(1) },
	}
	for name, arm := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			n, db := newNetwork(t, e.db)
			for range 20 {
				e.publish("n", "")
			}
			arm(n)
			cfg := e.config()
			cfg.Concurrency, cfg.MaxAttempts = 1, 1 // the first attempt that counts is the last
			e.startOn(db, e.dial, cfg, e.effect("n"))
			e.eventuallySettled()
			e.wantEffects(20)
			e.wantNoTrace()
			if n.cuts.Load() == 0 {
				t.Error("no COMMIT was cut")
			}
		})
	}
}

func TestHandle_DoesNotCallAgainWhenOnlyTheRecordFails(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	n, db := newNetwork(t, e.db)
	n.beforeCommit.Store(2)
	var calls atomic.Int32
	e.publish("call", "")
	e.startOn(db, e.dial, e.config(), inbox.Handle(e.subject("call"), func(context.Context, inbox.Message[[]byte]) (none, error) {
		calls.Add(1)
		return none{}, nil
	}))
	e.eventuallySettled()
	if calls.Load() != 1 || n.cuts.Load() != 2 {
		t.Errorf("%d calls and %d cuts, want 1 and 2", calls.Load(), n.cuts.Load())
	}
	e.wantNoTrace()
}

func TestWorker_AcknowledgesOnlyAfterTheCommit(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	n, db := newNetwork(t, e.db)
	gate := make(chan struct{})
	n.hold.Store(&gate)
	id := e.publish("n", "")
	e.startOn(db, e.dial, e.config(), e.effect("n"))
	testenv.Eventually(t, "the COMMIT", func() bool { return n.held.Load() == 1 })
	if got := e.consumerInfo(); got.NumAckPending != 1 || e.stored() != 1 {
		t.Errorf("before the commit: %d pending, %d stored, want 1 and 1", got.NumAckPending, e.stored())
	}
	close(gate)
	e.eventuallySettled()
	e.wantCount(1, "inbox rows", `SELECT count(*) FROM jetbox.inbox WHERE message_id = $1`, id)
}

func TestWorker_DoesNotBlameMessagesForAnOutage(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	n, db := newNetwork(t, e.db)
	cfg := e.config()
	cfg.MaxAttempts, cfg.AckWait = 2, 300*time.Millisecond
	for range 10 {
		e.publish("n", "good")
	}
	e.publish("n", "cut")
	e.startOn(db, e.dial, cfg, inbox.HandleTx(e.subject("n"), func(ctx context.Context, tx pgx.Tx, m inbox.Message[[]byte]) (none, error) {
		if string(m.Payload) == "cut" && n.cuts.Add(1) == 1 {
			n.cut() // while it runs
		}
		_, err := tx.Exec(ctx, effectSQL, m.ID, string(m.Payload))
		return none{}, err
	}))
	testenv.Eventually(t, "more deliveries than there are attempts", func() bool {
		c, err := e.js.Consumer(t.Context(), e.stream, "w")
		return err == nil && c.CachedInfo().Delivered.Consumer > 11*4
	})
	n.down.Store(false)
	e.eventuallySettled()
	e.wantEffects(11)
	e.wantNoTrace()
}

// A failover leaves the worker with a server that answers and writes nothing, for
// longer than a message has attempts. Its connections to that server then last:
// only new ones lead to the primary.
func TestWorker_WaitsWhileTheDatabaseIsReadOnly(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	n, db := newNetwork(t, e.db)
	cfg := e.config()
	cfg.MaxAttempts, cfg.AckWait = 2, 300*time.Millisecond
	cfg.Concurrency = 1 // or a lane that finds all connections in use makes a new one
	e.startOn(db, e.dial, cfg, e.effect("n"))
	e.publish("n", "")
	e.eventuallySettled()
	e.setReadOnly(n, true)
	for range 3 {
		e.publish("n", "")
	}
	testenv.Eventually(t, "more deliveries than there are attempts", func() bool {
		return e.consumerInfo().Delivered.Consumer > 1+3*4
	})
	e.setReadOnly(n, false)
	e.eventuallySettled()
	e.wantEffects(4)
	e.wantNoTrace()
}

// setReadOnly decides what transactions of new connections may do, and takes from
// the worker those that may write.
func (e *env) setReadOnly(n *network, on bool) {
	e.t.Helper()
	err := pgx.BeginTxFunc(context.Background(), e.db, pgx.TxOptions{AccessMode: pgx.ReadWrite}, func(tx pgx.Tx) error {
		_, err := tx.Exec(context.Background(), fmt.Sprintf(`ALTER DATABASE %s SET default_transaction_read_only = %t`,
			e.db.Config().ConnConfig.Database, on))
		return err
	})
	if err != nil {
		e.t.Fatal(err)
	}
	if on {
		n.cut()
		n.down.Store(false)
	}
}

func TestWorker_BlamesAMessageThatBreaksEveryConnection(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	bad := e.publishAround()
	cfg := e.config()
	cfg.MaxAttempts, cfg.Concurrency = 2, 1
	e.start(cfg, failing(e, func(ctx context.Context, tx pgx.Tx, _ inbox.Message[[]byte]) error {
		_, err := tx.Exec(ctx, `SELECT pg_terminate_backend(pg_backend_pid())`)
		return err
	}))
	e.eventuallySettled()
	e.wantEffects(20)
	contains(t, "reason", e.letter(bad).Reason, "attempt 2 of 2", "3 times running", "57P01")
}

// An error that passes may come more often than a broken connection is forgiven.
func TestWorker_RetriesWhatPostgresSaysWillPassAtNoCost(t *testing.T) {
	t.Parallel()
	for what, code := range map[string]string{
		"deadlock": "40P01", "serialization failure": "40001", "read-only": "25006", "disk full": "53100",
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			bad := e.publishAround()
			var runs atomic.Int32
			cfg := e.config()
			cfg.MaxAttempts = 1
			e.start(cfg, failing(e, func(ctx context.Context, tx pgx.Tx, _ inbox.Message[[]byte]) error {
				if runs.Add(1) > 6 {
					return nil
				}
				_, err := tx.Exec(ctx, fmt.Sprintf(`DO $$ BEGIN RAISE SQLSTATE '%s'; END $$`, code))
				return err
			}))
			e.eventuallySettled()
			e.wantEffects(21)
			e.wantNoTrace()
			e.wantCount(1, "effects of the message", `SELECT count(*) FROM effect WHERE message_id = $1`, bad)
		})
	}
}

// It may be that a function cannot reach another server for this message.
func TestWorker_BlamesAMessageForWhatOnlyItMeetsEachTime(t *testing.T) {
	t.Parallel()
	for what, code := range map[string]string{"no connection to another server": "08001", "too many locks": "53200"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			bad := e.publishAround()
			cfg := e.config()
			cfg.MaxAttempts = 2
			e.start(cfg, failing(e, func(ctx context.Context, tx pgx.Tx, _ inbox.Message[[]byte]) error {
				_, err := tx.Exec(ctx, fmt.Sprintf(`DO $$ BEGIN RAISE SQLSTATE '%s'; END $$`, code))
				return err
			}))
			e.eventuallySettled()
			e.wantEffects(20)
			contains(t, "reason", e.letter(bad).Reason, "attempt 2 of 2", "3 times running", code)
		})
	}
}

// crasher is the process that TestWorker_BuriesAMessageThatKillsItsProcess
// starts: a worker with a handler that ends it.
func crasher() error {
	ctx := context.Background()
	db, err := pgxpool.New(ctx, os.Getenv("CRASHER_DATABASE"))
	if err != nil {
		return err
	}
	w, err := inbox.NewWorker(db, func() (*nats.Conn, error) { return nats.Connect(os.Getenv("CRASHER_NATS")) },
		inbox.WorkerConfig{Stream: os.Getenv("CRASHER_STREAM"), Consumer: "w", MaxAttempts: 3, AckWait: 500 * time.Millisecond},
		inbox.HandleTx(os.Getenv("CRASHER_SUBJECT"), func(ctx context.Context, tx pgx.Tx, m inbox.Message[[]byte]) (none, error) {
			if string(m.Payload) == "bad" {
				os.Exit(crashed)
			}
			_, err := tx.Exec(ctx, effectSQL, m.ID, "")
			return none{}, err
		}))
	if err != nil {
		return err
	}
	return w.Run(ctx)
}

const crashed = 66 // its exit code

// crash runs a crasher until it dies or all is settled, and reports which.
func (e *env) crash() (died bool) {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), "CRASHER_DATABASE="+configURL(e.db.Config().ConnConfig), "CRASHER_NATS="+e.url,
		"CRASHER_STREAM="+e.stream, "CRASHER_SUBJECT="+e.subject("n"))
	if err := cmd.Start(); err != nil {
		e.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	testenv.Eventually(e.t, "the end of the worker or of its work", func() bool { return len(ended) == 1 || e.stored() == 0 })
	cancel()
	exit, _ := errors.AsType[*exec.ExitError](<-ended)
	return exit != nil && exit.ExitCode() == crashed
}

func TestWorker_BuriesAMessageThatKillsItsProcess(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	bad := e.publishAround()
	crashes := 0
	for e.crash() {
		crashes++
	}
	if crashes != 4 { // its first delivery leaves no mark
		t.Errorf("the message killed %d workers, want 4", crashes)
	}
	e.wantEffects(20)
	l := e.letter(bad)
	contains(t, "reason", l.Reason, "3 attempts failed")
	for _, a := range l.Errors {
		contains(t, "error", a.Error, "the worker died")
	}
	e.wantCount(1, "dead letters", `SELECT count(*) FROM jetbox.dead_letter`)
}

func TestWorker_RunsOneSuspectAtATime(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	for range 6 {
		e.exec(`INSERT INTO jetbox.failed_attempt (message_id, consumer, attempt, error)
			VALUES ($1, 'w', 1, 'the worker died, or lost Postgres, during this attempt')`, e.publish("call", ""))
	}
	var inside, most, second atomic.Int32
	e.start(e.config(), inbox.Handle(e.subject("call"), func(_ context.Context, m inbox.Message[[]byte]) (none, error) {
		defer inside.Add(-1)
		if n := inside.Add(1); n > most.Load() {
			most.Store(n)
		}
		if m.Attempt == 2 {
			second.Add(1)
		}
		<-time.After(20 * time.Millisecond)
		return none{}, nil
	}))
	e.eventuallySettled()
	if most.Load() != 1 || second.Load() != 6 {
		t.Errorf("%d suspects at once and %d second attempts, want 1 and 6", most.Load(), second.Load())
	}
	e.wantNoTrace()
}
