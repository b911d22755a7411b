package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// Waiting is how many jobs someone waits for.
func (a *API) Waiting() int { return len(a.watcher.ids()) }

// CheckAnswer reports how an answer differs from what the OpenAPI document
// says of the operation that r reached.
func (a *API) CheckAnswer(r *http.Request, code int, contentType string, body []byte) error {
	_, pattern := a.mux.Handler(r)
	method, path, _ := strings.Cut(pattern, " ")
	doc := a.huma.OpenAPI()
	item := doc.Paths[path]
	if item == nil {
		return nil // no operation: the guard's answer, or a static page
	}
	op := map[string]*huma.Operation{"GET": item.Get, "POST": item.Post, "DELETE": item.Delete}[method]
	answer := op.Responses[fmt.Sprint(code)]
	if answer == nil {
		answer = op.Responses["default"]
	}
	if answer == nil || answer.Content[contentType] == nil {
		return fmt.Errorf("%s answers %d %s, which the document does not have", pattern, code, contentType)
	}
	if contentType == "text/event-stream" {
		return nil
	}
	var v any
	if err := json.Unmarshal(body, &v); err != nil {
		return err
	}
	var result huma.ValidateResult
	huma.Validate(doc.Components.Schemas, answer.Content[contentType].Schema, huma.NewPathBuffer(nil, 0), huma.ModeReadFromServer, v, &result)
	if len(result.Errors) > 0 {
		return fmt.Errorf("%s answers %d with a body that its schema refuses: %v", pattern, code, result.Errors)
	}
	return nil
}

// Prune is one turn of the upkeep.
func (a *API) Prune(ctx context.Context) error { return a.prune(ctx) }
