package outbox_test

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/jetboxhq/jetbox/integration/testenv"
	"github.com/jetboxhq/jetbox/outbox"
)

func TestEnqueue_IsPublishedIfAndOnlyIfItsTransactionCommits(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.relay()
	enqueue := func(body string, end error) {
		err := pgx.BeginFunc(t.Context(), l.db, func(tx pgx.Tx) error {
			if err := outbox.Enqueue(t.Context(), tx, outbox.Message{Subject: l.prefix + ".x", Payload: json.RawMessage(body)}); err != nil {
				t.Fatal(err)
			}
			return end
		})
		if !errors.Is(err, end) {
			t.Fatal(err)
		}
	}
	enqueue(`"a"`, nil)
	enqueue(`"rolled back"`, errors.New("changed my mind"))
	enqueue(`"b"`, nil)
	l.waitCaughtUp()
	if got, want := l.bodies(), []string{`"a"`, `"b"`}; !slices.Equal(got, want) {
		t.Errorf("stored %q, want %q", got, want)
	}
}

func TestEnqueue_NamesTheRuleThatAMessageBreaks(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	for rule, m := range map[string]outbox.Message{
		"subject_is_1_to_16_tokens_of_letters_digits_dash_underscore":     {Subject: "$JS.API.STREAM.DELETE.JOBS", Payload: 1},
		"headers_has_no_nats_jetbox_status_description_content_type_name": {Subject: "a", Payload: 1, Headers: map[string]string{"Nats-Rollup": "all"}},
		"key_is_1_to_200_bytes_without_control_or_outer_space":            {Subject: "a", Payload: 1, Key: strings.Repeat("k", 201)},
		"payload_bytes_is_at_most_900000_bytes":                           {Subject: "a", Bytes: make([]byte, 900_001)},
	} {
		err := pgx.BeginFunc(t.Context(), l.db, func(tx pgx.Tx) error { return outbox.Enqueue(t.Context(), tx, m) })
		if e, ok := errors.AsType[*pgconn.PgError](err); !ok || e.ConstraintName != rule {
			t.Errorf("Enqueue(%q) = %v, want a violation of %s", m.Subject, err, rule)
		}
	}
	err := pgx.BeginFunc(t.Context(), l.db, func(tx pgx.Tx) error {
		return outbox.Enqueue(t.Context(), tx, outbox.Message{Subject: "a"})
	})
	if !errors.Is(err, outbox.ErrPayload) {
		t.Errorf("Enqueue without a body = %v, want ErrPayload", err)
	}
}

func TestRelay_CarriesBodyAndHeadersVerbatim(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.relay()
	id, raw := uuid.New(), uuid.New()
	body := "{ \"b\":1,\n \"a\": 12345678901234567890 }"
	l.exec(`INSERT INTO jetbox.outbox (message_id, subject, key, headers, payload) VALUES ($1, $2, 'order-7', '{"traceparent":"00-x","Tenant":"ä"}', $3::text::json)`,
		id, l.prefix+".json", body)
	l.exec(`INSERT INTO jetbox.outbox (message_id, subject, payload_bytes) VALUES ($1, $2, '\x00ff')`, raw, l.prefix+".raw")
	l.waitCaughtUp()
	msgs := l.stored()
	if len(msgs) != 2 {
		t.Fatalf("stored %d messages, want 2", len(msgs))
	}
	if got := string(msgs[0].Data()); got != body {
		t.Errorf("body %q, want %q", got, body)
	}
	for name, want := range map[string]string{
		"Nats-Msg-Id": id.String(), "Jetbox-Key": "order-7", "traceparent": "00-x", "Tenant": "ä", "Content-Type": "",
	} {
		if got := msgs[0].Headers().Get(name); got != want {
			t.Errorf("header %s = %q, want %q", name, got, want)
		}
	}
	if got := string(msgs[1].Data()); got != "\x00\xff" {
		t.Errorf("bytes %q, want 00ff", got)
	}
	if got := msgs[1].Headers().Get("Content-Type"); got != "application/octet-stream" {
		t.Errorf("content type of bytes %q", got)
	}
}

func TestRelay_WalksABacklogOfOneTransactionInOrder(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	const n = 30_000 // several polls' worth: opens a window
	l.insert(0, n)
	l.relay()
	l.waitCaughtUp()
	if got := l.bodies(); !slices.Equal(got, numbers(0, n)) {
		t.Errorf("stored %d messages, not the %d in order", len(got), n)
	}
	if got := ask[int](l, `SELECT count(*) FROM jetbox.relay_batch WHERE prev_snap IS NOT NULL`); got == 0 {
		t.Error("no window was recorded: the test did not make a backlog")
	}
}

func TestRelay_ResumesABacklogWhereTheLedgerStands(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	const n = 60_000
	l.insert(0, n)
	stop := l.relay()
	testenv.Eventually(t, "part of the backlog", func() bool {
		return ask[int](l, `SELECT coalesce(sum(n), 0) FROM jetbox.relay_batch`) > 5_000
	})
	stop()
	part := ask[int](l, `SELECT sum(n) FROM jetbox.relay_batch`)
	if part >= n {
		t.Skipf("the relay was through before it could be stopped (%d)", part)
	}
	l.insert(n, 10)
	l.relay()
	l.waitCaughtUp()
	if got := l.bodies(); !slices.Equal(got, numbers(0, n+10)) {
		t.Errorf("stored %d messages, not the %d in order", len(got), n+10)
	}
	if again := ask[int](l, `SELECT sum(n) FROM jetbox.relay_batch`); again != n+10 {
		t.Errorf("the ledger counts %d messages, want %d: a drained stop must publish nothing twice", again, n+10)
	}
}

func TestRelay_SetsABadRowAsideAndCarriesOn(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.exec(`ALTER TABLE jetbox.outbox DISABLE TRIGGER check_message`) // as a careless owner would
	l.insert(0, 1)
	l.exec(`INSERT INTO jetbox.outbox (subject, payload) VALUES ('$JS.API.STREAM.DELETE.' || $1, '1')`, l.stream.Name)
	l.exec(`INSERT INTO jetbox.outbox (subject, payload, headers) VALUES ($1, '1', '{"Nats-Rollup":"all"}')`, l.prefix+".x")
	l.exec(`INSERT INTO jetbox.outbox (subject, payload) VALUES ('nobody.wants.this', '1')`)
	l.insert(1, 1)
	l.relay()
	l.waitCaughtUp()
	if got, want := l.bodies(), numbers(0, 2); !slices.Equal(got, want) {
		t.Errorf("stored %q, want %q", got, want)
	}
	if got := ask[string](l, `SELECT string_agg(reason, '; ' ORDER BY outbox_id) FROM jetbox.dead_letter WHERE consumer = '$relay'`); strings.Count(got, ";") != 2 ||
		!strings.Contains(got, "declare one in jetbox.yaml") || !strings.Contains(got, "reserved") {
		t.Errorf("reasons of the dead letters: %s", got)
	}
	if got := ask[int](l, `SELECT count(*) FROM jetbox.outbox_status WHERE state = 'dead'`); got != 3 {
		t.Errorf("outbox_status shows %d dead messages, want 3", got)
	}
}

func TestRelay_SetsAsideOnlyTheMessageThatTheStreamRefuses(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.stream.MaxMsgSize = 1000
	l.insert(0, 5)
	l.exec(`INSERT INTO jetbox.outbox (subject, payload) VALUES ($1, to_json(repeat('x', 2000)))`, l.prefix+".big")
	l.insert(5, 5)
	l.relay()
	l.waitCaughtUp()
	if got, want := l.bodies(), numbers(0, 10); !slices.Equal(got, want) {
		t.Errorf("stored %q, want %q", got, want)
	}
	if got := ask[int](l, `SELECT count(*) FROM jetbox.dead_letter`); got != 1 {
		t.Errorf("%d dead letters, want the 1 big message", got)
	}
}

func TestRelay_PublishesByThePlainRouteToAStreamWithoutBatches(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.stream.AllowAtomicPublish, l.stream.AllowBatchPublish = false, false
	l.insert(0, 2000)
	l.relay()
	l.waitCaughtUp()
	got := l.bodies()
	slices.Sort(got) // messages without a key have no order
	want := numbers(0, 2000)
	if slices.Sort(want); !slices.Equal(got, want) {
		t.Errorf("stored %d messages, want each of 2000 once", len(got))
	}
}

func TestRelay_WaitsWhileTheStreamIsFull(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.stream.MaxMsgs = 10
	l.insert(0, 10)
	reg := prometheus.NewRegistry()
	l.relay(func(c *outbox.RelayConfig) { c.Metrics = reg })
	l.waitCaughtUp()
	l.insert(10, 1)
	s, err := l.js.Stream(t.Context(), l.stream.Name)
	if err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "the lease to change hands on a refusal", func() bool {
		return ask[int](l, `SELECT epoch FROM jetbox.relay_lease`) > 2
	})
	if l.caughtUp() {
		t.Fatal("a message is called sent that a full stream refused")
	}
	testenv.Eventually(t, "the lag to be measured", func() bool { return gauge(t, reg, "outbox_pending_messages") == 1 })
	if err := s.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.waitCaughtUp()
	if got, want := l.bodies(), numbers(10, 1); !slices.Equal(got, want) {
		t.Errorf("stored %q, want %q", got, want)
	}
}

func TestRelay_SurvivesTheBrokersAbsence(t *testing.T) {
	t.Parallel()
	own := testenv.OwnNATS(t)
	l := newLabOn(t, own.URL())
	l.relay()
	l.insert(0, 3)
	l.waitCaughtUp()
	if err := own.Stop(); err != nil {
		t.Fatal(err)
	}
	l.insert(3, 3)
	if err := own.Start(); err != nil {
		t.Fatal(err)
	}
	l.waitCaughtUp()
	if got, want := l.bodies(), numbers(0, 6); !slices.Equal(got, want) {
		t.Errorf("stored %q, want %q", got, want)
	}
}

func TestRelay_SurvivesTerminatedBackends(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.relay()
	for i := range 20 {
		l.insert(i*10, 10)
		l.exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE datname = current_database() AND application_name LIKE 'jetbox relay %' AND random() < 0.4`)
	}
	l.waitCaughtUp()
	if got, want := l.bodies(), numbers(0, 200); !slices.Equal(got, want) {
		t.Errorf("stored %q, want 0…199 in order", got)
	}
}

func TestRelay_MovesScheduledMessagesWhenTheyAreDue(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.relay()
	l.exec(`SELECT jetbox.schedule($1, '"now"', run_at => now() - interval '1 s')`, l.prefix+".x")
	l.exec(`SELECT jetbox.schedule($1, '"soon"', run_at => now() + interval '1 s')`, l.prefix+".x")
	l.exec(`SELECT jetbox.schedule($1, '"later"', run_at => now() + interval '1 hour')`, l.prefix+".x")
	cancelled := uuid.New()
	l.exec(`SELECT jetbox.schedule($1, '"cancelled"', message_id => $2, run_at => now() + interval '1 s')`, l.prefix+".x", cancelled)
	l.exec(`DELETE FROM jetbox.scheduled WHERE message_id = $1`, cancelled)
	testenv.Eventually(t, "two messages to fall due", func() bool {
		return ask[int](l, `SELECT count(*) FROM jetbox.outbox_status WHERE state = 'sent'`) == 2
	})
	if got, want := l.bodies(), []string{`"now"`, `"soon"`}; !slices.Equal(got, want) {
		t.Errorf("stored %q, want %q", got, want)
	}
	if early := ask[bool](l, `SELECT o.created_at < s.created_at + interval '1 s' FROM jetbox.outbox o, jetbox.scheduled s WHERE o.payload::text = '"soon"'`); early {
		t.Error("a message moved before its time")
	}
}

func TestNewRelay_ReportsEveryMistakeAtOnce(t *testing.T) {
	t.Parallel()
	_, err := outbox.NewRelay(nil, nil, outbox.RelayConfig{Lease: time.Millisecond, Retention: -time.Hour, DrainTimeout: -1})
	if err == nil || strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("NewRelay = %v, want three mistakes", err)
	}
}

func TestRelay_ReportsWhatKeepsItFromPublishing(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.stream.Discard, l.stream.MaxMsgs = jetstream.DiscardOld, 10
	r, err := outbox.NewRelay(l.db.Config().ConnConfig, l.dial, outbox.RelayConfig{Streams: []jetstream.StreamConfig{l.stream}})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Ready(t.Context()); !errors.Is(err, outbox.ErrStarting) {
		t.Errorf("Ready before Run = %v", err)
	}
	if err := r.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "discard") {
		t.Errorf("Run on a stream that drops what it acknowledged = %v", err)
	}
	if err := r.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "discard") {
		t.Errorf("Ready after Run = %v, want why it ended", err)
	}
}

func gauge(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}
