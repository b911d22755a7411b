package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/jetboxhq/jetbox/integration/testenv"
	"github.com/jetboxhq/jetbox/internal/api"
)

func TestMain(m *testing.M) {
	openapi3filter.RegisterBodyDecoder("text/event-stream", openapi3filter.PlainBodyDecoder)
	testenv.Main(m)
}

// server is an API and the database behind it.
type server struct {
	t        *testing.T
	db       *pgxpool.Pool
	url      string
	log      *bytes.Buffer // read it only after the request
	c        *http.Client
	api      *api.API
	contract contract
}

func serve(t *testing.T, cfg api.Config) server {
	t.Helper()
	s := server{t: t, db: testenv.Database(t), log: &bytes.Buffer{}}
	cfg.Logger = slog.New(slog.NewJSONHandler(s.log, nil))
	pc := s.db.Config().Copy()
	pc.MaxConns = api.MaxConns
	pc.ConnConfig.RuntimeParams["application_name"] = "jetbox api"
	pool, err := pgxpool.NewWithConfig(t.Context(), pc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	a, err := api.New(pool, cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.api, s.contract = a, newContract(t, a)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	web := httptest.NewServer(a.Handler())
	s.url, s.c = web.URL, web.Client()
	t.Cleanup(func() {
		web.Close()
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
	})
	return s
}

func open(t *testing.T) server { return serve(t, api.Config{Open: true}) }

// answer is a response that has been read.
type answer struct {
	code   int
	header http.Header
	body   string
}

func (a answer) field(name string) string {
	var fields map[string]any
	if json.Unmarshal([]byte(a.body), &fields) != nil {
		return ""
	}
	text, _ := fields[name].(string)
	return text
}

// do sends a request; headers are "Name: value".
func (s server) do(method, path, body string, headers ...string) answer {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if body != "" && !slices.ContainsFunc(headers, func(h string) bool { return strings.HasPrefix(h, "Content-Type: ") }) {
		req.Header.Set("Content-Type", "application/json")
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		if name == "Host" {
			req.Host = value
		} else {
			req.Header.Add(name, value)
		}
	}
	res, err := s.c.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	a := answer{res.StatusCode, res.Header, string(text)}
	s.contract.check(s.t, req, body, a)
	return a
}

func (s server) execute(sql string, args ...any) {
	s.t.Helper()
	if _, err := s.db.Exec(s.t.Context(), sql, args...); err != nil {
		s.t.Fatal(err)
	}
}

func (s server) count(sql string, args ...any) (n int) {
	s.t.Helper()
	if err := s.db.QueryRow(s.t.Context(), sql, args...).Scan(&n); err != nil {
		s.t.Fatal(err)
	}
	return n
}

// post makes a job and returns its ID.
func (s server) post(body string) string {
	s.t.Helper()
	a := s.do("POST", "/jobs", body)
	if a.code != http.StatusAccepted {
		s.t.Fatalf("POST = %d %s", a.code, a.body)
	}
	return a.field("id")
}

const job = `{"subject": "jobs.a", "payload": {"n": 9007199254740993, "big": 1e999}}`

func (s server) process(id string) {
	s.t.Helper()
	s.execute(`INSERT INTO jetbox.inbox (message_id, consumer, day, subject, result)
		VALUES ($1, 'worker', (now() AT TIME ZONE 'UTC')::date, 'jobs.a', '{"r": 1}')`, id)
}

func (s server) bury(id string) {
	s.t.Helper()
	s.execute(`INSERT INTO jetbox.dead_letter (message_id, consumer, subject, payload, reason, errors, attempts, died_at)
		VALUES ($1, 'worker', 'jobs.a', '1', 'no luck', '[{"attempt": 1, "at": "2026-11-22T10:00:00Z", "error": "boom"}]', 1, now() - interval '1 hour')`, id)
}

func TestPost_MakesAMessage(t *testing.T) {
	t.Parallel()
	s := open(t)
	a := s.do("POST", "/jobs", `{"subject": "jobs.a", "payload": {"n": 9007199254740993, "big": 1e999}, "key": "k", "headers": {"a": "b"}}`)
	if a.code != http.StatusAccepted || a.header.Get("Location") != "/jobs/"+a.field("id") || a.field("status") != "queued" {
		t.Fatalf("POST = %d %s %s, want 202, the job's place and queued", a.code, a.header, a.body)
	}
	if n := s.count(`SELECT count(*) FROM jetbox.outbox WHERE message_id = $1 AND subject = 'jobs.a' AND key = 'k'
		AND headers::text = '{"a":"b"}' AND payload::text = '{"n": 9007199254740993, "big": 1e999}'`, a.field("id")); n != 1 {
		t.Error("the outbox does not have the job as it was sent")
	}
	if g := s.do("GET", a.header.Get("Location"), ""); g.code != http.StatusOK || g.field("status") != "queued" {
		t.Errorf("GET = %d %s, want queued", g.code, g.body)
	}
}

func TestPost_UsesTheDefaultSubject(t *testing.T) {
	t.Parallel()
	s := serve(t, api.Config{Open: true, DefaultSubject: "jobs.default"})
	if a := s.do("POST", "/jobs", `{"payload": null}`); a.code != http.StatusAccepted || a.field("subject") != "jobs.default" {
		t.Errorf("POST = %d %s, want the default subject", a.code, a.body)
	}
}

func TestPost_SchedulesWhatIsForLater(t *testing.T) {
	t.Parallel()
	s := open(t)
	at := time.Now().AddDate(0, 2, 0).UTC()
	a := s.do("POST", "/jobs", `{"subject": "jobs.a", "payload": 1, "run_at": "`+at.Format(time.RFC3339)+`"}`)
	if g := s.do("GET", a.header.Get("Location"), ""); a.field("status") != "scheduled" || g.field("status") != "scheduled" {
		t.Fatalf("POST, GET = %s, %s, want scheduled", a.body, g.body)
	}
	// The inbox meets the ID in two months, and must have a place for it then.
	if got := s.count(`SELECT abs(extract(epoch FROM run_at) * 1000 - ('x' || left(replace(message_id::text, '-', ''), 12))::bit(48)::bigint)::int
		FROM jetbox.scheduled`); got > 1000 {
		t.Errorf("the ID's time is %d ms off the run time", got)
	}
}

func TestPost_WithOneKeyMakesOneJob(t *testing.T) {
	t.Parallel()
	s := open(t)
	first := s.do("POST", "/jobs", job, "Idempotency-Key: k1")
	again := s.do("POST", "/jobs", job, "Idempotency-Key: k1")
	if first.code != 202 || again.code != 202 || first.field("id") != again.field("id") {
		t.Errorf("POST twice = %s, %s, want the same job", first.body, again.body)
	}
	if other := s.do("POST", "/jobs", `{"subject": "jobs.a", "payload": 2}`, "Idempotency-Key: k1"); other.code != 422 || other.field("code") != "idempotency_key_reused" {
		t.Errorf("POST with another body = %d %s, want 422", other.code, other.body)
	}
	if n := s.count(`SELECT count(*) FROM jetbox.outbox`); n != 1 {
		t.Errorf("the outbox has %d rows, want 1", n)
	}
}

func TestPost_WithOneKeyAtTheSameMomentMakesOneJob(t *testing.T) {
	t.Parallel()
	s := open(t)
	ids := make(chan string, 8)
	for range cap(ids) {
		go func() { ids <- s.do("POST", "/jobs", job, "Idempotency-Key: k").field("id") }()
	}
	first := <-ids
	for range cap(ids) - 1 {
		if id := <-ids; id != first || id == "" {
			t.Errorf("id = %q, want %q", id, first)
		}
	}
	if n := s.count(`SELECT count(*) FROM jetbox.outbox`); n != 1 {
		t.Errorf("the outbox has %d rows, want 1", n)
	}
}

func TestPrune_ForgetsKeysAfterADay(t *testing.T) {
	t.Parallel()
	s := open(t)
	s.do("POST", "/jobs", job, "Idempotency-Key: fresh")
	s.execute(`INSERT INTO jetbox.idempotency_key (owner, key, body_hash, message_id, created_at)
		SELECT 'a', n::text, '', gen_random_uuid(), now() - interval '25 hours' FROM generate_series(1, 10001) n`)
	s.execute(`INSERT INTO jetbox.operator_action (actor, action, at) VALUES ('a', 'pause', now() - interval '401 days'), ('a', 'pause', now())`)
	if err := s.api.Prune(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := s.count(`SELECT count(*) FROM jetbox.idempotency_key`); n != 1 {
		t.Errorf("%d keys are left, want the fresh one", n)
	}
	if n := s.count(`SELECT count(*) FROM jetbox.operator_action`); n != 1 {
		t.Errorf("%d actions are left, want the fresh one", n)
	}
}

// A thousand clients cost what one costs.
