package api

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/jetboxhq/jetbox/internal/operator"
	"github.com/jetboxhq/jetbox/outbox"
)

// Job is the body of POST /jobs.
type Job struct {
	Subject string            `json:"subject,omitempty" maxLength:"200" doc:"The NATS subject, such as jobs.email. Optional where the API has a default."`
	Payload any               `json:"payload" doc:"Any JSON, kept byte for byte."`
	Key     string            `json:"key,omitempty" maxLength:"200" doc:"Jobs of one key are published in order."`
	Headers map[string]string `json:"headers,omitempty" doc:"Travel with the message."`
	RunAt   *time.Time        `json:"run_at,omitempty" doc:"Not before this time."`
}

type createInput struct {
	IdempotencyKey string `header:"Idempotency-Key" doc:"1 to 200 printable ASCII characters. The same key and body within a day are the same job."`
	RawBody        []byte `contentType:"application/json"`
}

type createOutput struct {
	Location string `header:"Location"`
	Body     operator.Status
}

// bodyTimeout is how long a client may take to send a body.
const bodyTimeout = 15 * time.Second

func (a *API) jobRoutes() {
	op := a.operation(ScopeProduce, "create-job", http.MethodPost, "/jobs", "Make a job", http.StatusAccepted)
	op.SkipValidateBody, op.MaxBodyBytes, op.BodyReadTimeout = true, maxBody+1, bodyTimeout
	huma.Register(a.huma, op, a.create)
	doc := a.huma.OpenAPI()
	doc.Paths["/jobs"].Post.RequestBody.Content["application/json"].Schema = doc.Components.Schemas.Schema(reflect.TypeFor[Job](), true, "Job")

	huma.Register(a.huma, a.operation(ScopeRead, "get-job", http.MethodGet, "/jobs/{id}", "See a job, or wait for its end", http.StatusOK), a.get)
	op = a.operation(ScopeRead, "follow-job", http.MethodGet, "/jobs/{id}/events", "Follow a job as server-sent events", http.StatusOK)
	op.Responses["200"] = &huma.Response{
		Description: "An event named status for each change, its data as GET /jobs/{id} answers; the stream ends with the job",
		Content:     map[string]*huma.MediaType{"text/event-stream": {Schema: &huma.Schema{Type: huma.TypeString}}},
	}
	huma.Register(a.huma, op, a.follow)
	huma.Register(a.huma, a.operation(ScopeProduce, "cancel-job", http.MethodDelete, "/jobs/{id}", "Cancel a job that is not done", http.StatusOK), a.cancel)
}

func (a *API) create(ctx context.Context, in *createInput) (*createOutput, error) {
	req, err := a.parse(in)
	if err != nil {
		return nil, err
	}
	work, cancel := withTimeout(ctx)
	defer cancel()
	status, err := a.accept(work, req)
	if err != nil {
		return nil, a.fail(ctx, err)
	}
	return &createOutput{Location: "/jobs/" + status.ID.String(), Body: status}, nil
}

// request is a job that has been read.
type request struct {
	msg   outbox.Message
	runAt *time.Time
	key   string // the Idempotency-Key; empty is none
	hash  []byte // of the body
}

func (a *API) parse(in *createInput) (request, error) {
	members, err := parseObject(in.RawBody, "subject", "payload", "key", "headers", "run_at")
	if err != nil {
		return request{}, err
	}
	sum := sha256.Sum256(in.RawBody)
	r := request{key: in.IdempotencyKey, hash: sum[:], msg: outbox.Message{Subject: a.cfg.DefaultSubject}}
	if err := r.read(members); err != nil {
		return request{}, err
	}
	switch payload, ok := members["payload"]; {
	case !ok:
		return request{}, refused("/payload", "payload is required; it may be null")
	case r.msg.Subject == "":
		return request{}, refused("/subject", "subject is required: this API has no default")
	default:
		r.msg.Payload = payload
	}
	return r, nil
}

func (r *request) read(members map[string]json.RawMessage) error {
	subject, err := member[string](members, "subject", "a string")
	if err != nil {
		return err
	}
	key, err := member[string](members, "key", "a string")
	if err != nil {
		return err
	}
	headers, err := member[map[string]string](members, "headers", "an object of strings")
	if err != nil {
		return err
	}
	if r.runAt, err = member[time.Time](members, "run_at", "a time such as 2026-11-22T10:00:00Z"); err != nil {
		return err
	}
	if subject != nil {
		r.msg.Subject = *subject
	}
	if key != nil {
		r.msg.Key = *key
	}
	if headers != nil {
		r.msg.Headers = *headers
	}
	return r.checkText()
}

// checkText refuses what no Postgres text can hold, before Postgres does.
func (r *request) checkText() error {
	for name, text := range map[string]string{"subject": r.msg.Subject, "key": r.msg.Key} {
		for _, c := range text {
			if c == 0 {
				return refused("/"+name, name+" contains a zero byte")
			}
		}
	}
	return nil
}

func refused(pointer, detail string) *Problem {
	return problem(http.StatusUnprocessableEntity, "job_refused", detail).at(pointer, detail)
}

// oneIdempotencyKey says whether the header is none or one key. An empty one is the
// slip of a client that meant to have one, and of two nobody knows which counts.
func oneIdempotencyKey(values []string) bool {
	return len(values) == 0 || len(values) == 1 && values[0] != "" && isIdempotencyKey(values[0])
}

func isIdempotencyKey(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return len(s) <= 200
}

func parseID(text string) (uuid.UUID, error) {
	id, err := uuid.Parse(text)
	if err != nil || len(text) != 36 {
		return uuid.Nil, problem(http.StatusNotFound, "not_found", "no job has this ID: an ID is a UUID")
	}
	return id, nil
}
