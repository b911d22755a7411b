package inbox_test

import (
	"context"
	"encoding/json"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/jetboxhq/jetbox/inbox"
	"github.com/jetboxhq/jetbox/integration/testenv"
)

func TestWorker_CommitsEffectsResultAndIDTogether(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	type mail struct{ To string }
	id := e.publish("email", `{"to":"ada@example.com"}`)
	e.start(e.config(), inbox.HandleTx(e.subject("email"), func(ctx context.Context, tx pgx.Tx, m inbox.Message[mail]) (map[string]string, error) {
		_, err := tx.Exec(ctx, effectSQL, m.ID, m.Payload.To)
		return map[string]string{"sent": m.Payload.To}, err
	}))
	e.eventuallySettled()
	e.wantEffects(1)
	e.wantNoTrace()
	if got, want := query[string](e, `SELECT result FROM jetbox.inbox WHERE message_id = $1 AND consumer = 'w'`, id), `{"sent":"ada@example.com"}`; got != want {
		t.Errorf("result = %s, want %s", got, want)
	}
	if !query[bool](e, `SELECT e.xmin = i.xmin FROM effect e, jetbox.inbox i`) {
		t.Error("effect and ID were written by different transactions")
	}
}

func TestWorker_BatchesWhatHasArrived(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	for i := range 200 {
		e.publish("n", fmt.Sprint(i))
	}
	cfg := e.config()
	cfg.Concurrency = 1
	e.start(cfg, e.effect("n"))
	e.eventuallySettled()
	e.wantEffects(200)
	if n := query[int](e, `SELECT count(DISTINCT xmin::text) FROM effect`); n > 100 {
		t.Errorf("200 waiting messages took %d transactions", n)
	}
}

func TestWorker_ProcessesOnceWhateverTheBrokerRepeats(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	foreign := uuid.New() // not a UUIDv7: its day is unknown
	ids := []uuid.UUID{foreign, e.publish("n", "")}
	e.publish("n", "", withID(foreign))
	for _, id := range ids { // in the same batch
		e.publish("n", "", replayed(id, 1))
	}
	cfg := e.config()
	cfg.Concurrency = 1 // two lanes may each have a copy, of which one then waits for the other
	var runs atomic.Int32
	e.start(cfg, counting(e, "n", &runs))
	e.eventuallySettled()
	for _, id := range ids { // after the commit
		e.publish("n", "", replayed(id, 2))
	}
	e.eventuallySettled()
	e.wantEffects(2)
	e.wantNoTrace()
	if runs.Load() != 2 {
		t.Errorf("handler ran %d times, want 2", runs.Load())
	}
}

func TestWorker_WaitsForAConcurrentDuplicateThenSkips(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	id := e.publish("n", "")
	other, err := e.db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Exec(t.Context(), `INSERT INTO jetbox.inbox (message_id, consumer, day, subject)
		VALUES ($1, 'w', (now() AT TIME ZONE 'UTC')::date, 'n')`, id); err != nil {
		t.Fatal(err)
	}
	var runs atomic.Int32
	e.start(e.config(), counting(e, "n", &runs))
	testenv.Eventually(t, "a worker waiting for the other transaction", func() bool {
		return query[int](e, `SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'
			AND pid IN (SELECT pid FROM pg_stat_activity WHERE datname = current_database())`) > 0
	})
	if err := other.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	e.eventuallySettled()
	e.wantCount(0, "effects", `SELECT count(*) FROM effect`)
	e.wantNoTrace()
	if runs.Load() != 1 {
		t.Errorf("handler ran %d times, want 1: the run that was rolled back", runs.Load())
	}
}

// counting is effect that counts its runs.
func counting(e *env, name string, runs *atomic.Int32) inbox.Handler {
	return inbox.HandleTx(e.subject(name), func(ctx context.Context, tx pgx.Tx, m inbox.Message[[]byte]) (none, error) {
		runs.Add(1)
		_, err := tx.Exec(ctx, effectSQL, m.ID, string(m.Payload))
		return none{}, err
	})
}

func TestWorker_KeepsOrderPerKey(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	for i := range 400 {
		name := "a"
		if i%3 == 0 {
			name = "b"
		}
		e.publish(name, fmt.Sprint(i), withKey(fmt.Sprint(i%10)))
	}
	e.exec(`CREATE FUNCTION b(m jetbox.message) RETURNS void LANGUAGE sql AS
		$$ INSERT INTO effect (message_id, note) VALUES (m.message_id, m.payload::text) $$`)
	cfg := e.config()
	cfg.BatchSize = 50
	e.start(cfg, e.effect("a"), inbox.SQLFunction(e.subject("b"), "b"))
	e.eventuallySettled()
	e.wantEffects(400)
	e.wantCount(0, "inversions", `SELECT count(*) FROM effect x JOIN effect y
		ON x.note::int % 10 = y.note::int % 10 AND x.note::int < y.note::int AND x.n > y.n`)
}

func TestWorker_KeepsASlowMessageToItself(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.publish("slow", "")
	cfg := e.config()
	cfg.AckWait = time.Second
	var runs atomic.Int32
	slow := inbox.Handle(e.subject("slow"), func(ctx context.Context, _ inbox.Message[[]byte]) (none, error) {
		runs.Add(1)
		select {
		case <-time.After(2500 * time.Millisecond):
		case <-ctx.Done():
		}
		return none{}, ctx.Err()
	})
	e.start(cfg, slow)
	second := cfg
	second.Logger = testLogger(t)
	e.start(second, slow)
	e.eventuallySettled()
	if runs.Load() != 1 {
		t.Errorf("handler ran %d times, want 1: the broker took the message for abandoned", runs.Load())
	}
}

func TestHandleBatch_GetsManyMessagesInOneCall(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	for i := range 100 {
		e.publish("n", fmt.Sprint(i))
	}
	cfg := e.config()
	cfg.Concurrency = 1
	var calls atomic.Int32
	e.start(cfg, inbox.HandleBatch(e.subject("n"), func(ctx context.Context, tx pgx.Tx, ms []inbox.Message[int]) ([]int, error) {
		calls.Add(1)
		doubles := make([]int, len(ms))
		for i, m := range ms {
			doubles[i] = 2 * m.Payload
			if _, err := tx.Exec(ctx, effectSQL, m.ID, fmt.Sprint(m.Payload)); err != nil {
				return nil, err
			}
		}
		return doubles, nil
	}))
	e.eventuallySettled()
	e.wantEffects(100)
	if calls.Load() > 50 {
		t.Errorf("%d calls for 100 messages", calls.Load())
	}
	e.wantCount(0, "wrong results", `SELECT count(*) FROM effect e JOIN jetbox.inbox i USING (message_id)
		WHERE (i.result::text)::int <> 2 * e.note::int`)
}

func TestSQLFunction_RunsSetWiseWithEverythingTheMessageHas(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.exec(`CREATE FUNCTION public.handle(m jetbox.message) RETURNS json LANGUAGE plpgsql AS $$ BEGIN
		INSERT INTO effect (message_id, note) VALUES (m.message_id, m.payload->>'to');
		RETURN json_build_object('key', m.key, 'trace', m.headers->>'traceparent', 'attempt', m.attempt, 'subject', m.subject);
	END $$`)
	id := uuid.Must(uuid.NewV7())
	m := wireMsg(e.subject("f"), id, `{"to":"ada"}`)
	m.Header.Set("traceparent", "00-1")
	m.Header.Set("Jetbox-Key", "k")
	e.publishRaw(m)
	for range 50 {
		e.publish("f", `{"to":"bob"}`)
	}
	cfg := e.config()
	cfg.Concurrency = 1
	e.start(cfg, inbox.SQLFunction(e.subject("f"), "public.handle"))
	e.eventuallySettled()
	e.wantEffects(51)
	var got map[string]any
	if err := json.Unmarshal([]byte(query[string](e, `SELECT result FROM jetbox.inbox WHERE message_id = $1`, id)), &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"key": "k", "trace": "00-1", "attempt": 1.0, "subject": e.subject("f")}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("result = %v, want %v", got, want)
	}
	if n := query[int](e, `SELECT count(DISTINCT xmin::text) FROM effect`); n > 25 {
		t.Errorf("51 waiting messages took %d transactions", n)
	}
}

func TestSQLFunction_IsolatesTheMessageThatFails(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.exec(`CREATE FUNCTION handle(m jetbox.message) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
		IF m.payload::text = '13' THEN RAISE EXCEPTION 'unlucky'; END IF;
		INSERT INTO effect (message_id, note) VALUES (m.message_id, m.payload::text);
	END $$`)
	var bad uuid.UUID
	for i := range 30 {
		if id := e.publish("f", fmt.Sprint(i)); i == 13 {
			bad = id
		}
	}
	cfg := e.config()
	cfg.MaxAttempts = 2
	e.start(cfg, inbox.SQLFunction(e.subject("f"), "handle"))
	e.eventuallySettled()
	e.wantEffects(29)
	contains(t, "reason", e.letter(bad).Reason, "attempt 2 of 2", "unlucky")
}

func TestHandle_RunsOutsideTheTransactionWithAStableKey(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	keys := make(chan string, 10)
	var fails atomic.Int32
	id := e.publish("call", `{}`)
	e.start(e.config(), inbox.Handle(e.subject("call"), func(_ context.Context, m inbox.Message[json.RawMessage]) (string, error) {
		keys <- m.IdempotencyKey()
		if fails.Add(1) == 1 {
			return "", errTest
		}
		return "charged", nil
	}))
	e.eventuallySettled()
	first, second := <-keys, <-keys
	if want := "w/" + id.String(); first != want || second != want {
		t.Errorf("keys = %q, %q, want both %q", first, second, want)
	}
	if got := query[string](e, `SELECT result FROM jetbox.inbox`); got != `"charged"` {
		t.Errorf("result = %s", got)
	}
	e.publish("call", `{}`, replayed(id, 1))
	e.eventuallySettled()
	if len(keys) != 0 {
		t.Error("a message the inbox has was handed out again")
	}
	e.wantNoTrace()
}

func TestHandle_RunsManyAtOnce(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	const n = 8
	var inside atomic.Int32
	all := make(chan struct{})
	for range n {
		e.publish("call", "")
	}
	e.start(e.config(), inbox.Handle(e.subject("call"), func(ctx context.Context, _ inbox.Message[[]byte]) (none, error) {
		if inside.Add(1) == n {
			close(all)
		}
		select {
		case <-all:
			return none{}, nil
		case <-ctx.Done():
			return none{}, ctx.Err()
		}
	}))
	e.eventuallySettled()
	e.wantNoTrace()
}
