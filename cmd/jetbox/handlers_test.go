package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jetboxhq/jetbox/integration/testenv"
	daemonprocess "github.com/jetboxhq/jetbox/internal/process"
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
    - {subject: PREFIX.sql, sql: public.shout, role: jetbox_producer}
    - {subject: PREFIX.slow, exec: [sh, -c, 'echo soon >&2; sleep 600'], timeout: 200ms, max_attempts: 2}
    - subject: PREFIX.http
      http: URL/hook
      headers: {X-Team: billing}
      headers_from_env: {Authorization: BILLING_TOKEN}
    - subject: PREFIX.exec
      exec: [sh, -c, 'read -r order; [ $JETBOX_ATTEMPT = 2 ] && order=\"done\"; case $order in *done*) echo "$order";; *bad*) echo no >&2; exit 1;; *) exit 75;; esac']
`

const saySQL = `
CREATE FUNCTION public.shout(m jetbox.message) RETURNS json LANGUAGE sql AS $$
	SELECT to_json(current_user || ' ' || upper(m.payload #>> '{}'))
$$`

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
	execute(t, i.db, saySQL)
	launch(t, i.with(nil), "relay")
	worker := launch(t, i.with(vars{"BILLING_TOKEN": "Bearer hunter2", "PATH": os.Getenv("PATH")}), "worker")
	execute(t, i.db, `INSERT INTO jetbox.outbox (subject, payload) SELECT $1 || line[1], line[2]::json FROM (VALUES
		(ARRAY['.sql', '"a"']), (ARRAY['.http', '"busy"']), (ARRAY['.http', '"bad"']), (ARRAY['.http', '"fine"']),
		(ARRAY['.exec', '"done"']), (ARRAY['.exec', '"bad"']), (ARRAY['.exec', '"later"']), (ARRAY['.slow', '1'])) AS v (line)`, i.prefix)
	want := strings.Join([]string{
		`exec="bad">1 exec /bin/sh: exit status 1: no`, `exec="done">"done"`, `exec="later">"done"`,
		`http="bad">1 http ` + endpoint.Listener.Addr().String() + `: answered 422 Unprocessable Entity`,
		`http="busy">"busy"`, `http="fine">"fine"`, `slow=1>2 attempt 2 of 2 failed: handler timeout after 200ms: exec /bin/sh: handler timeout: soon`, `sql="a">"jetbox_producer A"`,
	}, " ")
	testenv.Eventually(t, "every end", func() bool { return one[int](t, i.db, endedSQL) == 8 })
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

const mistakenYAML = `
worker:
  handlers:
    - {subject: PREFIX.a, http: "ftp://hunter2", headers_from_env: {Authorization: BILLING_TOKEN, X-Key: BILLING_KEY}}
    - {subject: PREFIX.b, exec: [no-such-program], env: [SMTP_HOST]}
    - {subject: PREFIX.c, http: "https://a.example", headers: {Host: b.example}}
`

func TestWorker_ReportsEveryMistakeInItsHandlersAtOnce(t *testing.T) {
	t.Parallel()
	i := install(t, mistakenYAML)
	secret := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(secret, []byte("Bearer hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	v := i.with(vars{"BILLING_TOKEN_FILE": secret})
	code, _, stderr := invoke(t, v, "worker")
	for _, want := range []string{
		v["JETBOX_CONFIG"] + ":6:8: handler for " + i.prefix + ".a: need a URL such as", "headers_from_env: BILLING_KEY is not set",
		`:7:8: handler for ` + i.prefix + `.b: exec: "no-such-program": executable file not found`, "env: SMTP_HOST is not set",
		":8:8: handler for " + i.prefix + ".c: header Host is set by jetbox",
	} {
		if code != exitUsage || !strings.Contains(stderr, want) {
			t.Errorf("worker = %d, want %d and %q", code, exitUsage, want)
		}
	}
	if strings.Contains(stderr, "hunter2") || strings.Contains(stderr, "BILLING_TOKEN") || t.Failed() {
		t.Errorf("worker said %s", stderr)
	}
	relay := launch(t, i.with(nil), "relay") // needs no handler, so none of these
	relay.address(t)
}

const heldYAML = `
worker:
  ack_wait: 2s
  retry_delay: 10ms
  handlers:
    - {subject: PREFIX.http, http: URL}
    - {subject: PREFIX.exec, exec: [sh, -c, 'echo $JETBOX_IDEMPOTENCY_KEY >>"$CALLS"; [ "$(wc -l <"$CALLS")" = 1 ] && echo $$ >"$CALLS.pid" && exec sleep 600; echo \"charged\"'], env: [CALLS]}
`

// child is a worker in a process of its own.
func child(t *testing.T, v vars) *daemonprocess.Process {
	t.Helper()
	p := &daemonprocess.Process{
		Name: "worker", Executable: os.Args[0], Args: []string{"worker"}, Log: filepath.Join(t.TempDir(), "log"),
		Env: installation{vars: v}.with(vars{"JETBOX_IS_THIS_TEST": "1", "HTTP_ADDR": "127.0.0.1:0", "PATH": os.Getenv("PATH")}).environ(),
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Stop(); err != nil || t.Failed() {
			t.Errorf("worker: %v\n%s", err, p.Tail())
		}
	})
	return p
}

// The first call of each kind is under way when the worker is killed. It is
// made again under the same key, and there is one result.
func TestWorker_CallsAgainUnderTheSameKeyAfterAKill(t *testing.T) {
	t.Parallel()
	killed := make(chan struct{})
	endpoint := newHook(t, func(w http.ResponseWriter, r *http.Request, _ string, call int) {
		if call == 1 {
			<-killed
		}
		_, _ = io.WriteString(w, `"charged"`)
	})
	calls := filepath.Join(t.TempDir(), "calls")
	i := install(t, strings.ReplaceAll(heldYAML, "URL", endpoint.URL))
	launch(t, i.with(nil), "relay")
	worker := child(t, i.with(vars{"CALLS": calls}))
	execute(t, i.db, `INSERT INTO jetbox.outbox (subject, payload) VALUES ($1 || '.http', '1'), ($1 || '.exec', '1')`, i.prefix)
	testenv.Eventually(t, "both calls", func() bool { return len(endpoint.keys()) == 1 && len(lines(calls+".pid")) == 1 })
	if err := worker.Kill(); err != nil {
		t.Fatal(err)
	}
	close(killed)
	testenv.Eventually(t, "the command to die with its worker", func() bool { return !alive(lines(calls + ".pid")[0]) })
	if err := worker.Start(); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "two results", func() bool {
		return one[int](t, i.db, `SELECT count(*) FROM jetbox.inbox WHERE result #>> '{}' = 'charged'`) == 2
	})
	for kind, keys := range map[string][]string{".http": endpoint.keys(), ".exec": lines(calls)} {
		id := one[string](t, i.db, `SELECT message_id::text FROM jetbox.outbox WHERE subject = $1`, i.prefix+kind)
		if want := "worker/" + id; !slices.Equal(keys, []string{want, want}) {
			t.Errorf("%s: called with keys %q, want twice %s", kind, keys, want)
		}
	}
}

// lines are those of a file that may not be there yet.
func lines(path string) []string {
	text, _ := os.ReadFile(path)
	return strings.Fields(string(text))
}

// alive reports whether Linux has the process running: a dead one may wait for
// its parent.
func alive(pid string) bool {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	_, state, _ := strings.Cut(string(stat), ") ")
	return err == nil && !strings.HasPrefix(state, "Z")
}
