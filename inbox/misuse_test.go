package inbox_test

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"

	"github.com/jetboxhq/jetbox/inbox"
	"github.com/jetboxhq/jetbox/integration/testenv"
	"github.com/jetboxhq/jetbox/internal/wire"
)

// A neighbour's failure undoes a run; the next one gets what the first has got.
func TestWorker_GivesEachRunAPayloadAndHeadersOfItsOwn(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	for _, payload := range []string{"abc", "abc", "abc", "abc", "bad"} {
		id := uuid.Must(uuid.NewV7())
		e.publishRaw(&nats.Msg{
			Subject: e.subject("n"), Data: []byte(payload),
			Header: wire.Encode(wire.Envelope{ID: id, Headers: nats.Header{"Seen": {"no"}}}),
		})
	}
	cfg := e.config()
	cfg.MaxAttempts = 1
	e.start(cfg, inbox.HandleTx(e.subject("n"), func(ctx context.Context, tx pgx.Tx, m inbox.Message[[]byte]) (any, error) {
		fails := string(m.Payload) == "bad"
		seen := m.Headers["Seen"][0]
		slices.Reverse(m.Payload)
		m.Headers["Seen"][0], m.Headers["More"] = "yes", nil
		if _, err := tx.Exec(ctx, effectSQL, m.ID, string(m.Payload)+" "+seen); err != nil || fails {
			return nil, errors.Join(errTest, err)
		}
		return nil, nil
	}))
	e.eventuallySettled()
	e.wantCount(4, "effects of the payload as it came", `SELECT count(*) FROM effect WHERE note = 'cba no'`)
	e.wantCount(4, "effects", `SELECT count(*) FROM effect`)
	e.wantCount(1, "letters with the payload as it came", `SELECT count(*) FROM jetbox.dead_letter
		WHERE payload_bytes = 'bad' AND headers::text = '{"Seen":"no"}'`)
}

// sly is an error that panics when it is read.
type sly struct{ text *string }

func (s *sly) Error() string { return *s.text }

func TestWorker_SurvivesErrorsThatSayNothing(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		err    error
		reason string
	}{
		"permanent":      {inbox.Permanent(nil), "gave no reason"},
		"retry":          {inbox.RetryAfter(0, nil), "gave no reason"},
		"a panic within": {&sly{}, "panicked"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			cfg := e.config()
			cfg.MaxAttempts = 2
			e.start(cfg, inbox.HandleTx(e.subject("n"), func(context.Context, pgx.Tx, inbox.Message[[]byte]) (any, error) {
				return nil, c.err
			}))
			id := e.publish("n", "")
			e.eventuallySettled()
			contains(t, "reason", e.letter(id).Reason, c.reason)
		})
	}
}

func TestNewWorker_RefusesWhatWouldBreakLater(t *testing.T) {
	t.Parallel()
	db := testenv.Database(t)
	dial := func() (*nats.Conn, error) { return nil, errTest }
	handler := func(subject string, timeout time.Duration) inbox.Handler {
		return inbox.Handle(subject, func(context.Context, inbox.Message[int]) (int, error) { return 0, nil }).Limit(inbox.Limits{Timeout: timeout})
	}
	for want, c := range map[string]struct {
		cfg     inbox.WorkerConfig
		handler inbox.Handler
	}{
		"AckWait 2ns":              {inbox.WorkerConfig{AckWait: 2}, handler("a", 0)},
		"HandlerTimeout 2562047h":  {inbox.WorkerConfig{HandlerTimeout: math.MaxInt64}, handler("a", 0)},
		"Timeout 2562047h":         {inbox.WorkerConfig{}, handler("a", math.MaxInt64)},
		`handler for "jobs email"`: {inbox.WorkerConfig{}, handler("jobs email", 0)},
		`handler for "jobs..x"`:    {inbox.WorkerConfig{}, handler("jobs..x", 0)},
		`handler for "jobs.>.x"`:   {inbox.WorkerConfig{}, handler("jobs.>.x", 0)},
		`handler for "jobs."`:      {inbox.WorkerConfig{}, handler("jobs.", 0)},
		`handler for "a\r\nb"`:     {inbox.WorkerConfig{}, handler("a\r\nb", 0)},
		`handler for ""`:           {inbox.WorkerConfig{}, handler("", 0)},
		`subject "jobs.> x": want`: {inbox.WorkerConfig{FilterSubjects: []string{"jobs.> x"}}, handler("a", 0)},
	} {
		if _, err := inbox.NewWorker(db, dial, c.cfg, c.handler); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("NewWorker = %v, want %s", err, want)
		}
	}
}

func TestCancel_NeedsAConsumerAndTakesOneTwice(t *testing.T) {
	t.Parallel()
	db := testenv.Database(t)
	err := pgx.BeginFunc(t.Context(), db, func(tx pgx.Tx) error {
		if err := inbox.Cancel(t.Context(), tx, uuid.Must(uuid.NewV7()), "jobs.a"); err == nil {
			t.Error("cancelled for nobody")
		}
		return inbox.Cancel(t.Context(), tx, uuid.Must(uuid.NewV7()), "jobs.a", "w", "w")
	})
	if err != nil {
		t.Errorf("Cancel for a consumer that is named twice = %v", err)
	}
}
