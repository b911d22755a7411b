package inbox_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"

	"github.com/jetboxhq/jetbox/inbox"
	"github.com/jetboxhq/jetbox/internal/wire"
)

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

// Other publishers need not write UTF-8, and Postgres refuses a set for one such
// text without saying whose it is.
func TestWorker_BuriesWhatIsNotTextAndBlamesNoNeighbour(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		change  func(*nats.Msg)
		handler func(*env) inbox.Handler
		reason  string
	}{
		"key in Latin-1":           {func(m *nats.Msg) { m.Header.Set(wire.Key, "Z\xfcrich") }, logged, "header Jetbox-Key is not text"},
		"key with NUL":             {func(m *nats.Msg) { m.Header.Set(wire.Key, "a\x00b") }, logged, "header Jetbox-Key is not text"},
		"content type in Latin-1":  {func(m *nats.Msg) { m.Header.Set(wire.ContentType, "text/\xfc") }, logged, "header Content-Type is not text"},
		"subject in Latin-1":       {func(m *nats.Msg) { m.Subject += "\xfc" }, logged, "subject is not text"},
		"subject for a Go handler": {func(m *nats.Msg) { m.Subject += "\xfc" }, func(e *env) inbox.Handler { return e.effect(">") }, "subject is not text"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			e.exec(keepAttemptsSQL)
			bad := uuid.Must(uuid.NewV7())
			for i := range 21 {
				m := wireMsg(e.subject("n"), uuid.Must(uuid.NewV7()), "{}")
				if i == 10 {
					m = wireMsg(e.subject("n"), bad, "{}")
					c.change(m)
				}
				e.publishRaw(m)
			}
			e.start(e.config(), c.handler(e))
			e.eventuallySettled()
			e.wantEffects(20)
			e.wantCount(0, "attempts that failed", `SELECT count(*) FROM attempt_log`)
			e.wantCount(1, "dead letters", `SELECT count(*) FROM jetbox.dead_letter`)
			contains(t, "reason", e.letter(bad).Reason, c.reason)
		})
	}
}

// logged is a function in the database whose only effect is one row.
func logged(e *env) inbox.Handler {
	e.exec(`CREATE FUNCTION public.handle(m jetbox.message) RETURNS void LANGUAGE sql AS
		$$ INSERT INTO effect (message_id) VALUES (m.message_id) $$`)
	return inbox.SQLFunction(e.subject(">"), "public.handle")
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
