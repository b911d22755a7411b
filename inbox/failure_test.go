package inbox_test

import (
	"context"
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

func TestWorker_IsolatesTheMessageThatFails(t *testing.T) {
	t.Parallel()
	type attempt = func(ctx context.Context, tx pgx.Tx, m inbox.Message[[]byte]) error
	cases := map[string]struct {
		do       attempt
		attempts int
		reason   []string
	}{
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
	for name, c := range cases {
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

func TestWorker_BuriesWhatItCannotHandle(t *testing.T) {
	t.Parallel()
	old := uuid.MustParse("01000000-0000-7000-8000-000000000001")
	future := uuid.MustParse("7fffffff-0000-7000-8000-000000000001")
	deep := strings.Repeat("[", 9000) + strings.Repeat("]", 9000)
	type strict struct{ N int }
	cases := map[string]struct {
		msg    func(e *env, id uuid.UUID) *nats.Msg
		reason []string
		column string // of the letter that has the payload
	}{
		"subject without handler": {
			func(e *env, id uuid.UUID) *nats.Msg { return wireMsg(e.subject("other"), id, `{}`) },
			[]string{"no handler for subject"},
			"payload",
		},
		"not JSON": {
			func(e *env, id uuid.UUID) *nats.Msg { return wireMsg(e.subject("n"), id, `{"secret`) },
			[]string{"not JSON", "byte 8"},
			"payload_bytes",
		},
		"empty": {
			func(e *env, id uuid.UUID) *nats.Msg { return wireMsg(e.subject("n"), id, ``) },
			[]string{"not JSON"},
			"payload_bytes",
		},
		"JSON of another shape": {
			func(e *env, id uuid.UUID) *nats.Msg { return wireMsg(e.subject("n"), id, `{"n":"secret"}`) },
			[]string{`field "N"`, "int"},
			"payload",
		},
		"a number too large": {
			func(e *env, id uuid.UUID) *nats.Msg { return wireMsg(e.subject("n"), id, `{"n":31337313373133731337}`) },
			[]string{`field "N"`, "int"},
			"payload",
		},
		"JSON too deep for Postgres": {
			func(e *env, id uuid.UUID) *nats.Msg { return wireMsg(e.subject("n"), id, deep) },
			[]string{"does not fit"},
			"payload_bytes",
		},
		"NUL and broken UTF-8 everywhere": {func(e *env, id uuid.UUID) *nats.Msg {
			m := wireMsg(e.subject("other\xff"), id, "\x00\xff")
			m.Header.Set("X-Note", "a\x00b\xff")
			m.Header.Set("Content-Type", "\xff")
			return m
		}, []string{"no handler"}, "payload_bytes"},
		"too old": {
			func(e *env, _ uuid.UUID) *nats.Msg { return wireMsg(e.subject("n"), old, `{}`) },
			[]string{"too old or too new"},
			"payload",
		},
		"too new": {
			func(e *env, _ uuid.UUID) *nats.Msg { return wireMsg(e.subject("n"), future, `{}`) },
			[]string{"too old or too new"},
			"payload",
		},
		"no ID": {
			func(e *env, _ uuid.UUID) *nats.Msg { return &nats.Msg{Subject: e.subject("n"), Data: []byte(`{}`)} },
			[]string{"no Nats-Msg-Id header"},
			"payload",
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			e.publishRaw(c.msg(e, uuid.Must(uuid.NewV7())))
			var runs atomic.Int32
			cfg := e.config()
			cfg.FilterSubjects = []string{e.subject(">")}
			e.start(cfg, inbox.HandleTx(e.subject("n"), func(context.Context, pgx.Tx, inbox.Message[strict]) (none, error) {
				runs.Add(1)
				return none{}, nil
			}))
			e.eventuallySettled()
			if runs.Load() != 0 {
				t.Error("the handler ran")
			}
			reason := query[string](e, `SELECT reason FROM jetbox.dead_letter`)
			contains(t, "reason", reason, c.reason...)
			if strings.Contains(reason, "secret") || strings.Contains(reason, "31337") {
				t.Errorf("reason quotes the payload: %s", reason)
			}
			e.wantCount(1, "letters with "+c.column, `SELECT count(*) FROM jetbox.dead_letter WHERE `+c.column+` IS NOT NULL`)
		})
	}
}

func TestWorker_DoesNotRunADeadMessageAgain(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	id := e.publish("n", "bad")
	var runs atomic.Int32
	e.start(e.config(), failing(e, func(context.Context, pgx.Tx, inbox.Message[[]byte]) error {
		runs.Add(1)
		return inbox.Permanent(errTest)
	}))
	e.eventuallySettled()
	e.publish("n", "bad", replayed(id, 1))
	e.eventuallySettled()
	if runs.Load() != 1 {
		t.Errorf("handler ran %d times, want 1", runs.Load())
	}
	// An operator who deletes the letter may have it run again.
	e.exec(`DELETE FROM jetbox.dead_letter`)
	e.publish("n", "good", replayed(id, 2))
	e.eventuallySettled()
	e.wantEffects(1)
}

// explosive panics when it is decoded.
type explosive struct{}

func (*explosive) UnmarshalJSON([]byte) error { panic("boom") }

func TestWorker_SurvivesAPayloadThatPanics(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	id := e.publish("p", `{}`)
	e.publish("n", "")
	e.start(e.config(), e.effect("n"), inbox.HandleTx(e.subject("p"),
		func(context.Context, pgx.Tx, inbox.Message[explosive]) (none, error) { return none{}, nil }))
	e.eventuallySettled()
	contains(t, "reason", e.letter(id).Reason, "panicked: boom")
	e.wantEffects(1)
}

// A redrive takes the letter away and sends the message again, under its own ID.
func TestWorker_BuriesARedrivenMessageAgain(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	cfg := e.config()
	cfg.MaxAttempts = 2
	id := e.publish("n", "bad")
	e.start(cfg, failing(e, func(context.Context, pgx.Tx, inbox.Message[[]byte]) error { return errTest }))
	for redrive := range 2 {
		e.eventuallySettled()
		if l := e.letter(id); l.Attempts != 2 || len(l.Errors) != 2 {
			t.Errorf("after redrive %d: %d attempts with %d errors, want 2", redrive, l.Attempts, len(l.Errors))
		}
		e.exec(`DELETE FROM jetbox.dead_letter WHERE message_id = $1`, id)
		e.publish("n", "bad", replayed(id, redrive+1))
	}
	e.eventuallySettled()
	e.wantCount(0, "effects", `SELECT count(*) FROM effect`)
}

func TestWorker_RefusesAResultThatIsTooLarge(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	id := e.publish("n", "")
	e.start(e.config(), inbox.HandleTx(e.subject("n"), func(context.Context, pgx.Tx, inbox.Message[[]byte]) (string, error) {
		return strings.Repeat("x", 1_000_000), nil
	}))
	e.eventuallySettled()
	contains(t, "reason", e.letter(id).Reason, "result of 1000002 bytes is larger than 900000")
}

func TestWorker_CountsWhatEachAttemptSaid(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	id := e.publish("n", "")
	cfg := e.config()
	cfg.MaxAttempts = 3
	e.start(cfg, inbox.HandleTx(e.subject("n"), func(_ context.Context, _ pgx.Tx, m inbox.Message[[]byte]) (none, error) {
		return none{}, fmt.Errorf("attempt %d went wrong", m.Attempt)
	}))
	e.eventuallySettled()
	for i, a := range e.letter(id).Errors {
		if want := fmt.Sprintf("attempt %d went wrong", i+1); a.Error != want {
			t.Errorf("error %d = %q, want %q", i, a.Error, want)
		}
	}
	s, err := e.status()
	if err != nil || len(s.Consumers) != 1 || s.Consumers[0] != (inbox.ConsumerStatus{Consumer: "w", Dead: 1}) {
		t.Errorf("status = %+v, %v", s, err)
	}
}

func (e *env) status() (inbox.Status, error) {
	conn, err := e.db.Acquire(context.Background())
	if err != nil {
		return inbox.Status{}, err
	}
	defer conn.Release()
	return inbox.ReadStatus(context.Background(), conn.Conn())
}
