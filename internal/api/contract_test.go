package api_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"
	"github.com/pb33f/libopenapi-validator/config"

	"github.com/jetboxhq/jetbox/internal/api"
)

// contract is the API's own OpenAPI document, which every request that a test
// sends with success, and every answer, must keep to.
type contract struct {
	validator.Validator
	paths []string
}

func newContract(t *testing.T, a *api.API) contract {
	t.Helper()
	w := httptest.NewRecorder()
	a.Handler().ServeHTTP(w, httptest.NewRequest("GET", "http://localhost/openapi.json", nil))
	doc, err := libopenapi.NewDocument(w.Body.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	// Who may do what is said in the document; whether all may is not.
	v, errs := validator.NewValidator(doc, config.WithoutSecurityValidation())
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	t.Cleanup(v.Release)
	model, err := doc.BuildV3Model()
	if err != nil {
		t.Fatal(err)
	}
	c := contract{Validator: v}
	for path := range model.Model.Paths.PathItems.KeysFromOldest() {
		c.paths = append(c.paths, path)
	}
	return c
}

// covers reports whether the document has the path: others are static pages, or
// none at all.
func (c contract) covers(path string) bool {
	have := strings.Split(path, "/")
	return slices.ContainsFunc(c.paths, func(p string) bool {
		want := strings.Split(p, "/")
		return slices.EqualFunc(have, want, func(h, w string) bool { return h == w || strings.HasPrefix(w, "{") })
	})
}

// check fails the test where request or answer differ from the document.
func (c contract) check(t *testing.T, method, path, body string, header http.Header, a answer) {
	t.Helper()
	// The validator's numbers end at float64's largest, and the API's do not.
	req := httptest.NewRequest(method, path, strings.NewReader(strings.ReplaceAll(body, "1e999", "1e99")))
	req.Header = header.Clone()
	if !c.covers(req.URL.Path) || a.code == http.StatusMethodNotAllowed {
		return
	}
	if ok, errs := c.ValidateHttpRequestSync(req); !ok && a.code < 300 {
		t.Errorf("%s %s with %s was taken, though the document refuses it: %v", method, path, body, errs[0])
	}
	res := &http.Response{StatusCode: a.code, Header: a.header, Body: io.NopCloser(strings.NewReader(a.body))}
	if ok, errs := c.ValidateHttpResponse(req, res); !ok {
		t.Errorf("%s %s = %d %s, which the document does not have: %v", method, path, a.code, a.body, errs[0])
	}
}

func TestDocument_IsValidOpenAPI(t *testing.T) {
	t.Parallel()
	s := open(t)
	if ok, errs := s.contract.ValidateDocument(); !ok {
		t.Errorf("document = %v, want valid OpenAPI 3.1", errs)
	}
	if a := s.do("GET", "/openapi.json", ""); !strings.Contains(a.body, `"openapi": "3.1`) || len(s.contract.paths) != 7 {
		t.Errorf("document = %.100s with paths %v, want OpenAPI 3.1 and 7", a.body, s.contract.paths)
	}
	if !s.contract.covers("/jobs/x/events") || s.contract.covers("/jobs/x/y") {
		t.Error("the contract does not know its paths")
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
