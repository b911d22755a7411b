package api

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"reflect"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/jackc/pgx/v5/pgconn"
)

const problemType = "application/problem+json"

// Problem is an error as RFC 9457 has it. Code is what a program looks at: it
// stays when words change. It never repeats what the client sent.
type Problem struct {
	Type   string   `json:"type" doc:"Always about:blank: see code"`
	Title  string   `json:"title"`
	Status int      `json:"status"`
	Code   string   `json:"code" doc:"Stable, for programs"`
	Detail string   `json:"detail,omitempty" doc:"What is wrong and what to do about it"`
	Errors []Detail `json:"errors,omitempty"`
	// State is that of a job whose state is the problem.
	State string `json:"state,omitempty"`
}

// Detail is one place of a request that is wrong.
type Detail struct {
	Pointer string `json:"pointer" doc:"JSON pointer into the body, or the name of a parameter"`
	Detail  string `json:"detail"`
}

var typeOfProblem = reflect.TypeFor[Problem]()

func problem(status int, code, detail string) *Problem {
	return &Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Code: code, Detail: detail}
}

func (p *Problem) at(pointer, detail string) *Problem {
	p.Errors = append(p.Errors, Detail{pointer, detail})
	return p
}

// Error makes a Problem an error.
func (p *Problem) Error() string { return p.Code + ": " + p.Detail }

// GetStatus is the status of the answer.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType is that of the answer.
func (p *Problem) ContentType(string) string { return problemType }

func (p *Problem) write(w http.ResponseWriter) {
	w.Header().Set("Content-Type", problemType)
	if p.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	if p.Status == http.StatusServiceUnavailable || p.Status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "1")
	}
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // the client has gone: nobody is left to tell
}

// asProblem rewrites huma's own errors, which repeat the values they refuse.
func asProblem(_ huma.Context, _ string, v any) (any, error) {
	e, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	p := problem(e.Status, "invalid_request", "")
	switch e.Status {
	case http.StatusBadRequest:
		if e.Detail == "request body is required" { // its only words that repeat nothing
			p.Detail = "a body is required: send a JSON object, see /docs"
		}
	case http.StatusRequestEntityTooLarge:
		p.Code, p.Detail = "body_too_large", bodyTooLarge
	case http.StatusRequestTimeout:
		p.Code, p.Detail = "body_too_slow", "the body did not arrive in time"
	case http.StatusInternalServerError:
		p.Code, p.Detail = "internal", "the request could not be read to its end"
	}
	for _, d := range e.Errors {
		p = p.at(d.Location, d.Message)
	}
	return p, nil
}

// fail turns what the database said into what a client may know; the log gets
// the rest, but neither a row's values nor a payload.
func (a *API) fail(ctx context.Context, err error) *Problem {
	if p, ok := errors.AsType[*Problem](err); ok {
		return p
	}
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		if p := refusal(e); p != nil {
			return p
		}
		err = errors.New(e.Code + " " + e.ConstraintName + " " + e.Message)
	}
	if !errors.Is(err, context.Canceled) {
		a.log.LogAttrs(ctx, slog.LevelError, "request failed", slog.Any("error", err))
	}
	return problem(http.StatusServiceUnavailable, "database_unavailable",
		"the database did not answer as it should: repeat the request, with its Idempotency-Key")
}

// refusal explains a rule of the tables that a job breaks, by the name of its
// constraint. Postgres' own message could repeat the value.
func refusal(e *pgconn.PgError) *Problem {
	switch e.Code {
	case "22021", "22P05":
		return problem(http.StatusUnprocessableEntity, "invalid_request", "a text holds a zero byte or is not UTF-8: Postgres cannot store it")
	case "23514":
	default:
		return nil
	}
	rule := strings.ReplaceAll(e.ConstraintName, "_", " ")
	for _, field := range []string{"subject", "key", "headers", "payload", "run_at"} {
		if strings.HasPrefix(e.ConstraintName, field+"_") {
			return problem(http.StatusUnprocessableEntity, "job_refused", rule).at("/"+field, rule)
		}
	}
	return problem(http.StatusUnprocessableEntity, "job_refused", rule)
}
