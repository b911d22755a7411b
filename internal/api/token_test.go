package api_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/jetboxhq/jetbox/integration/testenv"
	"github.com/jetboxhq/jetbox/internal/api"
)

// operator is a connection of the person who makes tokens.
func (s server) operator() *pgx.Conn {
	s.t.Helper()
	conn, err := pgx.ConnectConfig(s.t.Context(), s.db.Config().ConnConfig)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func (s server) token(conn *pgx.Conn, name, scope string, lifetime time.Duration) string {
	s.t.Helper()
	var token string
	err := pgx.BeginFunc(s.t.Context(), conn, func(tx pgx.Tx) (err error) {
		token, err = api.CreateToken(s.t.Context(), tx, name, []string{scope}, lifetime)
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return token
}

// as sends a request with an Authorization header, and a job where one is made.
func (s server) as(authorization, method, path string) answer {
	s.t.Helper()
	body := ""
	if path == "/jobs" {
		body = job
	}
	return s.do(method, path, body, "Authorization: "+authorization)
}

func TestHandler_AsksForATokenOnceThereIsOne(t *testing.T) {
	t.Parallel()
	s := open(t)
	id, conn := s.post(job), s.operator()
	reader, expired := s.token(conn, "reader", api.ScopeRead, 0), s.token(conn, "expired", api.ScopeRead, time.Nanosecond)
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
		"payload":     {"GET", "/dead/" + id, "Bearer " + reader, 403},
		"document":    {"GET", "/openapi.json", "", 200},
	} {
		if a := s.as(tt.authorization, tt.method, tt.path); a.code != tt.code || strings.Contains(a.body, reader) {
			t.Errorf("%s: %d %s, want %d", name, a.code, a.body, tt.code)
		}
	}
}

func TestToken_IsKeptAsAHashAndEndsWhenItIsRevoked(t *testing.T) {
	t.Parallel()
	s := open(t)
	id, conn := s.post(job), s.operator()
	reader := s.token(conn, "reader", api.ScopeRead, 0)
	if n := s.count(`SELECT count(*) FROM jetbox.api_token t WHERE t::text LIKE '%' || $1 || '%'`, reader[7:]); n != 0 {
		t.Error("the table shows the token")
	}
	if a := s.as("Bearer "+reader, "GET", "/jobs/"+id); a.code != http.StatusOK {
		t.Errorf("GET = %d %s, want 200", a.code, a.body)
	}
	if err := pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error { return api.RevokeToken(t.Context(), tx, "reader") }); err != nil {
		t.Fatal(err)
	}
	if a := s.as("Bearer "+reader, "GET", "/jobs/"+id); a.code != http.StatusUnauthorized || a.header.Get("WWW-Authenticate") != "Bearer" {
		t.Errorf("revoked: %d %s, want 401", a.code, a.body)
	}
}

// Who guesses is told to wait, and keeps nobody out who shares the address and
// has a token that was right before.
func TestHandler_SlowsDownWhoSendsWrongTokens(t *testing.T) {
	t.Parallel()
	s := open(t)
	id, conn := s.post(job), s.operator()
	reader, late := s.token(conn, "reader", api.ScopeRead, 0), s.token(conn, "late", api.ScopeRead, 0)
	if a := s.as("Bearer "+reader, "GET", "/jobs/"+id); a.code != http.StatusOK {
		t.Fatalf("GET = %d %s, want 200", a.code, a.body)
	}
	code, tries := 0, 0
	for ; code != http.StatusTooManyRequests && tries < 500; tries++ {
		a := s.as("Bearer guess", "GET", "/jobs/"+id)
		if code = a.code; code == http.StatusTooManyRequests && (a.header.Get("Retry-After") == "" || a.field("code") != "too_many_failures") {
			t.Errorf("answer = %s %s, want when to come again", a.header, a.body)
		}
	}
	if tries < 20 || code != http.StatusTooManyRequests {
		t.Errorf("%d after %d wrong tokens, want 429, and not before the 20th", code, tries)
	}
	if a := s.as("Bearer "+reader, "GET", "/jobs/"+id); a.code != http.StatusOK {
		t.Errorf("a known token: %d %s, want 200", a.code, a.body)
	}
	testenv.Eventually(t, "a token to be looked at again", func() bool { return s.as("Bearer "+late, "GET", "/jobs/"+id).code == http.StatusOK })
}

// Keys say nothing to another token.
func TestPost_KeepsTokensKeysApart(t *testing.T) {
	t.Parallel()
	s := open(t)
	conn, ids := s.operator(), map[string]bool{}
	for _, name := range []string{"a", "b"} {
		ids[s.do("POST", "/jobs", job, "Authorization: Bearer "+s.token(conn, name, api.ScopeProduce, time.Hour), "Idempotency-Key: k").field("id")] = true
	}
	if len(ids) != 2 {
		t.Errorf("ids = %v, want two jobs", ids)
	}
}
