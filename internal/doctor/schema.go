package doctor

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// lines turns each row of a query, one text, into a finding.
func lines(ctx context.Context, conn *pgx.Conn, step, sql string, finding func(text string) Finding) ([]Finding, error) {
	rows, err := conn.Query(ctx, sql)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", step, err)
	}
	found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Finding, error) {
		var text string
		err := row.Scan(&text)
		return finding(text), err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", step, err)
	}
	return found, nil
}

const sequenceSQL = `
SELECT seqcache::text FROM pg_sequence WHERE seqrelid = 'jetbox.outbox_id_seq'::regclass AND (seqcache <> 1 OR seqincrement <> 1 OR seqcycle)`

func sequence(ctx context.Context, conn *pgx.Conn, _ Config) ([]Finding, error) {
	return lines(ctx, conn, "sequence", sequenceSQL, func(cache string) Finding {
		return Finding{
			Error, "sequence_cache", "jetbox.outbox_id_seq was altered (cache " + cache + "): messages of one key can be published out of order",
			"ALTER SEQUENCE jetbox.outbox_id_seq INCREMENT 1 CACHE 1 NO CYCLE",
		}
	})
}

// checkTriggerSQL returns a row when the trigger that holds the outbox's rules is
// gone or turned off.
const checkTriggerSQL = `
SELECT 'check_message' WHERE NOT EXISTS (
	SELECT FROM pg_trigger WHERE tgrelid = 'jetbox.outbox'::regclass AND tgname = 'check_message' AND tgenabled <> 'D')`

func checkTrigger(ctx context.Context, conn *pgx.Conn, _ Config) ([]Finding, error) {
	return lines(ctx, conn, "triggers", checkTriggerSQL, func(name string) Finding {
		return Finding{Error, "trigger", "trigger " + name + " of jetbox.outbox is off or gone", "ALTER TABLE jetbox.outbox ENABLE TRIGGER " + name}
	})
}

// indexesSQL lists children of the ring that lack one of their two indexes.
const indexesSQL = `
SELECT format('jetbox.outbox_%s (%s)', n, kind)
FROM generate_series(0, 7) n, (VALUES ('btree'), ('brin')) AS k (kind)
WHERE NOT EXISTS (
	SELECT FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
	WHERE i.indrelid = to_regclass('jetbox.outbox_' || n) AND i.indisvalid AND a.amname = kind)`

func indexes(ctx context.Context, conn *pgx.Conn, _ Config) ([]Finding, error) {
	return lines(ctx, conn, "indexes", indexesSQL, func(place string) Finding {
		return Finding{
			Error, "index", "an index is missing: " + place + ": the relay reads the whole table at each poll",
			"make it as migration 00003_outbox.sql does: btree on (xid), brin on (id, message_id)",
		}
	})
}

// partitionsSQL finds an inbox whose last partition ends within three days.
const partitionsSQL = `
SELECT coalesce((max(w) + 7)::text, 'never') FROM jetbox.inbox_weeks() w
HAVING coalesce(max(w) + 7, '-infinity') < (now() AT TIME ZONE 'UTC')::date + 3`

func partitions(ctx context.Context, conn *pgx.Conn, _ Config) ([]Finding, error) {
	return lines(ctx, conn, "partitions", partitionsSQL, func(end string) Finding {
		return Finding{
			Error, "inbox_partitions", "the inbox has partitions until " + end + ": after that workers take no message",
			"start a worker, or run SELECT * FROM jetbox.maintain_inbox('14 days', '14 days')",
		}
	})
}

const pauseSQL = `
SELECT paused_until::timestamp(0)::text FROM jetbox.relay_lease WHERE paused_until > clock_timestamp()`

func pause(ctx context.Context, conn *pgx.Conn, _ Config) ([]Finding, error) {
	return lines(ctx, conn, "pause", pauseSQL, func(until string) Finding {
		return Finding{Warning, "relay_paused", "the relay is paused until " + until + ": nothing is published", "jetbox resume relay"}
	})
}

// privilegesSQL lists what this role may not do and relay and worker must,
// unless it may do all that one of relay, worker, API and operator must: then
// that is what it is for.
const privilegesSQL = `
WITH need (part, relation, privilege) AS (VALUES
	('relay', 'jetbox.outbox', 'SELECT'), ('relay', 'jetbox.outbox', 'INSERT'), ('relay', 'jetbox.outbox_0', 'TRUNCATE'),
	('relay', 'jetbox.relay_batch', 'SELECT'), ('relay', 'jetbox.relay_batch', 'INSERT'), ('relay', 'jetbox.relay_batch', 'DELETE'),
	('relay', 'jetbox.relay_lease', 'SELECT'), ('relay', 'jetbox.relay_lease', 'UPDATE'),
	('relay', 'jetbox.scheduled', 'SELECT'), ('relay', 'jetbox.scheduled', 'UPDATE'), ('relay', 'jetbox.scheduled', 'DELETE'),
	('relay', 'jetbox.dead_letter', 'INSERT'), ('relay', 'jetbox.dead_letter', 'UPDATE'),
	('worker', 'jetbox.dead_letter', 'INSERT'), ('worker', 'jetbox.dead_letter', 'UPDATE'),
	('worker', 'jetbox.inbox', 'SELECT'), ('worker', 'jetbox.inbox', 'INSERT'), ('worker', 'jetbox.inbox', 'DELETE'),
	('worker', 'jetbox.failed_attempt', 'SELECT'), ('worker', 'jetbox.failed_attempt', 'INSERT'), ('worker', 'jetbox.failed_attempt', 'DELETE'),
	('api', 'jetbox.idempotency_key', 'INSERT'), ('api', 'jetbox.operator_action', 'DELETE'), ('api', 'jetbox.dead_letter', 'DELETE'),
	('operator', 'jetbox.relay_batch', 'INSERT'), ('operator', 'jetbox.dead_letter', 'DELETE'), ('operator', 'jetbox.api_token', 'INSERT')
), missing AS (
	SELECT part, format('%s ON %s', privilege, relation) AS missing FROM need
	WHERE NOT CASE WHEN privilege IN ('TRUNCATE', 'DELETE') THEN has_table_privilege(relation, privilege)
		ELSE has_any_column_privilege(relation, privilege) END
	UNION ALL
	SELECT part, 'EXECUTE ON FUNCTION ' || f FROM (VALUES
		('worker', 'jetbox.maintain_inbox(interval, interval)'), ('relay', 'jetbox.summarize_outbox(int, bigint)')) AS f (part, f)
	WHERE NOT has_function_privilege(f, 'EXECUTE')
)
SELECT DISTINCT missing FROM missing
WHERE part IN ('relay', 'worker') AND (SELECT count(DISTINCT part) FROM missing) = 4`

func privileges(ctx context.Context, conn *pgx.Conn, _ Config) ([]Finding, error) {
	return lines(ctx, conn, "privileges", privilegesSQL, func(grant string) Finding {
		return Finding{Error, "privilege", "this role may not " + grant, "GRANT " + grant + " TO " + pgx.Identifier{conn.Config().User}.Sanitize()}
	})
}
