package handlers

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// endpoint answers with answer, at an address that the test may dial.
func endpoint(t *testing.T, answer http.HandlerFunc, change ...func(*HTTPConfig)) *HTTP {
	t.Helper()
	server := httptest.NewServer(answer)
	t.Cleanup(server.Close)
	cfg := HTTPConfig{URL: server.URL + "/hook?token=hunter2"}
	for _, c := range change {
		c(&cfg)
	}
	h, err := NewHTTP(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

func TestHTTP_SendsTheMessageWhole(t *testing.T) {
	t.Parallel()
	var got *http.Request
	var body []byte
	h := endpoint(t, func(w http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
		_, _ = io.WriteString(w, `{"ok": true}`)
	}, func(c *HTTPConfig) { c.Header = http.Header{"Authorization": {"Bearer hunter2"}} })
	msg := message()
	result, err := h.Call(t.Context(), msg)
	if err != nil || string(result) != `{"ok": true}` || string(body) != payload {
		t.Fatalf("Call = %s, %v after body %s", result, err, body)
	}
	if got.Method != http.MethodPost || got.Host != h.host || got.URL.RawQuery != "token=hunter2" {
		t.Errorf("%s %s to %s, want a POST to the URL itself", got.Method, got.URL, got.Host)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/json", "Idempotency-Key": msg.IdempotencyKey(), "Jetbox-Message-Id": msg.ID.String(),
		"Jetbox-Subject": "jobs.bill", "Jetbox-Key": "order 7", "Jetbox-Attempt": "3", "traceparent": "00-aa-bb-01",
		"X-Tenant": "acme", "Authorization": "Bearer hunter2", "Connection": "", "User-Agent": "jetbox",
	} {
		if values := got.Header.Values(name); strings.Join(values, "|") != want {
			t.Errorf("%s: %q, want %q", name, values, want)
		}
	}
}

func TestHTTP_TakesItsVerdictFromTheStatus(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]string{
		200: "done", 202: "done", 204: "done",
		301: "permanent", 302: "permanent", 307: "permanent", 304: "permanent",
		400: "permanent", 401: "permanent", 404: "permanent", 409: "permanent", 410: "permanent", 422: "permanent",
		408: "retry", 425: "retry", 429: "retry", 500: "retry", 502: "retry", 503: "retry", 504: "retry",
		1429: "retry after", 1503: "retry after", // with Retry-After
	} {
		h := endpoint(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "/elsewhere")
			if status > 1000 {
				w.Header().Set("Retry-After", "7")
			}
			w.WriteHeader(status % 1000)
			if status%1000 != 204 && status%1000 != 304 {
				_, _ = io.WriteString(w, `"4242"`)
			}
		})
		_, err := h.Call(t.Context(), message())
		if got := verdict(err); got != want {
			t.Errorf("%d: %s, want %s: %v", status, got, want, err)
		}
		secretive(t, err)
	}
}

func TestRetryAfter_IsSecondsOrADateWithinFiveMinutes(t *testing.T) {
	t.Parallel()
	date := func(d time.Duration) string { return time.Now().Add(d).UTC().Format(http.TimeFormat) }
	for text, want := range map[string]struct{ from, to time.Duration }{
		"0": {0, 0}, "7": {7 * time.Second, 7 * time.Second}, "99999": {5 * time.Minute, 5 * time.Minute},
		date(-time.Minute): {0, 0}, date(48 * time.Hour): {5 * time.Minute, 5 * time.Minute}, date(time.Minute): {20 * time.Second, time.Minute},
	} {
		if got, ok := retryAfter(text); !ok || got < want.from || got > want.to {
			t.Errorf("%s: %v, %v, want %v to %v", text, got, ok, want.from, want.to)
		}
	}
	for _, text := range []string{"", "-1", "1.5", "soon"} {
		if _, ok := retryAfter(text); ok {
			t.Errorf("%q passes for a delay", text)
		}
	}
}

func TestHTTP_FollowsNoRedirect(t *testing.T) {
	t.Parallel()
	calls := 0
	h := endpoint(t, func(w http.ResponseWriter, r *http.Request) {
		calls++
		http.Redirect(w, r, "http://169.254.169.254/", http.StatusFound)
	})
	_, err := h.Call(t.Context(), message())
	if calls != 1 || err == nil || !strings.Contains(err.Error(), "answered 302 Found: redirects are not followed") {
		t.Errorf("%d calls, %v", calls, err)
	}
}

func TestHTTP_UsesAConnectionAgain(t *testing.T) {
	t.Parallel()
	peers := map[string]bool{}
	h := endpoint(t, func(w http.ResponseWriter, r *http.Request) {
		peers[r.RemoteAddr] = true
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = io.WriteString(w, strings.Repeat("x", 100_000))
	})
	for range 5 {
		_, _ = h.Call(t.Context(), message())
	}
	if len(peers) != 1 {
		t.Errorf("5 calls came over %d connections", len(peers))
	}
}

func TestHTTP_RunsAgainWhenTheAnswerIsLost(t *testing.T) {
	t.Parallel()
	closed := endpoint(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	torn := endpoint(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "half")
	})
	for name, h := range map[string]*HTTP{"no answer": closed, "half an answer": torn} {
		_, err := h.Call(t.Context(), message())
		if verdict(err) != "retry" {
			t.Errorf("%s: %v, want another attempt", name, err)
		}
		secretive(t, err)
	}
	reason := errors.New("the worker stops")
	if _, err := closed.Call(done(reason), message()); !errors.Is(err, reason) {
		t.Errorf("Call = %v, want %v", err, reason)
	}
}

func TestNewHTTP_ReportsEveryMistakeAndQuotesNoSecret(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                                    "need a URL such as",
		"billing/hook":                        "need a URL such as",
		"file:///etc/passwd":                  "need a URL such as",
		"http://[::1":                         "need a URL such as",
		"https://ada:hunter2@billing.example": "no user and password",
		"https://billing.example/#hunter2":    "is never sent",
		"http://169.254.169.254/latest":       "address 169.254.169.254 is refused",
		"http://[fe80::1%25eth0]/":            "address fe80::1 is refused",
		"http://0.0.0.0:8080/":                "address 0.0.0.0 is refused",
	} {
		_, err := NewHTTP(HTTPConfig{URL: text, Header: http.Header{"Idempotency-Key": {"x"}, "A b": {"x"}, "X-Secret": {"hunter2\n"}}})
		if err == nil {
			t.Fatalf("%s: no error", text)
		}
		for _, want := range []string{want, "header Idempotency-Key is set by jetbox", `"A b" is not the name`, "header X-Secret has a value"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %q", text, err, want)
			}
		}
		secretive(t, err)
	}
}
