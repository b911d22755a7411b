package api

import (
	"mime"
	"net"
	"net/http"
	"strings"
	"time"
)

const (
	maxBody      = 1 << 20
	bodyTooLarge = "the body is larger than 1 MiB: keep large data elsewhere and send where it is"
)

// Handler is the whole API behind its guard.
func (a *API) Handler() http.Handler {
	crossOrigin := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Referrer-Policy", "no-referrer")
		if len(r.TransferEncoding) > 0 {
			// A length beside the chunks, which net/http has dropped by now, may have
			// told a proxy of another end: what follows is not read (RFC 9112, 6.1).
			w.Header().Set("Connection", "close")
		}
		if p := a.guard(crossOrigin, r); p != nil {
			p.write(w)
			return
		}
		if r.Method == http.MethodGet && r.ContentLength == 0 {
			// The server's read timeout would end a wait, though nothing is left to
			// read; a body that never comes it should end. A writer that has no deadline
			// needs none taken away.
			_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
		}
		a.route(w, r)
	})
}

// guard refuses what no handler should see.
func (a *API) guard(crossOrigin *http.CrossOriginProtection, r *http.Request) *Problem {
	if err := crossOrigin.Check(r); err != nil {
		return problem(http.StatusForbidden, "cross_site", "the request comes from another web site")
	}
	// A web page whose name is made to resolve to this machine sends its own name.
	if a.cfg.Open && !a.cfg.AnyHost && !isLocal(r.Host) {
		return problem(http.StatusForbidden, "host_not_allowed", "on this machine's own address the API answers to localhost and IP addresses alone: a proxy before it must send Host: localhost")
	}
	if r.Header.Get("Content-Encoding") != "" {
		return problem(http.StatusUnsupportedMediaType, "content_encoding", "send the body as it is, without Content-Encoding")
	}
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if r.Method == http.MethodPost && r.ContentLength != 0 && (err != nil || media != "application/json") {
		return problem(http.StatusUnsupportedMediaType, "content_type", "send Content-Type: application/json")
	}
	if r.Method == http.MethodPost && !oneIdempotencyKey(r.Header.Values("Idempotency-Key")) {
		return problem(http.StatusBadRequest, "invalid_idempotency_key", "an Idempotency-Key is 1 to 200 printable ASCII characters, and comes once: leave the header out if there is none")
	}
	if r.ContentLength > maxBody {
		return problem(http.StatusRequestEntityTooLarge, "body_too_large", bodyTooLarge)
	}
	return nil
}

// isLocal reports whether host is a name that no DNS decides about.
func isLocal(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return host == "localhost" || net.ParseIP(strings.Trim(host, "[]")) != nil
}

// route answers what no pattern matches with a problem instead of plain text.
func (a *API) route(w http.ResponseWriter, r *http.Request) {
	h, pattern := a.mux.Handler(r)
	if pattern != "" {
		a.mux.ServeHTTP(w, r)
		return
	}
	refused := &headOnly{header: http.Header{}}
	h.ServeHTTP(refused, r)
	switch allow := refused.header.Get("Allow"); {
	case allow != "":
		w.Header().Set("Allow", allow)
		problem(http.StatusMethodNotAllowed, "method_not_allowed", "allowed here: "+allow).write(w)
	default:
		problem(http.StatusNotFound, "not_found", "there is nothing at this path: see /docs").write(w)
	}
}

// headOnly keeps an answer's header and drops the rest.
type headOnly struct{ header http.Header }

func (h *headOnly) Header() http.Header         { return h.header }
func (h *headOnly) Write(b []byte) (int, error) { return len(b), nil }
func (h *headOnly) WriteHeader(int)             {}
