-- +goose Up
-- +goose StatementBegin
-- message_status says what has become of one message: queued, scheduled, sent,
-- done, dead, cancelled or unknown. Each step asks one index, the outbox last:
-- its BRIN narrows a UUIDv7 to a few pages among any number of rows, but the
-- planner, which has no statistics of the ring, would rather read them all.
-- A message of several consumers is dead as soon as one gave up, and otherwise
-- done as soon as one has processed it.
CREATE FUNCTION jetbox.message_status(wanted uuid)
RETURNS TABLE (status text, subject text, consumer text, result json, reason text, errors jsonb,
	attempts int, run_at timestamptz, changed_at timestamptz)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET jit = off AS $$
BEGIN
	SELECT 'dead', d.subject, d.consumer, d.reason, d.errors, d.attempts, d.died_at
	INTO status, subject, consumer, reason, errors, attempts, changed_at
	FROM jetbox.dead_letter d WHERE d.message_id = wanted ORDER BY d.died_at DESC LIMIT 1;
	IF FOUND THEN
		RETURN NEXT;
		RETURN;
	END IF;

	SELECT CASE WHEN EXISTS (SELECT FROM jetbox.operator_action a
			WHERE a.message_id = wanted AND a.action IN ('cancel', 'discard') AND NOT a.details ? 'scheduled'
				AND coalesce(a.consumer, i.consumer) = i.consumer) THEN 'cancelled' ELSE 'done' END,
		i.subject, i.consumer, i.result, i.processed_at
	INTO status, subject, consumer, result, changed_at
	FROM jetbox.inbox i WHERE i.message_id = wanted ORDER BY i.processed_at DESC LIMIT 1;
	IF FOUND THEN
		RETURN NEXT;
		RETURN;
	END IF;

	SELECT 'scheduled', s.subject, s.run_at, s.created_at
	INTO status, subject, run_at, changed_at
	FROM jetbox.scheduled s WHERE s.message_id = wanted LIMIT 1;
	IF FOUND THEN
		RETURN NEXT;
		RETURN;
	END IF;

	SELECT CASE WHEN pg_visible_in_snapshot(o.xid, coalesce(b.prev_snap, b.snap))
			OR (o.id <= b.pos_id AND pg_visible_in_snapshot(o.xid, b.snap)) THEN 'sent' ELSE 'queued' END,
		o.subject, o.created_at
	INTO status, subject, changed_at
	FROM jetbox.outbox o
	LEFT JOIN (SELECT * FROM jetbox.relay_batch ORDER BY seq DESC LIMIT 1) b ON true
	WHERE o.message_id = wanted ORDER BY o.id DESC LIMIT 1;
	IF NOT FOUND THEN
		SELECT 'cancelled', a.at INTO status, changed_at
		FROM jetbox.operator_action a WHERE a.message_id = wanted AND a.action IN ('cancel', 'discard') LIMIT 1;
		status := coalesce(status, 'unknown');
		RETURN NEXT;
		RETURN;
	END IF;

	SELECT count(*), jsonb_agg(jsonb_build_object('attempt', f.attempt, 'at', f.failed_at, 'error', f.error) ORDER BY f.attempt),
		max(f.consumer), greatest(changed_at, max(f.failed_at))
	INTO attempts, errors, consumer, changed_at
	FROM jetbox.failed_attempt f WHERE f.message_id = wanted;
	RETURN NEXT;
END $$;

-- ended returns which of ids are done, dead or cancelled: one cheap question for
-- all who wait. OFFSET 0 makes it ask the primary keys once for each ID.
CREATE FUNCTION jetbox.ended(ids uuid[]) RETURNS SETOF uuid
LANGUAGE sql STABLE AS $$
	SELECT k.id FROM unnest(ids) AS k (id)
	WHERE EXISTS (SELECT FROM jetbox.inbox i WHERE i.message_id = k.id OFFSET 0)
		OR EXISTS (SELECT FROM jetbox.dead_letter d WHERE d.message_id = k.id OFFSET 0)
		OR EXISTS (SELECT FROM jetbox.operator_action a
			WHERE a.message_id = k.id AND a.action IN ('cancel', 'discard') OFFSET 0)
			AND NOT EXISTS (SELECT FROM jetbox.scheduled s WHERE s.message_id = k.id OFFSET 0) -- once more
$$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION jetbox.ended(uuid[]);
DROP FUNCTION jetbox.message_status(uuid);
