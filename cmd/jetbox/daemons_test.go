package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/jetboxhq/jetbox/integration/testenv"
)

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

const shoutYAML = `
worker:
  handlers:
    - {subject: PREFIX.shout, sql: public.shout}
`

const shoutSQL = `
CREATE FUNCTION public.shout(m jetbox.message) RETURNS json LANGUAGE sql AS $$
	SELECT to_json(upper(m.payload #>> '{}'))
$$`

func TestRelayAndWorker_CarryARowToItsResult(t *testing.T) {
	t.Parallel()
	i := install(t, shoutYAML)
	execute(t, i.db, shoutSQL)
	relay := launch(t, i.with(nil), "relay")
	worker := launch(t, i.with(nil), "worker")
	for _, p := range []*process{relay, worker} {
		url := p.address(t)
		testenv.Eventually(t, "readiness", func() bool { code, _ := get(t, url+"/readyz"); return code == http.StatusOK })
	}
	execute(t, i.db, `INSERT INTO jetbox.outbox (subject, payload) VALUES ($1, '"hello"')`, i.prefix+".shout")
	testenv.Eventually(t, "the result", func() bool {
		return one[int](t, i.db, `SELECT count(*) FROM jetbox.inbox WHERE result #>> '{}' = 'HELLO'`) == 1
	})
	var got statusReport
	testenv.Eventually(t, "a leader", func() bool { // a busy machine can cost a relay its lease for a moment
		code, stdout, stderr := invoke(t, i.with(nil), "status", "--json")
		if err := json.Unmarshal([]byte(stdout), &got); err != nil || code != exitOK {
			t.Fatalf("status = %d %q %q", code, stdout, stderr)
		}
		return got.Outbox.Leader != ""
	})
	if got.Outbox.Published != 1 || got.Outbox.Pending != 0 ||
		len(got.Inbox) != 1 || got.Inbox[0].Processed != 1 || got.Inbox[0].DeadLetters != 0 {
		t.Errorf("status = %+v, want one message published and processed", got)
	}
	if code, stdout, _ := invoke(t, i.with(nil), "status"); code != exitOK || !strings.Contains(stdout, "DEAD LETTERS") {
		t.Errorf("status = %d %q, want a table", code, stdout)
	}
	if code, body := get(t, relay.address(t)+"/metrics"); code != http.StatusOK || !strings.Contains(body, "jetbox_build_info") {
		t.Errorf("metrics = %d %.200q, want jetbox_build_info", code, body)
	}
}

func TestWorker_BuriesWhatNoHandlerOfAWorkQueueWants(t *testing.T) {
	t.Parallel()
	i := install(t, shoutYAML)
	execute(t, i.db, shoutSQL)
	launch(t, i.with(nil), "relay")
	launch(t, i.with(nil), "worker")
	execute(t, i.db, `INSERT INTO jetbox.outbox (subject, payload) VALUES ($1, '{}')`, i.prefix+".whisper")
	testenv.Eventually(t, "the dead letter", func() bool {
		return one[int](t, i.db, `SELECT count(*) FROM jetbox.dead_letter WHERE reason = 'no handler for subject ' || $1`, i.prefix+".whisper") == 1
	})
}

func TestWorker_RefusesAFunctionThatIsMissing(t *testing.T) {
	t.Parallel()
	i := install(t, shoutYAML)
	code, _, stderr := invoke(t, i.with(vars{"HTTP_ADDR": "127.0.0.1:0"}), "worker")
	if code != exitUsage || !strings.Contains(stderr, "public.shout") {
		t.Errorf("worker = %d %q, want %d and the function's name", code, stderr, exitUsage)
	}
}

func TestRelay_RefusesAStreamThatItCannotChange(t *testing.T) {
	t.Parallel()
	i := install(t, "relay: {lease: 2s}")
	first := launch(t, i.with(nil), "relay")
	url := first.address(t)
	testenv.Eventually(t, "the stream", func() bool { code, _ := get(t, url+"/readyz"); return code == http.StatusOK })
	first.stop()
	v := i.with(vars{"HTTP_ADDR": "127.0.0.1:0", "JETBOX_STREAMS": "verify", "JETBOX_CONFIG": yaml(t,
		"streams:\n  - {name: "+strings.ToUpper(i.prefix)+", subjects: ["+i.prefix+".>], storage: file}\n")})
	code, _, stderr := invoke(t, v, "relay")
	if code != exitUsage || !strings.Contains(stderr, "storage is memory, need file") {
		t.Errorf("relay = %d %q, want %d and the field", code, stderr, exitUsage)
	}
}

func TestDaemons_WaitForAServerThatIsAway(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"relay", "worker"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := launch(t, vars{"DATABASE_URL": "postgres://u:hunter2@127.0.0.1:1/app"}, name)
			url := p.address(t)
			testenv.Eventually(t, "a word about it", func() bool { return strings.Contains(p.stderr.String(), "waiting for Postgres") })
			if code, _ := get(t, url+"/healthz"); code != http.StatusOK {
				t.Errorf("healthz = %d, want 200", code)
			}
			if code, body := get(t, url+"/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, `"`+name+`":`) {
				t.Errorf("readyz = %d %s, want 503 that names the %s", code, body, name)
			}
			if strings.Contains(p.stderr.String(), "hunter2") {
				t.Errorf("the log shows the password: %s", p.stderr.String())
			}
		})
	}
}

func TestDaemons_NameTheirPortWhenItIsTaken(t *testing.T) {
	t.Parallel()
	i := install(t, "")
	addr := strings.TrimPrefix(launch(t, i.with(nil), "relay").address(t), "http://")
	code, _, stderr := invoke(t, i.with(vars{"HTTP_ADDR": addr}), "relay")
	if code != exitFailure || !strings.Contains(stderr, addr+" is in use") {
		t.Errorf("relay = %d %q, want %d and %s", code, stderr, exitFailure, addr)
	}
}

func TestDaemons_WarnOfAVariableThatIsProbablyMisspelt(t *testing.T) {
	t.Parallel()
	i := install(t, "")
	p := launch(t, i.with(vars{"OUTBOX_RETENSION": "48h", "NATS_PORT": "tcp://10.0.0.1"}), "relay")
	p.address(t)
	if got := p.stderr.String(); !strings.Contains(got, `"OUTBOX_RETENSION","did_you_mean":"OUTBOX_RETENTION"`) || strings.Contains(got, "NATS_PORT") {
		t.Errorf("log = %s, want a warning of OUTBOX_RETENSION alone", got)
	}
}

func TestUp_RunsEveryBuiltinHandler(t *testing.T) {
	t.Parallel()
	db := testenv.EmptyDatabase(t)
	p := launch(t, vars{"DATABASE_URL": dsn(db), "NATS_URL": testenv.OwnNATS(t).URL()}, "up")
	url := p.address(t)
	testenv.Eventually(t, "readiness", func() bool { code, _ := get(t, url+"/readyz"); return code == http.StatusOK })
	watchEndings(t, dsn(db))
	if got := p.stderr.String(); !strings.Contains(got, `psql "$DATABASE_URL"`) || !strings.Contains(got, "applied 00001_uuidv7.sql") {
		t.Errorf("banner = %s, want what was migrated and how to enqueue", got)
	}
}

// watchEndings enqueues one message for each built-in handler and waits until
// each has ended as it should.
func watchEndings(t *testing.T, url string) {
	t.Helper()
	cfg, err := parseDatabase(url, "test")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := connect(t.Context(), cfg.ConnConfig, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if _, err := conn.Exec(t.Context(), `INSERT INTO jetbox.outbox (subject, payload) VALUES
		('jobs.echo', '{"a": 1}'), ('jobs.sleep', '{"ms": 10}'), ('jobs.flaky', '{}'), ('jobs.fail', '{}')`); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "every ending", func() bool {
		var endings string
		err := conn.QueryRow(t.Context(), `
			SELECT coalesce(string_agg(line, ' ' ORDER BY line), '') FROM (
				SELECT subject || '=' || (result::jsonb)::text FROM jetbox.inbox
				UNION ALL
				SELECT subject || '=' || reason FROM jetbox.dead_letter) AS endings (line)`).Scan(&endings)
		if err != nil {
			t.Fatal(err)
		}
		return strings.HasPrefix(endings, `jobs.echo={"a": 1} jobs.fail=`) &&
			strings.HasSuffix(endings, ` jobs.flaky={"attempt": 3} jobs.sleep={"ms": 10}`)
	})
}
