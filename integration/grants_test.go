package integration_test

import (
	"context"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/jetboxhq/jetbox/integration/testenv"
)

// upkeep is what the daemons do so rarely that no test waits for it.
var upkeep = map[string][]string{
	"jetbox_relay": {
		`TRUNCATE jetbox.outbox_7`,
		`LOCK TABLE jetbox.outbox_0 IN ACCESS EXCLUSIVE MODE`,
		`SELECT setval('jetbox.outbox_id_seq', 1 << 24, false) FROM jetbox.outbox_id_seq WHERE last_value < 0`,
		`DELETE FROM jetbox.relay_batch WHERE published_at < now() - interval '2 days'`,
		`SELECT jetbox.summarize_outbox(0, 0)`,
		`SELECT FROM jetbox.inbox i WHERE i.message_id = jetbox.uuidv7() AND i.consumer = 'w'`,
	},
	"jetbox_worker": {
		`SELECT * FROM jetbox.maintain_inbox('14 days', '21 days')`,
		`DELETE FROM jetbox.failed_attempt WHERE failed_at < now() - interval '14 days'`,
		`DELETE FROM jetbox.inbox WHERE day = '-infinity' AND processed_at < now() - interval '14 days'`,
	},
	"jetbox_api": {
		`DELETE FROM jetbox.idempotency_key WHERE (owner, key) IN (SELECT owner, key FROM jetbox.idempotency_key LIMIT 1 FOR UPDATE SKIP LOCKED)`,
		`DELETE FROM jetbox.operator_action WHERE at < now() - interval '400 days'`,
	},
}

// forbidden is what each role must not do: read what it need not see, take
// another's part, or cover its tracks. What a producer may not is in
// migrations' TestProducer_MayNothingElse.
var forbidden = map[string][]string{
	"jetbox_relay": {
		`UPDATE jetbox.outbox SET payload = '1'`,
		`DELETE FROM jetbox.outbox`,
		`TRUNCATE jetbox.outbox`,
		`INSERT INTO jetbox.outbox (xid, subject, payload) VALUES ('3', 'jobs.a', '1')`,
		`UPDATE jetbox.relay_batch SET seq = 0`,
		`UPDATE jetbox.scheduled SET payload = '1'`,
		`INSERT INTO jetbox.scheduled (subject, payload, run_at) VALUES ('jobs.a', '1', now())`,
		`SELECT result FROM jetbox.inbox`,
		`INSERT INTO jetbox.inbox (message_id, consumer, day, subject) VALUES (jetbox.uuidv7(), 'c', '-infinity', 's')`,
		`DELETE FROM jetbox.inbox`,
		`DELETE FROM jetbox.dead_letter`,
		`SELECT jetbox.maintain_inbox('0', '0')`,
		`SELECT * FROM jetbox.api_token`,
		`SELECT * FROM jetbox.idempotency_key`,
		`INSERT INTO jetbox.operator_action (actor, action) VALUES ('me', 'replay')`,
		`CREATE TABLE jetbox.mine ()`,
		`ALTER TABLE jetbox.outbox DISABLE TRIGGER ALL`,
	},
	"jetbox_worker": {
		`SELECT payload FROM jetbox.outbox`,
		`INSERT INTO jetbox.outbox (subject, payload) VALUES ('jobs.a', '1')`,
		`SELECT nextval('jetbox.outbox_id_seq')`,
		`INSERT INTO jetbox.relay_batch (seq, epoch, snap, n) VALUES (1, 1, '1:1:', 0)`,
		`SELECT * FROM jetbox.relay_batch`,
		`UPDATE jetbox.relay_lease SET owner = 'me'`,
		`SELECT payload FROM jetbox.scheduled`,
		`SELECT result FROM jetbox.inbox`,
		`UPDATE jetbox.inbox SET result = '1'`,
		`DELETE FROM jetbox.dead_letter`,
		`SELECT * FROM jetbox.api_token`,
		`SELECT * FROM jetbox.operator_action`,
		`CREATE TABLE jetbox.mine ()`,
	},
	"jetbox_api": {
		`SELECT payload FROM jetbox.outbox`,
		`UPDATE jetbox.outbox SET subject = 'jobs.b'`,
		`SELECT payload FROM jetbox.scheduled`,
		`INSERT INTO jetbox.relay_batch (seq, epoch, snap, n) VALUES (1, 1, '1:1:', 0)`,
		`UPDATE jetbox.relay_lease SET owner = 'me'`,
		`UPDATE jetbox.dead_letter SET reason = 'none'`,
		`INSERT INTO jetbox.api_token (name, hash, scopes) VALUES ('me', sha256('x'), '{operate}')`,
		`UPDATE jetbox.api_token SET revoked_at = NULL`,
		`UPDATE jetbox.operator_action SET actor = 'you'`,
		`SELECT jetbox.maintain_inbox('0', '0')`,
	},
	"jetbox_operator": {
		`SELECT payload FROM jetbox.outbox`,
		`UPDATE jetbox.outbox SET subject = 'jobs.b'`,
		`TRUNCATE jetbox.outbox_0`,
		`DELETE FROM jetbox.relay_batch`,
		`UPDATE jetbox.dead_letter SET reason = 'none'`,
		`INSERT INTO jetbox.inbox (message_id, consumer, day, subject, result) VALUES (jetbox.uuidv7(), 'c', '-infinity', 's', '1')`,
		`DELETE FROM jetbox.inbox`,
		`UPDATE jetbox.operator_action SET actor = 'you'`,
		`DELETE FROM jetbox.operator_action`,
		`UPDATE jetbox.api_token SET scopes = '{operate}'`,
		`SELECT * FROM jetbox.idempotency_key`,
		`CREATE TABLE jetbox.mine ()`,
	},
}

// try runs sql with the rights of role and takes it back.
func (l *lab) try(t *testing.T, role, sql string) error {
	t.Helper()
	tx, err := l.db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.Background()) }() // that is what it is for
	if _, err := tx.Exec(t.Context(), "SET LOCAL ROLE "+role); err != nil {
		t.Fatal(err)
	}
	_, err = tx.Exec(t.Context(), sql)
	return err
}

func TestRoles_MayDoTheirUpkeepAndNothingOfTheOthers(t *testing.T) {
	t.Parallel()
	l := &lab{t: t, db: testenv.Database(t)}
	for role, acts := range upkeep {
		for _, sql := range acts {
			if err := l.try(t, role, sql); err != nil {
				t.Errorf("%s: %s: %v", role, sql, err)
			}
		}
	}
	if e, ok := errors.AsType[*pgconn.PgError](l.try(t, "jetbox_worker", `SELECT jetbox.maintain_inbox('-1 day', '0')`)); !ok || e.Code != "22023" {
		t.Errorf("jetbox_worker: a retention below zero = %v, want 22023", e)
	}
	for role, acts := range forbidden {
		for _, sql := range acts {
			err := l.try(t, role, sql)
			if e, ok := errors.AsType[*pgconn.PgError](err); !ok || e.Code != "42501" {
				t.Errorf("%s: %s = %v, want 42501", role, sql, err)
			}
		}
	}
}

func TestRoles_NeedNothingThatPublicMayBeDenied(t *testing.T) {
	t.Parallel()
	l := &lab{t: t, db: testenv.Database(t)}
	if _, err := l.db.Exec(t.Context(), `REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA jetbox FROM PUBLIC; REVOKE USAGE ON TYPE jetbox.message FROM PUBLIC`); err != nil {
		t.Fatal(err)
	}
	for role, acts := range map[string][]string{
		"jetbox_producer": {
			`INSERT INTO jetbox.outbox (subject, payload, headers) VALUES ('jobs.a', '1', '{"a": "\u00fc"}')`,
			`SELECT jetbox.enqueue('jobs.a', '1')`, `SELECT jetbox.schedule('jobs.a', '1', run_at => now())`,
			`INSERT INTO jetbox.outboxevent (aggregatetype, aggregateid, type, payload) VALUES ('order', '17', 'placed', '1')`,
		},
		"jetbox_relay":    append(upkeep["jetbox_relay"], `SELECT jetbox.scheduled_is_due()`, `INSERT INTO jetbox.outbox (subject, payload) VALUES ('jobs.a', '1')`),
		"jetbox_worker":   append(upkeep["jetbox_worker"], `SELECT jetbox.known('c', '{}', '{}')`, `SELECT ROW(NULL, 's', NULL, NULL, NULL, NULL, NULL, 1)::jetbox.message`),
		"jetbox_api":      append(upkeep["jetbox_api"], `SELECT jetbox.message_status(jetbox.uuidv7())`, `SELECT jetbox.ended('{}')`),
		"jetbox_operator": {`SELECT jetbox.message_status(jetbox.uuidv7())`, `SELECT * FROM jetbox.inbox_weeks()`},
	} {
		for _, sql := range acts {
			if err := l.try(t, role, sql); err != nil {
				t.Errorf("%s: %s: %v", role, sql, err)
			}
		}
	}
}

// definerSQL lists functions that run with their owner's rights and let the
// caller choose what names in them mean, or whether to call them at all.
const definerSQL = `
SELECT oid::regprocedure::text FROM pg_proc
WHERE pronamespace = 'jetbox'::regnamespace AND prosecdef
	AND (NOT 'search_path=jetbox, pg_temp' = ANY (coalesce(proconfig, '{}'))
		OR EXISTS (SELECT FROM aclexplode(coalesce(proacl, acldefault('f', proowner))) WHERE grantee = 0))`

func TestRoles_DefinerFunctionsPinTheirSearchPathAndAreNotForEveryone(t *testing.T) {
	t.Parallel()
	db := testenv.Database(t)
	list := func() []string {
		rows, err := db.Query(t.Context(), definerSQL)
		if err != nil {
			t.Fatal(err)
		}
		open, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		return open
	}
	if open := list(); len(open) > 0 {
		t.Errorf("SECURITY DEFINER without a pinned search_path, or for PUBLIC: %v", open)
	}
	if _, err := db.Exec(t.Context(), `ALTER FUNCTION jetbox.summarize_outbox(int, bigint) RESET search_path`); err != nil {
		t.Fatal(err)
	}
	if open := list(); len(open) != 1 {
		t.Errorf("the query finds %v, want the function that was opened", open)
	}
}

func TestRoles_AreNoSuperusersAndPublicHasNothing(t *testing.T) {
	t.Parallel()
	l := &lab{t: t, db: testenv.Database(t)}
	if n := l.count(`SELECT count(*) FROM pg_roles WHERE rolname LIKE 'jetbox\_%' AND rolname NOT LIKE 'jetbox\_test\_%'
		AND (rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolreplication OR rolcanlogin)`); n > 0 {
		t.Errorf("%d roles may log in or have attributes they do not need", n)
	}
	if n := l.count(`SELECT count(*) FROM pg_class c, aclexplode(c.relacl) a WHERE c.relnamespace = 'jetbox'::regnamespace AND a.grantee = 0`); n > 0 {
		t.Errorf("PUBLIC has %d rights on tables", n)
	}
	if n := l.count(`SELECT count(*) FROM pg_namespace n, aclexplode(n.nspacl) a WHERE n.nspname = 'jetbox' AND a.grantee = 0`); n > 0 {
		t.Errorf("PUBLIC has %d rights on the schema", n)
	}
}
