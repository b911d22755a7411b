package api

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// The scopes of a token.
const (
	ScopeProduce = "produce" // make jobs, and cancel them
	ScopeRead    = "read"    // see jobs and dead letters
	ScopeOperate = "operate" // send dead letters out again
)

// Token is what is known of a token: never the token itself.
type Token struct {
	Name      string     `json:"name"`
	Scopes    []string   `json:"scopes"`
	CreatedAt time.Time  `json:"created_at"`
	ExpiresAt *time.Time `json:"expires_at,omitempty"`
	RevokedAt *time.Time `json:"revoked_at,omitempty"`
}

var (
	// ErrTokenExists reports a name that another token has or had.
	ErrTokenExists = errors.New("api: a token of that name exists: a revoked one keeps its name")
	// ErrNoToken reports a name that no active token has.
	ErrNoToken = errors.New("api: no active token of that name")
	// ErrTokenRefused reports a name or scope that the table does not take.
	ErrTokenRefused = errors.New("api: a name is 1 to 64 letters, digits, dots, dashes and underscores; scopes are produce, read and operate")
)

const createTokenSQL = `
INSERT INTO jetbox.api_token (name, hash, scopes, expires_at)
VALUES ($1, $2, $3, clock_timestamp() + $4::interval)`

// CreateToken makes a token and returns it, for use once tx has committed. It cannot be shown again. A zero
// lifetime never ends.
func CreateToken(ctx context.Context, tx pgx.Tx, name string, scopes []string, lifetime time.Duration) (string, error) {
	secret := "jetbox_" + strings.ToLower(rand.Text()+rand.Text())
	var expires *time.Duration
	if lifetime > 0 {
		expires = &lifetime
	}
	hash := hashToken(secret)
	_, err := tx.Exec(ctx, createTokenSQL, name, hash[:], scopes, expires)
	e, _ := errors.AsType[*pgconn.PgError](err)
	switch {
	case e != nil && e.Code == "23505":
		return "", ErrTokenExists
	case e != nil && e.Code == "23514":
		return "", ErrTokenRefused
	case err != nil:
		return "", fmt.Errorf("api: create token: %w", err)
	}
	return secret, nil
}

const listTokensSQL = `SELECT name, scopes, created_at, expires_at, revoked_at FROM jetbox.api_token ORDER BY name`

// ListTokens returns all tokens, the revoked ones too.
func ListTokens(ctx context.Context, db *pgx.Conn) ([]Token, error) {
	rows, err := db.Query(ctx, listTokensSQL)
	if err != nil {
		return nil, fmt.Errorf("api: list tokens: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByName[Token])
	if err != nil {
		return nil, fmt.Errorf("api: list tokens: %w", err)
	}
	return list, nil
}

const revokeTokenSQL = `
UPDATE jetbox.api_token SET revoked_at = clock_timestamp() WHERE name = $1 AND revoked_at IS NULL`

// RevokeToken ends a token; the next request with it is refused.
func RevokeToken(ctx context.Context, tx pgx.Tx, name string) error {
	tag, err := tx.Exec(ctx, revokeTokenSQL, name)
	if err != nil {
		return fmt.Errorf("api: revoke token: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return ErrNoToken
	}
	return nil
}

const anyTokenSQL = `SELECT EXISTS (SELECT FROM jetbox.api_token)`

// HasTokens reports whether a token was ever made: from then on every request
// needs one, also when all are revoked.
func HasTokens(ctx context.Context, db *pgx.Conn) (has bool, err error) {
	if err := db.QueryRow(ctx, anyTokenSQL).Scan(&has); err != nil {
		return false, fmt.Errorf("api: look for tokens: %w", err)
	}
	return has, nil
}

// hashToken needs no salt and no stretching: a token is 256 random bits.
func hashToken(secret string) [sha256.Size]byte { return sha256.Sum256([]byte(secret)) }
