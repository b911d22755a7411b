package api_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/jetboxhq/jetbox/internal/api"
)

// deep is n arrays in one another.
func deep(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }

func with(payload string) string { return `{"subject": "jobs.a", "payload": ` + payload + `}` }

const secret = "hunter2"

// The rows of the catalogue of bad input: each answer names the thing and the
// rule, as a problem with a code, and repeats nothing that was sent.
func TestHandler_AnswersBadInputWithAProblem(t *testing.T) {
	t.Parallel()
	s := open(t)
	id := s.post(job)
	for name, tt := range map[string]struct {
		method, path, body string
		headers            []string
		code               int
		want               string
	}{
		"text":                     {"POST", "/jobs", job, []string{"Content-Type: text/plain"}, 415, "content_type"},
		"no content type":          {"POST", "/jobs", job, []string{"Content-Type: "}, 415, "content_type"},
		"form":                     {"POST", "/jobs", job, []string{"Content-Type: multipart/form-data; boundary=x"}, 415, "content_type"},
		"gzip":                     {"POST", "/jobs", job, []string{"Content-Encoding: gzip"}, 415, "content_encoding"},
		"large body":               {"POST", "/jobs", with(`"` + strings.Repeat("x", 1<<20) + `"`), nil, 413, "body_too_large"},
		"large payload":            {"POST", "/jobs", with(`"` + strings.Repeat("x", 900_000) + `"`), nil, 422, "payload is at most 900000 bytes"},
		"empty body":               {"POST", "/jobs", " ", nil, 400, "is not valid JSON"},
		"no body":                  {"POST", "/jobs", "", nil, 400, "invalid_request"},
		"array":                    {"POST", "/jobs", "[]", nil, 400, "not a JSON object"},
		"null":                     {"POST", "/jobs", "null", nil, 400, "not a JSON object"},
		"trailing data":            {"POST", "/jobs", job + `{"hunter2": 1}`, nil, 400, "text follows"},
		"byte order mark":          {"POST", "/jobs", "\ufeff" + job, nil, 400, "byte order mark"},
		"bad UTF-8":                {"POST", "/jobs", with("\"\xff\""), nil, 400, "not UTF-8"},
		"duplicate":                {"POST", "/jobs", `{"payload": 1, "payload": 2}`, nil, 400, "has a member twice"},
		"duplicate inside":         {"POST", "/jobs", with(`{"a": [{"b": 1, "b": 2}]}`), nil, 400, `"/payload/a/0"`},
		"duplicate by escape":      {"POST", "/jobs", `{"payload": 1, "p\u0061yload": 2}`, nil, 400, "has a member twice"},
		"deep":                     {"POST", "/jobs", with(deep(10_001)), nil, 400, "nests deeper than 200 levels"},
		"very deep":                {"POST", "/jobs", with(deep(100_000)), nil, 400, "nests deeper than 200 levels"},
		"unknown member":           {"POST", "/jobs", `{"payload": 1, "hunter2": 1}`, nil, 400, "a member is unknown; known are subject"},
		"other case":               {"POST", "/jobs", `{"Subject": "jobs.a", "payload": 1}`, nil, 400, "a member is unknown"},
		"wrong type":               {"POST", "/jobs", `{"subject": 17, "payload": 1}`, nil, 400, `"/subject"`},
		"NaN":                      {"POST", "/jobs", with("NaN"), nil, 400, "is not valid JSON"},
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
		"long idempotency key":     {"POST", "/jobs", job, []string{"Idempotency-Key: " + strings.Repeat("x", 1024)}, 400, "invalid_idempotency_key"},
		"idempotency key of bytes": {"POST", "/jobs", job, []string{"Idempotency-Key: \u00e4"}, 400, "invalid_idempotency_key"},
		"limit 0":                  {"GET", "/dead?limit=0", "", nil, 422, `query.limit`},
		"limit -1":                 {"GET", "/dead?limit=-1", "", nil, 422, `query.limit`},
		"limit 1e9":                {"GET", "/dead?limit=1000000000", "", nil, 422, `query.limit`},
		"limit abc":                {"GET", "/dead?limit=abc", "", nil, 422, `query.limit`},
		"cursor":                   {"GET", "/dead?cursor=aHVudGVyMg", "", nil, 400, "is not a cursor"},
		"unknown parameter":        {"GET", "/dead?hunter=2", "", nil, 422, "unknown query parameter"},
		"redrive limit":            {"POST", "/dead/redrive", `{"limit": 501}`, nil, 400, `"/limit"`},
		"redrive typo":             {"POST", "/dead/redrive", `{"subjct": "x"}`, nil, 400, "a member is unknown"},
		"wait":                     {"GET", "/jobs/" + id + "?wait=soon", "", nil, 400, "not a duration"},
		"negative wait":            {"GET", "/jobs/" + id + "?wait=-1s", "", nil, 400, "not a duration"},
		"path traversal":           {"GET", "/jobs/..%2f..%2fetc%2fpasswd", "", nil, 404, "an ID is a UUID"},
		"NUL in path":              {"GET", "/jobs/%00", "", nil, 404, "an ID is a UUID"},
		"SQL in path":              {"GET", "/jobs/'%3b%20drop", "", nil, 404, "an ID is a UUID"},
		"300 digits":               {"GET", "/jobs/" + strings.Repeat("1", 300), "", nil, 404, "an ID is a UUID"},
		"braces":                   {"GET", "/jobs/%7b" + id + "%7d", "", nil, 404, "an ID is a UUID"},
		"unknown job":              {"GET", "/jobs/01890a5d-ac96-774b-bcce-b302099a8057", "", nil, 404, "no job has this ID"},
		"unknown dead letter":      {"POST", "/dead/01890a5d-ac96-774b-bcce-b302099a8057/redrive", "", nil, 404, "no job has this ID"},
		"method":                   {"PUT", "/jobs", "", nil, 405, "method_not_allowed"},
		"options":                  {"OPTIONS", "/jobs", "", nil, 405, "method_not_allowed"},
		"trace":                    {"TRACE", "/jobs/" + id, "", nil, 405, "method_not_allowed"},
		"unknown path":             {"GET", "/jobs/" + id + "/hunter2", "", nil, 404, "not_found"},
		"pprof":                    {"GET", "/debug/pprof", "", nil, 404, "not_found"},
		"forged host":              {"GET", "/jobs/" + id, "", []string{"Host: evil.example"}, 403, "host_not_allowed"},
		"other site":               {"POST", "/jobs", job, []string{"Sec-Fetch-Site: cross-site"}, 403, "cross_site"},
		"other origin":             {"DELETE", "/jobs/" + id, "", []string{"Origin: https://evil.example"}, 403, "cross_site"},
		"token nobody needs":       {"GET", "/jobs/" + id, "", []string{"Authorization: Bearer " + secret}, 401, "unauthorized"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := s.do(tt.method, tt.path, tt.body, append([]string{"X-Forwarded-For: 127.0.0.1"}, tt.headers...)...)
			if a.code != tt.code || !strings.Contains(a.body, tt.want) || a.header.Get("Content-Type") != "application/problem+json" ||
				a.field("code") == "" || (a.code == 405) != (a.header.Get("Allow") != "") {
				t.Errorf("%s %s = %d %s %s, want a problem: %d %q", tt.method, tt.path[:min(60, len(tt.path))], a.code, a.header, a.body, tt.code, tt.want)
			}
			if strings.Contains(a.body, secret) || len(a.body) > 2000 {
				t.Errorf("the answer repeats what was sent: %.300s", a.body)
			}
		})
	}
	t.Cleanup(func() { // after the parallel rows
		if strings.Contains(s.log.String(), secret) {
			t.Errorf("the log repeats what was sent: %s", s.log)
		}
	})
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

func TestHandler_AsksForATokenOnceThereIsOne(t *testing.T) {
	t.Parallel()
	s := open(t)
	id := s.post(job)
	conn, err := pgx.ConnectConfig(t.Context(), s.db.Config().ConnConfig)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(t.Context()) })
	reader, err := api.CreateToken(t.Context(), conn, "reader", []string{api.ScopeRead}, 0)
	if err != nil {
		t.Fatal(err)
	}
	expired, err := api.CreateToken(t.Context(), conn, "expired", []string{api.ScopeRead}, time.Nanosecond)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		method, path, authorization string
		code                        int
	}{
		"none":        {"GET", "/jobs/" + id, "", 401},
		"empty":       {"GET", "/jobs/" + id, "Bearer ", 401},
		"wrong":       {"GET", "/jobs/" + id, "Bearer " + strings.Repeat("x", 59), 401},
		"short":       {"GET", "/jobs/" + id, "Bearer x", 401},
		"basic":       {"GET", "/jobs/" + id, "Basic " + reader, 401},
		"expired":     {"GET", "/jobs/" + id, "Bearer " + expired, 401},
		"in query":    {"GET", "/jobs/" + id + "?access_token=" + reader, "", 401},
		"events":      {"GET", "/jobs/" + id + "/events", "", 401},
		"good":        {"GET", "/jobs/" + id, "Bearer " + reader, 200},
		"other scope": {"POST", "/jobs", "Bearer " + reader, 403},
		"operate":     {"POST", "/dead/" + id + "/redrive", "Bearer " + reader, 403},
		"document":    {"GET", "/openapi.json", "", 200},
	} {
		body := ""
		if tt.path == "/jobs" {
			body = job
		}
		a := s.do(tt.method, tt.path, body, "Authorization: "+tt.authorization)
		if a.code != tt.code || strings.Contains(a.body, reader) {
			t.Errorf("%s: %d %s, want %d", name, a.code, a.body, tt.code)
		}
	}
	if err := api.RevokeToken(t.Context(), conn, "reader"); err != nil {
		t.Fatal(err)
	}
	if a := s.do("GET", "/jobs/"+id, "", "Authorization: Bearer "+reader); a.code != 401 || a.header.Get("WWW-Authenticate") != "Bearer" {
		t.Errorf("revoked: %d %s, want 401", a.code, a.body)
	}
	if n := s.count(`SELECT count(*) FROM jetbox.api_token t WHERE t::text LIKE '%' || $1 || '%'`, reader[7:]); n != 0 {
		t.Error("the table shows the token")
	}
}

// Keys say nothing to another token.
func TestPost_KeepsTokensKeysApart(t *testing.T) {
	t.Parallel()
	s := open(t)
	conn, err := pgx.ConnectConfig(t.Context(), s.db.Config().ConnConfig)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(t.Context()) })
	ids := map[string]bool{}
	for _, name := range []string{"a", "b"} {
		token, err := api.CreateToken(t.Context(), conn, name, []string{api.ScopeProduce}, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		ids[s.do("POST", "/jobs", job, "Authorization: Bearer "+token, "Idempotency-Key: k").field("id")] = true
	}
	if len(ids) != 2 {
		t.Errorf("ids = %v, want two jobs", ids)
	}
}

func TestDocument_IsWhatTheHandlersAnswer(t *testing.T) {
	t.Parallel()
	s := open(t)
	a := s.do("GET", "/openapi.json", "")
	var doc struct {
		OpenAPI    string
		Paths      map[string]map[string]struct{ OperationID string }
		Components struct{ Schemas map[string]any }
	}
	if err := json.Unmarshal([]byte(a.body), &doc); err != nil || !strings.HasPrefix(doc.OpenAPI, "3.1") {
		t.Fatalf("document = %.200s, %v", a.body, err)
	}
	n := 0
	for _, item := range doc.Paths {
		n += len(item)
	}
	if n != 7 {
		t.Errorf("the document has %d operations, want 7", n)
	}
	for _, line := range strings.Split(a.body, `"$ref": "#/components/schemas/`)[1:] {
		name, _, _ := strings.Cut(line, `"`)
		if doc.Components.Schemas[name] == nil {
			t.Errorf("schema %s is referred to and missing", name)
		}
	}
	if d := s.do("GET", "/docs", ""); d.code != 200 || !strings.Contains(d.body, "POST /jobs") || strings.Contains(d.body, "<script") ||
		!strings.Contains(d.header.Get("Content-Security-Policy"), "default-src 'none'") {
		t.Errorf("docs = %d %s, want a page without scripts", d.code, d.header)
	}
}

func send(t *testing.T, to io.Writer, text string) {
	t.Helper()
	if _, err := io.WriteString(to, text); err != nil {
		t.Fatal(err)
	}
}
