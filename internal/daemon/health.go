package daemon

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Part is something that the daemon needs in order to be of use.
type Part struct {
	Name  string
	Ready func(ctx context.Context) error
}

// HandleHealth adds the three routes that operators ask:
//
//   - /healthz: the process answers. No dependency is checked, or a database
//     that is down would have every process restarted as well.
//   - /readyz: each part works now; 503 names those that do not.
//   - /metrics: for Prometheus.
func HandleHealth(mux *http.ServeMux, metrics prometheus.Gatherer, parts ...Part) {
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		code, report := readiness(r.Context(), parts)
		writeJSON(w, code, report)
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
}

type report struct {
	Ready bool              `json:"ready"`
	Parts map[string]string `json:"parts"`
}

func readiness(ctx context.Context, parts []Part) (int, report) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	r := report{Ready: true, Parts: make(map[string]string, len(parts))}
	for _, p := range parts {
		r.Parts[p.Name] = "ok"
		if err := p.Ready(ctx); err != nil {
			r.Parts[p.Name] = err.Error()
			r.Ready = false
		}
	}
	if !r.Ready {
		return http.StatusServiceUnavailable, r
	}
	return http.StatusOK, r
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // the client has gone: nobody is left to tell
}
