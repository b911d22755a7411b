package api_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// deep is n arrays in one another.
func deep(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }

func with(payload string) string { return `{"subject": "jobs.a", "payload": ` + payload + `}` }

const secret = "hunter2"

// badInput is a row of the catalogue of bad input.
type badInput struct {
	method, path, body string
	headers            []string
	code               int
	want               string
}

// some is a job that nobody has made. ID in a path stands for one that someone has.
const some = "01890a5d-ac96-774b-bcce-b302099a8057"

// badBodies are none of the API's JSON.
func badBodies() map[string]badInput {
	return map[string]badInput{
		"text":                {"POST", "/jobs", job, []string{"Content-Type: text/plain"}, 415, "content_type"},
		"no content type":     {"POST", "/jobs", job, []string{"Content-Type: "}, 415, "content_type"},
		"form":                {"POST", "/jobs", job, []string{"Content-Type: multipart/form-data; boundary=x"}, 415, "content_type"},
		"gzip":                {"POST", "/jobs", job, []string{"Content-Encoding: gzip"}, 415, "content_encoding"},
		"large body":          {"POST", "/jobs", with(`"` + strings.Repeat("x", 1<<20) + `"`), nil, 413, "body_too_large"},
		"empty body":          {"POST", "/jobs", " ", nil, 400, "is not valid JSON"},
		"no body":             {"POST", "/jobs", "", nil, 400, "invalid_request"},
		"array":               {"POST", "/jobs", "[]", nil, 400, "not a JSON object"},
		"null":                {"POST", "/jobs", "null", nil, 400, "not a JSON object"},
		"trailing data":       {"POST", "/jobs", job + `{"hunter2": 1}`, nil, 400, "text follows"},
		"byte order mark":     {"POST", "/jobs", "\ufeff" + job, nil, 400, "byte order mark"},
		"bad UTF-8":           {"POST", "/jobs", with("\"\xff\""), nil, 400, "not UTF-8"},
		"duplicate":           {"POST", "/jobs", `{"payload": 1, "payload": 2}`, nil, 400, "has a member twice"},
		"duplicate inside":    {"POST", "/jobs", with(`{"a": [{"b": 1, "b": 2}]}`), nil, 400, `"/payload/a/0"`},
		"duplicate by escape": {"POST", "/jobs", `{"payload": 1, "p\u0061yload": 2}`, nil, 400, "has a member twice"},
		"deep":                {"POST", "/jobs", with(deep(10_001)), nil, 400, "nests deeper than 200 levels"},
		"very deep":           {"POST", "/jobs", with(deep(100_000)), nil, 400, "nests deeper than 200 levels"},
		"unknown member":      {"POST", "/jobs", `{"payload": 1, "hunter2": 1}`, nil, 400, "a member is unknown; known are subject"},
		"other case":          {"POST", "/jobs", `{"Subject": "jobs.a", "payload": 1}`, nil, 400, "a member is unknown"},
		"wrong type":          {"POST", "/jobs", `{"subject": 17, "payload": 1}`, nil, 400, `"/subject"`},
		"NaN":                 {"POST", "/jobs", with("NaN"), nil, 400, "is not valid JSON"},
	}
}

// badJobs break a rule of the outbox.
func badJobs() map[string]badInput {
	return map[string]badInput{
		"secret in subject":        {"POST", "/jobs", `{"subject": "jobs hunter2", "payload": "hunter2"}`, nil, 422, `"/subject"`},
		"secret in header":         {"POST", "/jobs", `{"subject": "jobs.a", "payload": "hunter2", "headers": {"hunter2 ": "hunter2"}}`, nil, 422, `"/headers"`},
		"control character in key": {"POST", "/jobs", `{"subject": "jobs.a", "payload": 1, "key": "hunter2\n"}`, nil, 422, `"/key"`},
		"large headers":            {"POST", "/jobs", `{"subject": "jobs.a", "payload": 1, "headers": {"a": "` + strings.Repeat("x", 8192) + `"}}`, nil, 422, "headers is at most 8192 bytes"},
		"large payload":            {"POST", "/jobs", with(`"` + strings.Repeat("x", 900_000) + `"`), nil, 422, "payload is at most 900000 bytes"},
		"no payload":               {"POST", "/jobs", `{"subject": "jobs.a"}`, nil, 422, "payload is required"},
		"no subject":               {"POST", "/jobs", `{"payload": 1}`, nil, 422, "subject is required"},
		"wildcard":                 {"POST", "/jobs", `{"subject": "jobs.>", "payload": 1}`, nil, 422, `"/subject"`},
		"internal subject":         {"POST", "/jobs", `{"subject": "$JS.API.STREAM.DELETE.JOBS", "payload": 1}`, nil, 422, "subject is 1 to 16 tokens"},
		"subject with NUL":         {"POST", "/jobs", `{"subject": "jobs\u0000", "payload": 1}`, nil, 422, "zero byte"},
		"long subject":             {"POST", "/jobs", `{"subject": "` + strings.Repeat("x", 201) + `", "payload": 1}`, nil, 422, "subject is at most 200 bytes"},
		"long key":                 {"POST", "/jobs", `{"subject": "jobs.a", "payload": 1, "key": "` + strings.Repeat("x", 201) + `"}`, nil, 422, `"/key"`},
		"reserved header":          {"POST", "/jobs", `{"subject": "jobs.a", "payload": 1, "headers": {"Nats-Rollup": "all"}}`, nil, 422, `"/headers"`},
		"header with newline":      {"POST", "/jobs", `{"subject": "jobs.a", "payload": 1, "headers": {"a": "b\nc"}}`, nil, 422, `"/headers"`},
		"header number":            {"POST", "/jobs", `{"subject": "jobs.a", "payload": 1, "headers": {"a": 1}}`, nil, 400, `"/headers"`},
		"run_at text":              {"POST", "/jobs", `{"subject": "jobs.a", "payload": 1, "run_at": "tomorrow"}`, nil, 400, `"/run_at"`},
	}
}

// badRequests are wrong beside the body.
func badRequests() map[string]badInput {
	return map[string]badInput{
		"dead letter of nobody":    {"GET", "/dead/" + some, "", nil, 404, "no dead letter has this ID"},
		"dead letter 17":           {"GET", "/dead/17", "", nil, 404, "an ID is a UUID"},
		"secret in path":           {"GET", "/dead/" + secret, "", nil, 404, "an ID is a UUID"},
		"long idempotency key":     {"POST", "/jobs", job, []string{"Idempotency-Key: " + strings.Repeat("x", 1024)}, 400, "invalid_idempotency_key"},
		"empty idempotency key":    {"POST", "/jobs", job, []string{"Idempotency-Key: "}, 400, "invalid_idempotency_key"},
		"two idempotency keys":     {"POST", "/jobs", job, []string{"Idempotency-Key: a", "Idempotency-Key: b"}, 400, "invalid_idempotency_key"},
		"job without a body":       {"POST", "/jobs", "", nil, 400, "send a JSON object"},
		"redrive without a body":   {"POST", "/dead/redrive", "", nil, 400, "send a JSON object"},
		"idempotency key of bytes": {"POST", "/jobs", job, []string{"Idempotency-Key: \u00e4"}, 400, "invalid_idempotency_key"},
		"limit 0":                  {"GET", "/dead?limit=0", "", nil, 422, `query.limit`},
		"limit -1":                 {"GET", "/dead?limit=-1", "", nil, 422, `query.limit`},
		"limit 1e9":                {"GET", "/dead?limit=1000000000", "", nil, 422, `query.limit`},
		"limit abc":                {"GET", "/dead?limit=abc", "", nil, 422, `query.limit`},
		"cursor":                   {"GET", "/dead?cursor=aHVudGVyMg", "", nil, 400, "is not a cursor"},
		"unknown parameter":        {"GET", "/dead?hunter=2", "", nil, 422, "unknown query parameter"},
		"redrive limit":            {"POST", "/dead/redrive", `{"limit": 501}`, nil, 400, `"/limit"`},
		"redrive typo":             {"POST", "/dead/redrive", `{"subjct": "x"}`, nil, 400, "a member is unknown"},
		"wait":                     {"GET", "/jobs/ID?wait=soon", "", nil, 400, "not a duration"},
		"negative wait":            {"GET", "/jobs/ID?wait=-1s", "", nil, 400, "not a duration"},
		"path traversal":           {"GET", "/jobs/..%2f..%2fetc%2fpasswd", "", nil, 404, "an ID is a UUID"},
		"NUL in path":              {"GET", "/jobs/%00", "", nil, 404, "an ID is a UUID"},
		"SQL in path":              {"GET", "/jobs/'%3b%20drop", "", nil, 404, "an ID is a UUID"},
		"300 digits":               {"GET", "/jobs/" + strings.Repeat("1", 300), "", nil, 404, "an ID is a UUID"},
		"braces":                   {"GET", "/jobs/%7bID%7d", "", nil, 404, "an ID is a UUID"},
		"unknown job":              {"GET", "/jobs/" + some, "", nil, 404, "no job has this ID"},
		"unknown dead letter":      {"POST", "/dead/" + some + "/redrive", "", nil, 404, "no job has this ID"},
		"method":                   {"PUT", "/jobs", "", nil, 405, "method_not_allowed"},
		"options":                  {"OPTIONS", "/jobs", "", nil, 405, "method_not_allowed"},
		"trace":                    {"TRACE", "/jobs/ID", "", nil, 405, "method_not_allowed"},
		"unknown path":             {"GET", "/jobs/ID/hunter2", "", nil, 404, "not_found"},
		"pprof":                    {"GET", "/debug/pprof", "", nil, 404, "not_found"},
		"forged host":              {"GET", "/jobs/ID", "", []string{"Host: evil.example"}, 403, "host_not_allowed"},
		"other site":               {"POST", "/jobs", job, []string{"Sec-Fetch-Site: cross-site"}, 403, "cross_site"},
		"other origin":             {"DELETE", "/jobs/ID", "", []string{"Origin: https://evil.example"}, 403, "cross_site"},
		"token nobody needs":       {"GET", "/jobs/ID", "", []string{"Authorization: Bearer " + secret}, 401, "unauthorized"},
	}
}

// Each answer names the thing and the rule, as a problem with a code, and repeats
// nothing that was sent.
func TestHandler_AnswersBadInputWithAProblem(t *testing.T) {
	t.Parallel()
	s := open(t)
	id := s.post(job)
	for _, table := range []map[string]badInput{badBodies(), badJobs(), badRequests()} {
		for name, tt := range table {
			tt.path = strings.Replace(tt.path, "ID", id, 1)
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s.refuses(t, tt)
			})
		}
	}
	t.Cleanup(func() { // after the parallel rows
		if strings.Contains(s.log.String(), secret) {
			t.Errorf("the log repeats what was sent: %s", s.log)
		}
	})
}

func (s server) refuses(t *testing.T, tt badInput) {
	t.Helper()
	a := s.do(tt.method, tt.path, tt.body, append([]string{"X-Forwarded-For: 127.0.0.1"}, tt.headers...)...)
	if a.code != tt.code || !strings.Contains(a.body, tt.want) || a.header.Get("Content-Type") != "application/problem+json" ||
		a.field("code") == "" || (a.code == 405) != (a.header.Get("Allow") != "") {
		t.Errorf("%s %s = %d %s %s, want a problem: %d %q", tt.method, tt.path[:min(60, len(tt.path))], a.code, a.header, a.body, tt.code, tt.want)
	}
	if strings.Contains(a.body, secret) || len(a.body) > 2000 {
		t.Errorf("the answer repeats what was sent: %.300s", a.body)
	}
}

// A body without a length is cut off, not read to its end.
func TestHandler_EndsAnEndlessBody(t *testing.T) {
	t.Parallel()
	s := open(t)
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	send(t, conn, "POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
	chunk := "10000\r\n" + strings.Repeat(" ", 0x10000) + "\r\n"
	go func() {
		for range 64 { // 4 MiB; the server closes before
			if _, err := fmt.Fprint(conn, chunk); err != nil {
				return
			}
		}
	}()
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || res.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("answer = %v, %v, want 413", res, err)
	}
}

// A GET may wait long, but not for a body.
func TestHandler_EndsABodyThatDoesNotCome(t *testing.T) {
	t.Parallel()
	web := httptest.NewUnstartedServer(open(t).api.Handler())
	web.Config.ReadTimeout = 200 * time.Millisecond
	web.Start()
	defer web.Close()
	for _, head := range []string{"Content-Length: 1", "Transfer-Encoding: chunked"} {
		conn, err := net.Dial("tcp", web.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		send(t, conn, "GET /docs HTTP/1.1\r\nHost: localhost\r\n"+head+"\r\n\r\n")
		if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, conn); err != nil {
			t.Errorf("with %s the connection stays: %v", head, err)
		}
	}
}

func TestHandler_RefusesSmuggling(t *testing.T) {
	t.Parallel()
	s := open(t)
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	send(t, conn, "POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n")
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || res.StatusCode != http.StatusBadRequest {
		t.Errorf("answer = %v, %v, want 400", res, err)
	}
}

func send(t *testing.T, to io.Writer, text string) {
	t.Helper()
	if _, err := io.WriteString(to, text); err != nil {
		t.Fatal(err)
	}
}
