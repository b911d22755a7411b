package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// docs is one page without scripts or anything from elsewhere.
var docs = template.Must(template.New("docs").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{{.Title}}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem; color-scheme: light dark }
code, pre { font: 14px/1.4 ui-monospace, monospace } dt { margin-top: .6rem } h2 { margin-top: 2rem; font-size: 1.1rem }
</style>
<h1>{{.Title}}</h1>
<p>The whole contract: <a href="openapi.json">openapi.json</a> (OpenAPI 3.1). Every error is a problem (RFC 9457) with a stable <code>code</code>.</p>
<pre>curl -i localhost:8080/jobs -H 'Content-Type: application/json' -d '{"subject": "jobs.echo", "payload": {"hello": "world"}}'
curl 'localhost:8080/jobs/ID?wait=5s'</pre>
{{range .Operations}}
<h2><code>{{.Method}} {{.Path}}</code></h2>
<p>{{.Summary}}. Scope: {{.Scope}}.</p>
<dl>{{range .Fields}}<dt><code>{{.Name}}</code> ({{.In}})</dt><dd>{{.Text}}</dd>{{end}}</dl>
{{end}}
</html>
`))

type docOperation struct {
	Method, Path, Summary, Scope string
	Fields                       []docField
}

type docField struct{ Name, In, Text string }

// docRoutes renders the document once all operations are in it.
func (a *API) docRoutes() {
	document, err := json.MarshalIndent(a.huma.OpenAPI(), "", "  ")
	if err != nil {
		panic(fmt.Errorf("encode openapi: %w", err)) // every test fails
	}
	var page bytes.Buffer
	if err := docs.Execute(&page, map[string]any{"Title": a.huma.OpenAPI().Info.Title, "Operations": a.docOperations()}); err != nil {
		panic(fmt.Errorf("render docs: %w", err)) // every test fails
	}
	a.static("/openapi.json", "application/json", document)
	a.static("/docs", "text/html; charset=utf-8", page.Bytes())
}

func (a *API) static(path, contentType string, body []byte) {
	a.mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		_, _ = w.Write(body) // the client has gone: nobody is left to tell
	})
}

func (a *API) docOperations() []docOperation {
	var list []docOperation
	for path, item := range a.huma.OpenAPI().Paths {
		for method, op := range map[string]*huma.Operation{"GET": item.Get, "POST": item.Post, "DELETE": item.Delete} {
			if op != nil {
				list = append(list, a.docOperation(method, path, op))
			}
		}
	}
	slices.SortFunc(list, func(x, y docOperation) int { return strings.Compare(x.Path+x.Method, y.Path+y.Method) })
	return list
}

func (a *API) docOperation(method, path string, op *huma.Operation) docOperation {
	d := docOperation{Method: method, Path: path, Summary: op.Summary, Scope: fmt.Sprint(op.Metadata[scopeKey])}
	for _, p := range op.Parameters {
		d.Fields = append(d.Fields, docField{p.Name, p.In, p.Description})
	}
	if op.RequestBody == nil {
		return d
	}
	schema := a.huma.OpenAPI().Components.Schemas.SchemaFromRef(op.RequestBody.Content["application/json"].Schema.Ref)
	var fields []docField
	for name, s := range schema.Properties {
		fields = append(fields, docField{name, "body", s.Description})
	}
	slices.SortFunc(fields, func(x, y docField) int { return strings.Compare(x.Name, y.Name) })
	d.Fields = append(d.Fields, fields...)
	return d
}
