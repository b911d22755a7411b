// Package api is the jobs API: HTTP for those who do not speak SQL.
//
// A job that was answered with 202 is committed to the outbox, and becomes
// exactly one message however often the request is repeated with the same
// Idempotency-Key within a day. Accepting one needs Postgres and nothing else.
// Without that key a repeated request is a second job.
//
// A request passes the guard (host, origin, content type), its token's scope,
// and one transaction. Those who wait for a job's end share one query.
package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"
)

// Config tunes an API. The zero value is ready for production.
type Config struct {
	// DefaultSubject is for a job that names none. Empty makes the subject required.
	DefaultSubject string
	// Consumers are skipped by a cancelled job. None means worker.
	Consumers []string
	// Open lets anyone in while no token has ever been made. It is for an address
	// that only this machine reaches.
	Open bool
	// AnyHost lets a web page of any name reach an open API. False answers to
	// localhost and IP addresses alone while Open.
	AnyHost bool
	// Version is shown in the OpenAPI document. Empty means unknown.
	Version string
	// Logger receives what an operator should see. Nil discards it.
	Logger *slog.Logger
}

// API answers requests. Run must run beside it.
type API struct {
	db       *pgxpool.Pool
	cfg      Config
	log      *slog.Logger
	watcher  *watcher
	throttle *throttle
	mux      *http.ServeMux
	huma     huma.API
}

// MaxConns is how many connections the API needs, however many clients wait.
const MaxConns = 4

// New returns an API over db.
func New(db *pgxpool.Pool, cfg Config) (*API, error) {
	if db == nil {
		return nil, errors.New("api: no Postgres pool")
	}
	cfg.Version = cmp.Or(cfg.Version, "unknown")
	if len(cfg.Consumers) == 0 {
		cfg.Consumers = []string{"worker"}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	a := &API{db: db, cfg: cfg, log: cfg.Logger, watcher: newWatcher(db, cfg.Logger), throttle: newThrottle(), mux: http.NewServeMux()}
	a.routes()
	return a, nil
}

// Run serves those who wait and removes what has expired, until ctx is done.
func (a *API) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.watcher.run(ctx) })
	g.Go(func() error { return a.upkeep(ctx) })
	return g.Wait()
}

// Ready reports whether the database answers.
func (a *API) Ready(ctx context.Context) error {
	if err := a.db.Ping(ctx); err != nil {
		return fmt.Errorf("api: %w", err)
	}
	return nil
}

// Mount adds the API to mux.
func (a *API) Mount(mux *http.ServeMux) {
	h := a.Handler()
	for _, prefix := range []string{"/jobs", "/jobs/", "/dead", "/dead/", "/openapi.json", "/docs"} {
		mux.Handle(prefix, h)
	}
}

// routes registers every operation. The document is complete before the first
// request.
func (a *API) routes() {
	cfg := huma.DefaultConfig("jetbox jobs API", a.cfg.Version)
	cfg.OpenAPIPath, cfg.DocsPath, cfg.SchemasPath, cfg.CreateHooks = "", "", "", nil
	cfg.RejectUnknownQueryParameters = true
	cfg.Transformers = []huma.Transformer{asProblem}
	cfg.Components.SecuritySchemes = map[string]*huma.SecurityScheme{"token": {Type: "http", Scheme: "bearer"}}
	a.huma = humago.New(a.mux, cfg)
	a.huma.UseMiddleware(a.authorize)
	a.jobRoutes()
	a.deadRoutes()
	a.docRoutes()
}

// operation is what all of them have in common.
func (a *API) operation(scope, id, method, path, summary string, status int) huma.Operation {
	problem := a.huma.OpenAPI().Components.Schemas.Schema(typeOfProblem, true, "Problem")
	return huma.Operation{
		OperationID: id, Method: method, Path: path, Summary: summary, DefaultStatus: status,
		Security: []map[string][]string{{"token": {scope}}},
		Metadata: map[string]any{scopeKey: scope},
		Responses: map[string]*huma.Response{"default": {
			Description: "A problem (RFC 9457)",
			Content:     map[string]*huma.MediaType{problemType: {Schema: problem}},
		}},
	}
}

// dbTimeout is how long one request may take, most of which is its turn for a
// connection when many come at once.
const dbTimeout = 15 * time.Second

func withTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, dbTimeout, errors.New("the database took too long"))
}
