package handlers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/jetboxhq/jetbox/inbox"
)

// HTTPConfig says what an HTTP handler calls.
type HTTPConfig struct {
	// URL takes a POST for each message.
	URL string
	// Header goes with each request, over headers of the message. Nil means none.
	Header http.Header
	// AllowPrivate lets a public name resolve to a private address.
	AllowPrivate bool
}

// HTTP handles messages by calling an endpoint.
type HTTP struct {
	url    string
	host   string
	header http.Header
	client *http.Client
}

// NewHTTP returns a handler, or every mistake in cfg.
func NewHTTP(cfg HTTPConfig) (*HTTP, error) {
	u, err := parseURL(cfg.URL)
	if err := errors.Join(err, checkHeader(cfg.Header)); err != nil {
		return nil, err
	}
	g := guard{private: cfg.AllowPrivate || saysPrivate(u.Hostname())}
	return &HTTP{
		url: u.String(), host: u.Host, header: cfg.Header,
		client: &http.Client{
			Transport:     g.transport(),
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// Close ends the connections that wait for another message.
func (h *HTTP) Close() { h.client.CloseIdleConnections() }

// Call posts msg and returns what the endpoint answered.
func (h *HTTP) Call(ctx context.Context, msg inbox.Message[[]byte]) (json.RawMessage, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.url, bytes.NewReader(msg.Payload))
	if err != nil {
		return nil, fmt.Errorf("http %s: request: %w", h.host, err)
	}
	h.setHeader(req.Header, msg)
	res, err := h.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("http %s: %w", h.host, withoutURL(err))
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxResult+1)) // read whole, a connection serves again
	if verdict := judge(res); verdict != nil {
		return nil, fmt.Errorf("http %s: %w", h.host, verdict)
	}
	if err != nil {
		return nil, fmt.Errorf("http %s: read the answer: %w", h.host, err)
	}
	return result(body)
}

// withoutURL takes the URL out of a client's error: its query may be a secret.
func withoutURL(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

func (h *HTTP) setHeader(header http.Header, msg inbox.Message[[]byte]) {
	for name, values := range msg.Headers {
		if !ours(name) {
			header[http.CanonicalHeaderKey(name)] = values
		}
	}
	for name, values := range h.header {
		header[name] = values
	}
	header.Set("Content-Type", contentType(msg))
	header.Set("User-Agent", "jetbox")
	header.Set("Idempotency-Key", msg.IdempotencyKey())
	header.Set("Jetbox-Message-Id", msg.ID.String())
	header.Set("Jetbox-Subject", msg.Subject)
	header.Set("Jetbox-Attempt", strconv.Itoa(msg.Attempt))
	if msg.Key != "" {
		header.Set("Jetbox-Key", msg.Key)
	}
}

// own are the headers that jetbox sets, or that belong to one connection.
var own = []string{
	"connection", "content-length", "content-type", "expect", "host", "idempotency-key", "keep-alive",
	"proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding",
	"upgrade", "user-agent",
}

func ours(name string) bool {
	name = strings.ToLower(name)
	return slices.Contains(own, name) || strings.HasPrefix(name, "jetbox-")
}

func checkHeader(header http.Header) error {
	var errs []error
	for name, values := range header {
		switch {
		case !httpguts.ValidHeaderFieldName(name):
			errs = append(errs, fmt.Errorf("%q is not the name of a header", name))
		case ours(name):
			errs = append(errs, fmt.Errorf("header %s is set by jetbox: leave it out", name))
		case !httpguts.ValidHeaderFieldValue(strings.Join(values, "")):
			errs = append(errs, fmt.Errorf("header %s has a value that a header cannot have, such as a line break", name))
		}
	}
	return errors.Join(errs...)
}

// parseURL quotes nothing of a URL that it refuses.
func parseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "":
		return nil, errors.New("need a URL such as https://billing.example.com/hook")
	case u.User != nil:
		return nil, errors.New("no user and password in a URL: use headers_from_env")
	case u.Fragment != "":
		return nil, errors.New("a URL's part after # is never sent: leave it out")
	}
	return u, literal(u.Hostname())
}

// judge says what an answer's status means: nil is done.
func judge(res *http.Response) error {
	code := res.StatusCode
	err := fmt.Errorf("answered %d %s", code, http.StatusText(code))
	switch {
	case code >= 200 && code < 300:
		return nil
	case code >= 300 && code < 400:
		return inbox.Permanent(fmt.Errorf("%w: redirects are not followed, name the final URL", err))
	case code < 500 && !slices.Contains([]int{http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests}, code):
		return inbox.Permanent(err)
	}
	if d, ok := retryAfter(res.Header.Get("Retry-After")); ok {
		return inbox.RetryAfter(d, err)
	}
	return err
}

// maxRetryAfter bounds what an endpoint may ask for, as the worker does its own
// delays: messages that wait take the places of others, of every subject.
const maxRetryAfter = 5 * time.Minute

// retryAfter reads the header: seconds, or a date.
func retryAfter(text string) (time.Duration, bool) {
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return min(time.Duration(seconds)*time.Second, maxRetryAfter), true
	}
	at, err := http.ParseTime(text)
	return min(max(time.Until(at), 0), maxRetryAfter), err == nil
}
