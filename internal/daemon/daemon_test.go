package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type service func(ctx context.Context) error

func (s service) Run(ctx context.Context) error { return s(ctx) }

func untilDone(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

func TestRun_ReturnsNilWhenAllStopBecauseTheyWereTold(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Run(ctx, service(untilDone), service(untilDone)); err != nil {
		t.Errorf("Run = %v, want nil", err)
	}
}

func TestRun_StopsTheRestWhenOneFails(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	err := Run(t.Context(), service(untilDone), service(func(context.Context) error { return broken }))
	if !errors.Is(err, broken) {
		t.Errorf("Run = %v, want %v", err, broken)
	}
}

func TestRun_TakesAnEarlyStopForAnError(t *testing.T) {
	t.Parallel()
	err := Run(t.Context(), service(untilDone), service(func(context.Context) error { return nil }))
	if err == nil || !strings.Contains(err.Error(), "stopped early") {
		t.Errorf("Run = %v, want an error that says stopped early", err)
	}
}

func TestHTTP_FinishesRequestsInFlight(t *testing.T) {
	t.Parallel()
	ln, err := Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, shutdown := context.WithCancel(t.Context())
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		shutdown()
		awaitRefusal(ln.Addr().String())
		_, _ = io.WriteString(w, "done")
	})
	stopped := make(chan error, 1)
	go func() { stopped <- HTTP{ln, handler, slog.New(slog.DiscardHandler)}.Run(ctx) }()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Get("http://" + ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, _ := io.ReadAll(res.Body); string(body) != "done" {
		t.Errorf("body = %q, want done", body)
	}
	if err := <-stopped; err != nil {
		t.Errorf("Run = %v, want nil", err)
	}
}

// awaitRefusal returns once addr takes no more connections: the server is
// shutting down while its caller's request is still open.
func awaitRefusal(addr string) {
	for {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return
		}
		conn.Close()
	}
}

func TestListen_NamesThePortInUse(t *testing.T) {
	t.Parallel()
	ln, err := Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, err = Listen(t.Context(), ln.Addr().String())
	if err == nil || !strings.Contains(err.Error(), ln.Addr().String()+" is in use") {
		t.Errorf("Listen = %v, want an error that names %s", err, ln.Addr())
	}
}

func get(t *testing.T, path string, parts ...Part) *httptest.ResponseRecorder {
	t.Helper()
	mux := http.NewServeMux()
	HandleHealth(mux, prometheus.NewRegistry(), parts...)
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w
}

func TestReadyz_NamesThePartThatIsNotReady(t *testing.T) {
	t.Parallel()
	w := get(t, "/readyz",
		Part{"relay", func(context.Context) error { return nil }},
		Part{"worker", func(context.Context) error { return errors.New("no consumer") }})
	var got report
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if w.Code != http.StatusServiceUnavailable || got.Ready || got.Parts["relay"] != "ok" || got.Parts["worker"] != "no consumer" {
		t.Errorf("readyz = %d %+v, want 503 with the worker's reason", w.Code, got)
	}
}

func TestReadyz_IsOKWhenEveryPartIs(t *testing.T) {
	t.Parallel()
	w := get(t, "/readyz", Part{"relay", func(context.Context) error { return nil }})
	if w.Code != http.StatusOK {
		t.Errorf("readyz = %d, want 200", w.Code)
	}
}

func TestHealthz_AsksNoDependency(t *testing.T) {
	t.Parallel()
	w := get(t, "/healthz", Part{"relay", func(context.Context) error { return errors.New("down") }})
	if w.Code != http.StatusOK {
		t.Errorf("healthz = %d, want 200", w.Code)
	}
}

func TestReadyz_AsksEachPartUnderADeadline(t *testing.T) {
	t.Parallel()
	w := get(t, "/readyz", Part{"relay", func(ctx context.Context) error {
		if _, ok := ctx.Deadline(); !ok {
			return errors.New("no deadline")
		}
		return nil
	}})
	if w.Code != http.StatusOK {
		t.Errorf("readyz = %s, want every part to have a deadline", w.Body)
	}
}
