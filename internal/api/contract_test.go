package api_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"

	"github.com/jetboxhq/jetbox/internal/api"
)

// contract is the API's own OpenAPI document, which every request that a test
// sends with success, and every answer, must keep to.
type contract struct {
	document *openapi3.T
	router   routers.Router
}

func newContract(t *testing.T, a *api.API) contract {
	t.Helper()
	w := httptest.NewRecorder()
	a.Handler().ServeHTTP(w, httptest.NewRequest("GET", "http://localhost/openapi.json", nil))
	document, err := openapi3.NewLoader().LoadFromData(w.Body.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	router, err := gorillamux.NewRouter(document)
	if err != nil {
		t.Fatal(err)
	}
	return contract{document, router}
}

// check fails the test where request or answer differ from the document.
func (c contract) check(t *testing.T, req *http.Request, body string, a answer) {
	t.Helper()
	in, err := c.request(req, body)
	if errors.Is(err, routers.ErrPathNotFound) || a.code == http.StatusMethodNotAllowed {
		return // a static page, or nothing at all
	}
	if err != nil {
		t.Errorf("%s %s = %d, and the document has no such operation: %v", req.Method, req.URL, a.code, err)
		return
	}
	if err := openapi3filter.ValidateRequest(t.Context(), in); err != nil && a.code < 300 {
		t.Errorf("%s %s with %s was taken, though the document refuses it: %v", req.Method, req.URL, body, err)
	}
	out := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: in, Status: a.code, Header: a.header, Body: io.NopCloser(strings.NewReader(a.body)),
	}
	if err := openapi3filter.ValidateResponse(t.Context(), out); err != nil {
		t.Errorf("%s %s = %d %s, which the document does not have: %v", req.Method, req.URL, a.code, a.body, err)
	}
}

// request is a copy of req, whose body has been read, as the document sees it.
func (c contract) request(req *http.Request, body string) (*openapi3filter.RequestValidationInput, error) {
	req = req.Clone(req.Context())
	req.Body = io.NopCloser(strings.NewReader(body))
	route, path, err := c.router.FindRoute(req)
	// Who may do what is said in the document; whether all may is not.
	open := &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc}
	return &openapi3filter.RequestValidationInput{Request: req, PathParams: path, Route: route, Options: open}, err
}

func TestDocument_IsValidOpenAPI(t *testing.T) {
	t.Parallel()
	s := open(t)
	if err := s.contract.document.Validate(t.Context()); err != nil {
		t.Errorf("document = %v, want valid OpenAPI 3.1", err)
	}
	if paths := s.contract.document.Paths.Keys(); !s.contract.document.IsOpenAPI31OrLater() || len(paths) != 7 {
		t.Errorf("document = OpenAPI %s with paths %v, want 3.1 and 7", s.contract.document.OpenAPI, paths)
	}
}

func TestDocs_IsAPageWithoutScripts(t *testing.T) {
	t.Parallel()
	s := open(t)
	d := s.do("GET", "/docs", "")
	if d.code != http.StatusOK || !strings.Contains(d.body, "POST /jobs") || !strings.Contains(d.body, "GET /dead/{id}") ||
		strings.Contains(d.body, "<script") || !strings.Contains(d.header.Get("Content-Security-Policy"), "default-src 'none'") {
		t.Errorf("docs = %d %s, want every operation and no scripts", d.code, d.header)
	}
}
