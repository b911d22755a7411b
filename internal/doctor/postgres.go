package doctor

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"github.com/jackc/pgx/v5"
)

// check is one look, named for a person who may not take it.
type check struct {
	what string
	look func(context.Context, *pgx.Conn, Config) ([]Finding, error)
}

func serverChecks() []check {
	return []check{
		{"the server", server},
		{"its encoding", encoding},
		{"the connection", encryption},
		{"the login", login},
		{"the settings", session},
		{"the clock", clock},
		{"open transactions", transactions},
	}
}

func schemaChecks() []check {
	return []check{
		{"the outbox's sequence", sequence},
		{"the outbox's trigger", checkTrigger},
		{"the outbox's indexes", indexes},
		{"the inbox's partitions", partitions},
		{"the relay's lease", pause},
		{"privileges", privileges},
	}
}

// Postgres looks at the server and the session that conn is. Schema tells
// whether jetbox's tables can be looked at, too.
func Postgres(ctx context.Context, conn *pgx.Conn, cfg Config, schema bool) ([]Finding, error) {
	checks := serverChecks()
	if schema {
		checks = append(checks, schemaChecks()...)
	}
	var all []Finding
	for _, c := range checks {
		found, err := c.look(ctx, conn, cfg)
		if forbidden(err) { // what this role may not see says nothing about the rest
			found, err = []Finding{unseen(conn, c.what)}, nil
		}
		if err != nil {
			return all, fmt.Errorf("doctor: %w", err)
		}
		all = append(all, found...)
	}
	return all, nil
}

const serverSQL = `
SELECT current_setting('server_version_num')::int, current_setting('server_version'), pg_is_in_recovery(),
	current_setting('fsync'), current_setting('full_page_writes'), pg_backend_pid()`

func server(ctx context.Context, conn *pgx.Conn, _ Config) (found []Finding, err error) {
	var number int
	var version, fsync, fullPages string
	var standby bool
	var pid uint32
	if err := conn.QueryRow(ctx, serverSQL).Scan(&number, &version, &standby, &fsync, &fullPages, &pid); err != nil {
		return nil, fmt.Errorf("server: %w", err)
	}
	if number < 140000 {
		found = append(found, Finding{Error, "postgres_version", "PostgreSQL " + version, "use PostgreSQL 14 or newer"})
	}
	if standby {
		found = append(found, Finding{Error, "standby", "this server is a standby", "point DATABASE_URL at the primary, or add target_session_attrs=read-write"})
	}
	if fsync == "off" || fullPages == "off" {
		found = append(found, Finding{
			Error, "fsync", "fsync is " + fsync + ", full_page_writes is " + fullPages + ": a crash of the machine destroys committed messages",
			"ALTER SYSTEM RESET fsync; ALTER SYSTEM RESET full_page_writes; SELECT pg_reload_conf();",
		})
	}
	// A pooler answers with a process ID of its own making.
	if pid != conn.PgConn().PID() {
		found = append(found, Finding{
			Error, "pooler", "a connection pooler is in between: the relay's locks and notifications get lost in it",
			"point the relay's DATABASE_URL at the database itself",
		})
	}
	return found, nil
}

const encodingSQL = `SELECT current_setting('server_encoding')`

func encoding(ctx context.Context, conn *pgx.Conn, _ Config) ([]Finding, error) {
	var name string
	if err := conn.QueryRow(ctx, encodingSQL).Scan(&name); err != nil {
		return nil, fmt.Errorf("encoding: %w", err)
	}
	if name == "UTF8" {
		return nil, nil
	}
	return []Finding{{
		Error, "encoding", "server_encoding is " + name + ": what it has no character for cannot be stored, so such messages are refused or fail",
		"pg_dump this database into one made with CREATE DATABASE ... TEMPLATE template0 ENCODING 'UTF8'",
	}}, nil
}

// encryption judges the connection itself: sslmode=prefer says yes to either.
func encryption(_ context.Context, conn *pgx.Conn, _ Config) ([]Finding, error) {
	wire := conn.PgConn().Conn()
	remote, network := wire.RemoteAddr().(*net.TCPAddr)
	if _, encrypted := wire.(*tls.Conn); encrypted || !network || remote.IP.IsLoopback() {
		return nil, nil
	}
	return []Finding{{
		Warning, "tls", "the connection to " + remote.IP.String() + " is not encrypted: who listens there reads every message",
		"write sslmode=verify-full and sslrootcert into DATABASE_URL",
	}}, nil
}

const loginSQL = `SELECT rolname, rolsuper FROM pg_roles WHERE rolname = session_user`

func login(ctx context.Context, conn *pgx.Conn, cfg Config) ([]Finding, error) {
	var name string
	var superuser bool
	if err := conn.QueryRow(ctx, loginSQL).Scan(&name, &superuser); err != nil {
		return nil, fmt.Errorf("login: %w", err)
	}
	if !superuser || cfg.Private {
		return nil, nil
	}
	return []Finding{{
		Warning, "superuser", "role " + name + " is a superuser, whom no privilege holds back",
		"give each daemon a login of its own, in role jetbox_relay, jetbox_worker or jetbox_api: see docs/security.md",
	}}, nil
}

// settingRule is a setting of the session that does harm.
type settingRule struct {
	name  string
	wrong func(value string) bool
	level string
	why   string
	fix   string
}

func is(values ...string) func(string) bool {
	return func(v string) bool {
		for _, one := range values {
			if v == one {
				return true
			}
		}
		return false
	}
}

// settingRules judge what pg_settings shows for this role in this database;
// times are in milliseconds there.
func settingRules() []settingRule {
	return []settingRule{
		{"synchronous_commit", is("off"), Error, "a worker's commit can vanish after its message was acknowledged", "ALTER ROLE CURRENT_USER RESET synchronous_commit; or the same with ALTER DATABASE"},
		{"default_transaction_read_only", is("on"), Error, "nothing can be recorded", "ALTER ROLE CURRENT_USER RESET default_transaction_read_only; or the same with ALTER DATABASE"},
		{"default_transaction_isolation", is("repeatable read", "serializable"), Warning, "transactions fail that need not", "ALTER ROLE CURRENT_USER SET default_transaction_isolation = 'read committed'"},
		{"statement_timeout", below(10_000), Warning, "a large batch may never finish", "ALTER ROLE CURRENT_USER SET statement_timeout = '60s'"},
		{"idle_in_transaction_session_timeout", below(30_000), Warning, "a handler that waits for the outside loses its transaction", "ALTER ROLE CURRENT_USER SET idle_in_transaction_session_timeout = '60s'"},
		{"lock_timeout", below(1_000), Warning, "a worker gives up where it should wait for its turn", "ALTER ROLE CURRENT_USER RESET lock_timeout"},
		{"session_replication_role", is("replica"), Error, "the outbox's trigger does not run: rows that break its rules get in", "ALTER ROLE CURRENT_USER RESET session_replication_role"},
	}
}

// below tells a limit that is set and shorter than ms.
func below(ms int) func(string) bool {
	return func(v string) bool {
		var n int
		_, err := fmt.Sscan(v, &n)
		return err == nil && n > 0 && n < ms
	}
}

const settingSQL = `SELECT setting FROM pg_settings WHERE name = $1`

func session(ctx context.Context, conn *pgx.Conn, _ Config) (found []Finding, err error) {
	for _, r := range settingRules() {
		var value string
		if err := conn.QueryRow(ctx, settingSQL, r.name).Scan(&value); err != nil {
			return nil, fmt.Errorf("setting %s: %w", r.name, err)
		}
		if r.wrong(value) {
			found = append(found, Finding{r.level, r.name, fmt.Sprintf("%s is %s: %s", r.name, value, r.why), r.fix})
		}
	}
	return found, nil
}

const clockSQL = `SELECT clock_timestamp()`

func clock(ctx context.Context, conn *pgx.Conn, cfg Config) ([]Finding, error) {
	now := cfg.Now
	if now == nil {
		now = time.Now
	}
	before := now()
	var there time.Time
	if err := conn.QueryRow(ctx, clockSQL).Scan(&there); err != nil {
		return nil, fmt.Errorf("clock: %w", err)
	}
	skew := max(before.Sub(there), there.Sub(now()))
	if skew < cmp.Or(cfg.Skew, 2*time.Second) {
		return nil, nil
	}
	return []Finding{{
		Warning, "clock_skew", fmt.Sprintf("this machine's clock and the database's are %s apart", skew.Round(time.Millisecond)),
		"run an NTP client on both machines",
	}}, nil
}

// transactionsSQL also finds prepared transactions, which nothing ends by itself.
const transactionsSQL = `
SELECT 'transaction of ' || coalesce(usename, '?') || ', pid ' || pid, extract(epoch FROM now() - xact_start)::float8,
	'SELECT pg_terminate_backend(' || pid || ')'
FROM pg_stat_activity
WHERE xact_start < now() - $1::interval AND pid <> pg_backend_pid() AND datname = current_database()
UNION ALL
SELECT 'prepared transaction of ' || owner, extract(epoch FROM now() - prepared)::float8, 'ROLLBACK PREPARED ' || quote_literal(gid)
FROM pg_prepared_xacts
WHERE prepared < now() - $1::interval AND database = current_database()`

// hiddenSQL asks whether pg_stat_activity hides what other roles do.
const hiddenSQL = `SELECT NOT pg_has_role(current_user, 'pg_read_all_stats', 'USAGE')`

func transactions(ctx context.Context, conn *pgx.Conn, cfg Config) (found []Finding, err error) {
	var hidden bool
	if err := conn.QueryRow(ctx, hiddenSQL).Scan(&hidden); err != nil {
		return nil, fmt.Errorf("transactions: %w", err)
	}
	if hidden {
		found = append(found, Finding{
			Warning, "hidden_transactions", "role " + conn.Config().User + " does not see other roles' transactions: an old one that holds messages back is not found",
			"GRANT pg_read_all_stats TO " + pgx.Identifier{conn.Config().User}.Sanitize(),
		})
	}
	rows, err := conn.Query(ctx, transactionsSQL, cmp.Or(cfg.OldTransaction, time.Minute))
	if err != nil {
		return nil, fmt.Errorf("transactions: %w", err)
	}
	var who, fix string
	var seconds float64
	_, err = pgx.ForEachRow(rows, []any{&who, &seconds, &fix}, func() error {
		found = append(found, Finding{
			Warning, "old_transaction", fmt.Sprintf("%s, is open for %.0f s: its messages wait with it, and no table is cleaned", who, seconds),
			"end it, or run " + fix,
		})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("transactions: %w", err)
	}
	return found, nil
}
