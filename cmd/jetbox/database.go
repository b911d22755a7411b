package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/jetboxhq/jetbox/internal/wait"
)

const databaseExample = "postgres://relay@db/app"

type databaseFlags struct {
	DatabaseURL string `name:"database-url" placeholder:"URL" help:"Postgres, such as postgres://relay@db/app. With a password: DATABASE_URL, DATABASE_URL_FILE or the PG* variables."`
}

// named reports whether a database is named at all, here or by libpq's variables.
func (f databaseFlags) named(env environment) bool {
	return f.DatabaseURL != "" || env["DATABASE_URL"] != "" || env["DATABASE_URL_FILE"] != "" ||
		env["PGHOST"] != "" || env["PGSERVICE"] != "" || env["PGDATABASE"] != ""
}

// config returns how to reach the database. Name is what pg_stat_activity shows.
func (f databaseFlags) config(env environment, name string) (*pgxpool.Config, error) {
	if !f.named(env) {
		return nil, fmt.Errorf("missing --database-url (or DATABASE_URL); example: %s", databaseExample)
	}
	if hasPassword(f.DatabaseURL) {
		return nil, errors.New("--database-url holds a password, which everyone on this machine can see in ps: put it in DATABASE_URL")
	}
	dsn, err := env.secret("DATABASE_URL")
	if err != nil && f.DatabaseURL == "" {
		return nil, err
	}
	if f.DatabaseURL != "" {
		dsn = f.DatabaseURL
	}
	return parseDatabase(dsn, name)
}

func parseDatabase(dsn, name string) (*pgxpool.Config, error) {
	// Where a URL is broken, no one can tell which part of it is the password.
	if _, err := url.Parse(dsn); err != nil && strings.Contains(dsn, "://") {
		return nil, fmt.Errorf("DATABASE_URL is not a URL; example: %s "+
			"(in a password, percent-encode what is not a letter or a digit)", databaseExample)
	}
	cfg, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("DATABASE_URL cannot be read%s; example: %s", reason(err), databaseExample)
	}
	if cfg.ConnConfig.RuntimeParams["application_name"] == "" {
		cfg.ConnConfig.RuntimeParams["application_name"] = "jetbox " + name
	}
	cfg.ConnConfig.RuntimeParams["client_encoding"] = "UTF8" // pgx takes what the server says for that
	if cfg.ConnConfig.ConnectTimeout == 0 {
		cfg.ConnConfig.ConnectTimeout = 5 * time.Second
	}
	cfg.ConnConfig.DialFunc = dialPostgres
	cfg.PingTimeout = gone / 3
	return cfg, nil
}

// reasons are what pgx says of a connection string, as far as none of it can be
// a part of that string: what stands where a keyword belongs may be the password.
var reasons = []string{
	`missing "=" after`, "unterminated quoted string", "invalid keyword/value", "forbidden NUL byte",
	"unable to find service", "failed to read service file", "invalid port", "invalid connect_timeout", "port numbers to",
	"sslmode is invalid", `both "sslcert" and "sslkey" are required`, "unable to read CA file", "unable to add CA to cert pool",
	"unable to read sslkey", "failed to decode sslkey", "unable to find sslpassword", "unable to decrypt key",
	"unable to read cert", "unable to load cert", "unknown target_session_attrs", "invalid sslcertmode",
	"invalid min_protocol_version", "invalid max_protocol_version", "unknown channel_binding", "invalid require_auth",
	"pool_max_conns", "pool_min_conns", "pool_min_idle_conns", "pool_max_conn_lifetime_jitter", "pool_max_conn_lifetime",
	"pool_max_conn_idle_time", "pool_health_check_period", "pool_ping_timeout",
}

// reason is what can be said of err without a word of the connection string.
func reason(err error) string {
	e, ok := errors.AsType[*pgconn.ParseConfigError](err)
	if !ok {
		return ""
	}
	bare := *e
	bare.ConnString = "" // or a reason would be found in what the user wrote
	for _, r := range reasons {
		if strings.Contains(bare.Error(), r) {
			return ": " + r
		}
	}
	return ""
}

// unset stands for a password that a connection string does not set.
const unset = "(no password)"

// hasPassword asks whoever reads dsn in the end: in keywords the last one counts.
func hasPassword(dsn string) bool {
	if u, err := url.Parse(dsn); err == nil && u.Scheme != "" {
		_, ok := u.User.Password()
		return ok || u.Query().Has("password") || u.Query().Has("sslpassword")
	}
	cfg, err := pgconn.ParseConfig("password='" + unset + "' " + dsn)
	if err != nil {
		return strings.Contains(dsn, "password")
	}
	return cfg.Password != unset || strings.Contains(dsn, "sslpassword")
}

// connect opens a connection, and for as long as patience lasts waits for a
// database that does not answer yet.
func connect(ctx context.Context, cfg *pgx.ConnConfig, patience time.Duration) (*pgx.Conn, error) {
	deadline := time.Now().Add(patience)
	pause := backoff.NewExponentialBackOff()
	for {
		conn, err := pgx.ConnectConfig(ctx, cfg)
		switch {
		case err == nil:
			return conn, nil
		case answered(err):
			return nil, fmt.Errorf("connect to Postgres: %w", err)
		case time.Now().After(deadline) || !wait.Sleep(ctx, min(pause.NextBackOff(), time.Second)):
			return nil, fmt.Errorf("%w: connect to Postgres: %w", errUnreachable, err)
		}
	}
}

// answered reports whether a server said no, or is not whom we trust: it is
// there, and waiting cannot help, unless it is only starting up or full.
func answered(err error) bool {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && !strings.HasPrefix(e.Code, "57P") && !strings.HasPrefix(e.Code, "53")
}
