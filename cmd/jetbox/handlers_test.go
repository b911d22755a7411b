package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/jetboxhq/jetbox/integration/testenv"
)

// hook is an endpoint that notes who called, and does what the payload says.
type hook struct {
	*httptest.Server
	mu    sync.Mutex
	calls []http.Header
}

func newHook(t *testing.T, answer func(w http.ResponseWriter, r *http.Request, body string, call int)) *hook {
	t.Helper()
	h := &hook{}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		h.mu.Lock()
		h.calls = append(h.calls, r.Header)
		n := len(h.calls)
		h.mu.Unlock()
		answer(w, r, string(body), n)
	}))
	t.Cleanup(h.Close)
	return h
}

func (h *hook) keys() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var keys []string
	for _, header := range h.calls {
		keys = append(keys, header.Get("Idempotency-Key"))
	}
	return keys
}

const polyglotYAML = `
worker:
  consumer: shop
  retry_delay: 10ms
  max_attempts: 4
  handlers:
    - {subject: PREFIX.sql, sql: public.shout}
    - subject: PREFIX.http
      http: URL/hook
      headers: {X-Team: billing}
      headers_from_env: {Authorization: BILLING_TOKEN}
    - subject: PREFIX.exec
      exec: [sh, -c, 'read -r order; [ $JETBOX_ATTEMPT = 2 ] && order=\"done\"; case $order in *done*) echo "$order";; *bad*) echo no >&2; exit 1;; *) exit 75;; esac']
      max_attempts: 3
`

// status is what an endpoint of the test is told to answer.
func status(w http.ResponseWriter, _ *http.Request, body string, call int) {
	switch {
	case strings.Contains(body, "bad"):
		w.WriteHeader(http.StatusUnprocessableEntity)
	case strings.Contains(body, "busy") && call%2 == 1: // the only one that is called again
		w.Header().Set("Retry-After", "0")
		w.WriteHeader(http.StatusServiceUnavailable)
	default:
		_, _ = io.WriteString(w, body)
	}
}

const endedSQL = `SELECT (SELECT count(*) FROM jetbox.inbox) + (SELECT count(*) FROM jetbox.dead_letter)`

// endingsSQL tells how every message has ended: subject=payload>result.
const endingsSQL = `
SELECT coalesce(string_agg(line, ' ' ORDER BY line), '') FROM (
	SELECT split_part(o.subject, '.', 2) || '=' || o.payload || '>' || coalesce(i.result::text, d.attempts || ' ' || d.reason, '')
	FROM jetbox.outbox o LEFT JOIN jetbox.inbox i USING (message_id) LEFT JOIN jetbox.dead_letter d USING (message_id)
) AS e (line)`

func TestWorker_RunsHandlersInSQLAndOverHTTPAndAsCommands(t *testing.T) {
	t.Parallel()
	endpoint := newHook(t, status)
	i := install(t, strings.ReplaceAll(polyglotYAML, "URL", endpoint.URL))
	execute(t, i.db, shoutSQL)
	launch(t, i.with(nil), "relay")
	worker := launch(t, i.with(vars{"BILLING_TOKEN": "Bearer hunter2", "PATH": os.Getenv("PATH")}), "worker")
	execute(t, i.db, `INSERT INTO jetbox.outbox (subject, payload) SELECT $1 || line[1], line[2]::json FROM (VALUES
		(ARRAY['.sql', '"a"']), (ARRAY['.http', '"busy"']), (ARRAY['.http', '"bad"']), (ARRAY['.http', '"fine"']),
		(ARRAY['.exec', '"done"']), (ARRAY['.exec', '"bad"']), (ARRAY['.exec', '"later"'])) AS v (line)`, i.prefix)
	want := strings.Join([]string{
		`exec="bad">1 exec /bin/sh: exit status 1: no`, `exec="done">"done"`, `exec="later">"done"`,
		`http="bad">1 http ` + endpoint.Listener.Addr().String() + `: answered 422 Unprocessable Entity`,
		`http="busy">"busy"`, `http="fine">"fine"`, `sql="a">"A"`,
	}, " ")
	testenv.Eventually(t, "every end", func() bool { return one[int](t, i.db, endedSQL) == 7 })
	if got := strings.ReplaceAll(one[string](t, i.db, endingsSQL), "/usr/bin/sh", "/bin/sh"); got != want {
		t.Errorf("endings = %s\nwant      %s", got, want)
	}
	if strings.Contains(worker.stderr.String(), "hunter2") {
		t.Errorf("the log shows a header's secret: %s", worker.stderr.String())
	}
	for _, h := range endpoint.calls {
		if h.Get("Authorization") != "Bearer hunter2" || h.Get("X-Team") != "billing" {
			t.Errorf("headers = %v, want those of jetbox.yaml", h)
		}
	}
}
