package inbox_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"

	"github.com/jetboxhq/jetbox/inbox"
	"github.com/jetboxhq/jetbox/integration/testenv"
	"github.com/jetboxhq/jetbox/internal/wire"
)

func wireMsg(subject string, id uuid.UUID, payload string) *nats.Msg {
	return &nats.Msg{Subject: subject, Header: wire.Encode(wire.Envelope{ID: id}), Data: []byte(payload)}
}

// failing is a handler whose message "bad" ends by do, after it has written an
// effect that must not stay.
func failing(e *env, do func(ctx context.Context, tx pgx.Tx, m inbox.Message[[]byte]) error) inbox.Handler {
	return inbox.HandleTx(e.subject("n"), func(ctx context.Context, tx pgx.Tx, m inbox.Message[[]byte]) (any, error) {
		if _, err := tx.Exec(ctx, effectSQL, m.ID, string(m.Payload)); err != nil {
			return nil, err
		}
		if string(m.Payload) == "bad" {
			return nil, do(ctx, tx, m)
		}
		return nil, nil
	})
}

// publishAround stores good messages around a bad one and returns its ID.
func (e *env) publishAround() (bad uuid.UUID) {
	for range 10 {
		e.publish("n", "good")
	}
	bad = e.publish("n", "bad")
	for range 10 {
		e.publish("n", "good")
	}
	return bad
}

// wayToFail is what a handler does to a message, and what its letter then says.
type wayToFail struct {
	do       func(ctx context.Context, tx pgx.Tx, m inbox.Message[[]byte]) error
	attempts int
	reason   []string
}

var waysToFail = map[string]wayToFail{
	"permanent error": {
		func(context.Context, pgx.Tx, inbox.Message[[]byte]) error { return inbox.Permanent(errTest) },
		1,
		[]string{errTest.Error()},
	},
	"any other error": {
		func(context.Context, pgx.Tx, inbox.Message[[]byte]) error { return errTest },
		3,
		[]string{"attempt 3 of 3 failed", errTest.Error()},
	},
	"retry after": {
		func(context.Context, pgx.Tx, inbox.Message[[]byte]) error {
			return inbox.RetryAfter(time.Millisecond, errTest)
		},
		3,
		[]string{"attempt 3 of 3 failed", errTest.Error()},
	},
	"panic": {
		func(context.Context, pgx.Tx, inbox.Message[[]byte]) error { panic("boom") },
		3,
		[]string{"handler panicked: boom"},
	},
	"goexit": {
		func(context.Context, pgx.Tx, inbox.Message[[]byte]) error { runtime.Goexit(); return nil },
		3,
		[]string{"runtime.Goexit"},
	},
	"swallowed SQL error": {func(ctx context.Context, tx pgx.Tx, _ inbox.Message[[]byte]) error {
		_, _ = tx.Exec(ctx, `SELECT 1/0`)
		return nil
	}, 3, []string{"success from a transaction that had failed"}},
	"commit": {
		func(ctx context.Context, tx pgx.Tx, _ inbox.Message[[]byte]) error { return tx.Commit(ctx) },
		3,
		[]string{"belongs to the worker"},
	},
	"deferred constraint": {func(ctx context.Context, tx pgx.Tx, m inbox.Message[[]byte]) error {
		_, err := tx.Exec(ctx, `INSERT INTO strict VALUES (1), (1)`)
		return err
	}, 3, []string{"commit", "23505"}},
}

func TestWorker_IsolatesTheMessageThatFails(t *testing.T) {
	t.Parallel()
	for name, c := range waysToFail {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			e.exec(`CREATE TABLE strict (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)`)
			bad := e.publishAround()
			cfg := e.config()
			cfg.MaxAttempts, cfg.Concurrency = 3, 1
			e.start(cfg, failing(e, c.do))
			e.eventuallySettled()
			e.wantEffects(20)
			e.wantCount(0, "failed attempts", `SELECT count(*) FROM jetbox.failed_attempt`)
			l := e.letter(bad)
			contains(t, "reason", l.Reason, c.reason...)
			if l.Attempts != c.attempts || len(l.Errors) != c.attempts {
				t.Errorf("attempts = %d with %d errors, want %d", l.Attempts, len(l.Errors), c.attempts)
			}
			for i, a := range l.Errors {
				if a.Attempt != i+1 || a.Error == "" {
					t.Errorf("error %d = %+v", i, a)
				}
			}
		})
	}
}

func TestWorker_KeepsTheStackOfAPanic(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	id := e.publish("n", "")
	cfg := e.config()
	cfg.MaxAttempts = 1
	e.start(cfg, inbox.Handle(e.subject("n"), func(context.Context, inbox.Message[[]byte]) (none, error) {
		panic("boom")
	}))
	e.eventuallySettled()
	contains(t, "error", e.letter(id).Errors[0].Error, "boom", "failure_test.go")
	if strings.Contains(e.letter(id).Reason, "\n") {
		t.Errorf("reason has the stack: %s", e.letter(id).Reason)
	}
}

func TestWorker_GivesUpOnAHandlerThatEndsTheTransaction(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	id := e.publish("n", "bad")
	e.start(e.config(), failing(e, func(ctx context.Context, tx pgx.Tx, _ inbox.Message[[]byte]) error {
		_, err := tx.Exec(ctx, `COMMIT`)
		return err
	}))
	e.eventuallySettled()
	contains(t, "reason", e.letter(id).Reason, "ended the worker's transaction itself")
}

func TestHandleTx_AllowsSavepoints(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.publish("n", "bad")
	e.start(e.config(), failing(e, func(ctx context.Context, tx pgx.Tx, _ inbox.Message[[]byte]) error {
		inner := pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, `SELECT 1/0`)
			return err
		})
		if inner == nil {
			return inbox.Permanent(fmt.Errorf("division by zero passed"))
		}
		return nil
	}))
	e.eventuallySettled()
	e.wantEffects(1)
	e.wantNoTrace()
}

func TestWorker_NamesTheTimerThatEndedAHandler(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	id := e.publish("n", "bad")
	cfg := e.config()
	cfg.HandlerTimeout, cfg.MaxAttempts = 50*time.Millisecond, 2
	e.start(cfg, failing(e, func(ctx context.Context, tx pgx.Tx, _ inbox.Message[[]byte]) error {
		_, err := tx.Exec(ctx, `SELECT pg_sleep(10)`)
		return err
	}))
	e.eventuallySettled()
	contains(t, "reason", e.letter(id).Reason, "attempt 2 of 2", "handler timeout after 50ms")
	e.wantCount(0, "effects", `SELECT count(*) FROM effect`)
}

// Each look costs the handler's whole time, and everyone in the batch waits.
func TestWorker_FindsASlowMessageOfASetInFewSteps(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	for i := range 256 {
		e.publish("n", map[bool]string{true: "slow", false: "quick"}[i == 100])
	}
	cfg := e.config()
	cfg.HandlerTimeout, cfg.MaxAttempts, cfg.Concurrency = time.Second, 1, 1
	var waits atomic.Int32
	e.start(cfg, inbox.HandleBatch(e.subject("n"), func(ctx context.Context, tx pgx.Tx, msgs []inbox.Message[[]byte]) ([]any, error) {
		for _, m := range msgs {
			if string(m.Payload) == "slow" {
				waits.Add(1)
				_, err := tx.Exec(ctx, `SELECT pg_sleep(10)`)
				return nil, err
			}
		}
		ids := make([]uuid.UUID, len(msgs))
		for i, m := range msgs {
			ids[i] = m.ID
		}
		_, err := tx.Exec(ctx, `INSERT INTO effect (message_id) SELECT unnest($1::uuid[])`, ids)
		return make([]any, len(msgs)), err
	}))
	e.eventuallySettled()
	e.wantEffects(255)
	if n := waits.Load(); n > 4 { // 256, 32, 4, 1
		t.Errorf("the slow message was waited for %d times, want at most 4", n)
	}
}

func TestWorker_LeavesAHandlerThatIgnoresItsContext(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	id := e.publish("n", "bad")
	for range 3 {
		e.publish("n", "good")
	}
	cfg := e.config()
	cfg.HandlerTimeout, cfg.MaxAttempts, cfg.Concurrency = 200*time.Millisecond, 2, 1
	release := make(chan struct{})
	zombies := make(chan error, 10)
	var good, bad atomic.Int32
	stop := e.start(cfg, inbox.HandleTx(e.subject("n"), func(ctx context.Context, tx pgx.Tx, m inbox.Message[[]byte]) (none, error) {
		if string(m.Payload) == "bad" {
			bad.Add(1)
			<-release
			_, err := tx.Exec(context.Background(), effectSQL, m.ID, "zombie")
			zombies <- err
			return none{}, nil
		}
		good.Add(1)
		_, err := tx.Exec(ctx, effectSQL, m.ID, "")
		return none{}, err
	}))
	e.eventuallySettled()
	contains(t, "reason", e.letter(id).Reason, "attempt 2 of 2", "ignored its context")
	stop()
	close(release)
	for range bad.Load() {
		if err := <-zombies; err == nil {
			t.Error("a handler that was abandoned could still write")
		}
	}
	e.wantEffects(3)
	if good.Load() != 3 {
		t.Errorf("the others ran %d times, want 3: one left behind has gone on", good.Load())
	}
}

// A stream that lost everything gets its messages again, all as first deliveries.
func TestWorker_TellsACopyThatWasPublishedAgainItsAttempt(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	cfg := e.config()
	cfg.RetryDelay, cfg.MaxAttempts = time.Hour, 2
	attempts := make(chan int, 10)
	e.start(cfg, inbox.HandleTx(e.subject("n"), func(_ context.Context, _ pgx.Tx, m inbox.Message[[]byte]) (none, error) {
		attempts <- m.Attempt
		if m.Attempt == 1 {
			return none{}, errors.New("not yet")
		}
		return none{}, nil
	}))
	id := e.publish("n", "")
	testenv.Eventually(t, "the failure", func() bool { return query[int](e, `SELECT count(*) FROM jetbox.failed_attempt`) == 1 })
	e.publish("n", "", replayed(id, 1))
	testenv.Eventually(t, "the copy's effect", func() bool { return query[int](e, `SELECT count(*) FROM jetbox.inbox`) == 1 })
	e.wantNoTrace()
	if first, second := <-attempts, <-attempts; first != 1 || second != 2 || len(attempts) > 0 {
		t.Errorf("attempts %d and %d, %d more, want 1 and 2", first, second, len(attempts))
	}
}
