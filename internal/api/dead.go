package api

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/jetboxhq/jetbox/internal/deadletter"
	"github.com/jetboxhq/jetbox/internal/operator"
)

type listDeadInput struct {
	Consumer string `query:"consumer"`
	Subject  string `query:"subject"`
	Reason   string `query:"reason" doc:"A part of the reason"`
	Limit    int    `query:"limit" default:"100" minimum:"1" maximum:"1000"`
	Cursor   string `query:"cursor" doc:"The next of the page before"`
}

type listDeadOutput struct {
	Body struct {
		Letters []deadletter.Summary `json:"letters"`
		Next    string               `json:"next,omitempty" doc:"The cursor of the next page; absent on the last"`
	}
}

type letterInput struct {
	ID string `path:"id" doc:"The message's ID, a UUID"`
}

type getDeadOutput struct {
	Body struct {
		Letters []deadletter.Full `json:"letters" doc:"One for each consumer that gave up"`
	}
}

// Redrive is the body of POST /dead/redrive.
type Redrive struct {
	Consumer string     `json:"consumer,omitempty"`
	Subject  string     `json:"subject,omitempty"`
	Reason   string     `json:"reason,omitempty" doc:"A part of the reason"`
	Before   *time.Time `json:"before,omitempty" doc:"Letters that died before; give the answer's before in the next request, or those that die again come again"`
	Limit    int        `json:"limit,omitempty" minimum:"1" maximum:"500" doc:"At most so many in one request; 100 if absent"`
	// Without it, as many as a request takes would hide all that died later.
	Except []uuid.UUID `json:"except,omitempty" maxItems:"1000" doc:"Not these messages, such as those that the answers so far refused"`
}

const maxExcept = 1000

type redriveManyInput struct {
	RawBody []byte `contentType:"application/json"`
}

type redriveOutput struct {
	Body operator.Status
}

type redriveManyOutput struct {
	Body struct {
		operator.Outcome
		More   bool      `json:"more" doc:"Repeat the request for the rest"`
		Before time.Time `json:"before"`
	}
}

func (a *API) deadRoutes() {
	huma.Register(a.huma, a.operation(ScopeRead, "list-dead", http.MethodGet, "/dead", "List dead letters, the latest first", http.StatusOK), a.listDead)
	huma.Register(a.huma, a.operation(ScopeOperate, "get-dead", http.MethodGet, "/dead/{id}", "See a message's dead letters whole, with payload and every error", http.StatusOK), a.getDead)
	huma.Register(a.huma, a.operation(ScopeOperate, "redrive", http.MethodPost, "/dead/{id}/redrive", "Send a dead letter out again", http.StatusAccepted), a.redrive)
	op := a.operation(ScopeOperate, "redrive-many", http.MethodPost, "/dead/redrive", "Send dead letters out again, a batch a request", http.StatusOK)
	op.SkipValidateBody, op.MaxBodyBytes, op.BodyReadTimeout = true, maxBody+1, bodyTimeout
	huma.Register(a.huma, op, a.redriveMany)
	doc := a.huma.OpenAPI()
	doc.Paths["/dead/redrive"].Post.RequestBody.Content["application/json"].Schema = doc.Components.Schemas.Schema(reflect.TypeFor[Redrive](), true, "Redrive")
}

func (a *API) listDead(ctx context.Context, in *listDeadInput) (*listDeadOutput, error) {
	after, err := parseCursor(in.Cursor)
	if err != nil {
		return nil, err
	}
	work, cancel := withTimeout(ctx)
	defer cancel()
	f := deadletter.Filter{Consumer: in.Consumer, Subject: in.Subject, Reason: in.Reason}
	list, err := deadletter.List(work, a.db, f, after, in.Limit)
	if err != nil {
		return nil, a.fail(ctx, err)
	}
	out := &listDeadOutput{}
	out.Body.Letters = list
	if len(list) == in.Limit {
		out.Body.Next = cursor(list[len(list)-1])
	}
	return out, nil
}

// getDead shows payloads, which other operations never do.
func (a *API) getDead(ctx context.Context, in *letterInput) (*getDeadOutput, error) {
	id, err := parseID(in.ID)
	if err != nil {
		return nil, err
	}
	work, cancel := withTimeout(ctx)
	defer cancel()
	out := &getDeadOutput{}
	if out.Body.Letters, err = deadletter.Show(work, a.db, id); err != nil {
		return nil, a.fail(ctx, err)
	}
	if len(out.Body.Letters) == 0 {
		return nil, problem(http.StatusNotFound, "not_found", "no dead letter has this ID")
	}
	return out, nil
}

func cursor(l deadletter.Summary) string {
	text, err := json.Marshal(deadletter.Place{DiedAt: l.DiedAt, MessageID: l.MessageID, Consumer: l.Consumer})
	if err != nil {
		panic(err) // a time, a UUID and a string always encode
	}
	return base64.RawURLEncoding.EncodeToString(text)
}

func parseCursor(text string) (*deadletter.Place, error) {
	if text == "" {
		return nil, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(text)
	var p deadletter.Place
	if err != nil || json.Unmarshal(raw, &p) != nil || p.MessageID == uuid.Nil {
		return nil, problem(http.StatusBadRequest, "invalid_request", "the cursor is not one that a page before has given").at("cursor", "is not a cursor")
	}
	return &p, nil
}

// redrive answers a repeated request with what has become of the message.
func (a *API) redrive(ctx context.Context, in *letterInput) (*redriveOutput, error) {
	id, err := parseID(in.ID)
	if err != nil {
		return nil, err
	}
	work, cancel := withTimeout(ctx)
	defer cancel()
	f := deadletter.Filter{IDs: []uuid.UUID{id}}
	out, err := operator.Redrive(work, a.db, owner(ctx), f, 100)
	if err != nil {
		return nil, a.fail(ctx, err)
	}
	if len(out.Refused) > 0 {
		return nil, problem(http.StatusUnprocessableEntity, "job_refused", "the message cannot go out again: "+out.Refused[0].Rule)
	}
	s, err := a.status(ctx, id)
	return &redriveOutput{Body: s}, err
}

func (a *API) redriveMany(ctx context.Context, in *redriveManyInput) (*redriveManyOutput, error) {
	f, limit, err := parseRedrive(in.RawBody)
	if err != nil {
		return nil, err
	}
	work, cancel := withTimeout(ctx)
	defer cancel()
	out := &redriveManyOutput{}
	if out.Body.Before, err = operator.Clock(work, a.db); err != nil {
		return nil, a.fail(ctx, err)
	}
	if f.Before.IsZero() {
		f.Before = out.Body.Before
	}
	out.Body.Before = f.Before
	if out.Body.Outcome, err = operator.Redrive(work, a.db, owner(ctx), f, limit); err != nil {
		return nil, a.fail(ctx, err)
	}
	out.Body.More = out.Body.Letters+len(out.Body.Refused) >= limit
	return out, nil
}

func parseRedrive(body []byte) (f deadletter.Filter, limit int, err error) {
	if _, err := parseObject(body, "consumer", "subject", "reason", "before", "limit", "except"); err != nil {
		return f, 0, err
	}
	r := Redrive{Limit: 100}
	if err := json.Unmarshal(body, &r); err != nil {
		return f, 0, badJSON("", "a member has the wrong type")
	}
	if r.Limit < 1 || r.Limit > 500 {
		return f, 0, badJSON("/limit", "is not 1 to 500")
	}
	if len(r.Except) > maxExcept {
		return f, 0, badJSON("/except", fmt.Sprintf("names more than %d messages", maxExcept))
	}
	f = deadletter.Filter{Consumer: r.Consumer, Subject: r.Subject, Reason: r.Reason, Except: r.Except}
	if r.Before != nil {
		f.Before = *r.Before
	}
	return f, r.Limit, nil
}
