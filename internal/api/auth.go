package api

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/jackc/pgx/v5"
)

const scopeKey = "scope" // in an operation's metadata

type ownerKey struct{}

// anonymous does what no token is needed for.
const anonymous = "anonymous"

// owner names the token of a request.
func owner(ctx context.Context) string {
	name, _ := ctx.Value(ownerKey{}).(string)
	return name
}

// authorize lets a request pass whose token has the operation's scope.
func (a *API) authorize(c huma.Context, next func(huma.Context)) {
	scope, _ := c.Operation().Metadata[scopeKey].(string)
	if scope == "" {
		next(c)
		return
	}
	authorization := c.Header("Authorization")
	hash := hashToken(bearer(authorization))
	if a.throttle.refuses(c.RemoteAddr(), hash) {
		_, w := humago.Unwrap(c)
		errTooMany.write(w)
		return
	}
	name, err := a.identify(c.Context(), authorization, scope)
	switch {
	case errors.Is(err, errUnauthorized):
		a.throttle.wrong(c.RemoteAddr())
	case err == nil && name != anonymous:
		a.throttle.right(hash)
	}
	if err != nil {
		_, w := humago.Unwrap(c)
		a.fail(c.Context(), err).write(w)
		return
	}
	next(huma.WithValue(c, ownerKey{}, name))
}

// bearer is the token of an Authorization header, or empty.
func bearer(authorization string) string {
	kind, secret, _ := strings.Cut(authorization, " ")
	if !strings.EqualFold(kind, "bearer") {
		return ""
	}
	return secret
}

// identifySQL finds a token by its hash, so that nothing is compared byte by
// byte, and says whether any is needed.
const identifySQL = `
SELECT coalesce(t.name, ''), coalesce(t.scopes, '{}'), EXISTS (SELECT FROM jetbox.api_token)
FROM (SELECT) one
LEFT JOIN jetbox.api_token t ON t.hash = $1 AND t.revoked_at IS NULL
	AND (t.expires_at IS NULL OR t.expires_at > clock_timestamp())`

var (
	errUnauthorized = problem(http.StatusUnauthorized, "unauthorized", "send Authorization: Bearer and a token (jetbox token create)")
	errTooMany      = problem(http.StatusTooManyRequests, "too_many_failures", "too many wrong tokens came from this address: wait a second")
	errForbidden    = problem(http.StatusForbidden, "forbidden", "the token lacks this operation's scope")
)

// identify returns the name of the token, or anonymous where none is needed.
func (a *API) identify(ctx context.Context, authorization, scope string) (string, error) {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	hash := hashToken(bearer(authorization))
	var name string
	var scopes []string
	var needed bool
	err := a.db.QueryRow(ctx, identifySQL, hash[:]).Scan(&name, &scopes, &needed)
	switch {
	case errors.Is(err, pgx.ErrNoRows) || (err == nil && name == "" && (needed || !a.cfg.Open || authorization != "")):
		return "", errUnauthorized
	case err != nil:
		return "", err
	case name == "":
		return anonymous, nil
	case !slices.Contains(scopes, scope):
		return "", errForbidden
	}
	return name, nil
}
