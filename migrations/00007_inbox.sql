-- +goose Up
-- One row for each message a consumer has processed, written in the same
-- transaction as the message's effects. day is the UTC day that a UUIDv7
-- carries and -infinity for any other ID: a function of message_id, so that a
-- duplicate always meets its original in one partition, and an old partition
-- is dropped instead of vacuumed.
CREATE TABLE jetbox.inbox (
	message_id   uuid        NOT NULL,
	consumer     text        NOT NULL,
	day          date        NOT NULL,
	subject      text        NOT NULL,
	result       json,
	processed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
	PRIMARY KEY (message_id, consumer, day)
) PARTITION BY RANGE (day);

CREATE TABLE jetbox.inbox_foreign PARTITION OF jetbox.inbox
	FOR VALUES FROM (MINVALUE) TO ('1970-01-01');

-- The error of each attempt that failed, until the message is done or dead.
CREATE TABLE jetbox.failed_attempt (
	message_id uuid        NOT NULL,
	consumer   text        NOT NULL,
	attempt    int         NOT NULL,
	error      text        NOT NULL,
	failed_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
	PRIMARY KEY (message_id, consumer, attempt)
);

-- +goose StatementBegin
-- maintain_inbox makes weekly partitions from the newest existing one (at first
-- from the retention's start) to ahead from now, drops those whose whole week is
-- older than retention, and returns the first day that still has a partition
-- and the first that has none. It never makes a partition again that was
-- dropped: an older duplicate must be refused, not taken for new.
CREATE FUNCTION jetbox.maintain_inbox(retention interval, ahead interval)
RETURNS TABLE (first_day date, end_day date)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = jetbox, pg_temp AS $$
DECLARE
	today date := (now() AT TIME ZONE 'UTC')::date;
	old date;
BEGIN
	IF least(retention, ahead) < interval '0' THEN
		RAISE EXCEPTION 'neither % nor % may be negative', retention, ahead USING ERRCODE = 'invalid_parameter_value';
	END IF;
	PERFORM pg_advisory_xact_lock(hashtext('jetbox.maintain_inbox'));
	SELECT min(w), max(w) + 7 INTO first_day, end_day FROM jetbox.inbox_weeks() w;
	IF end_day IS NULL THEN
		first_day := date_trunc('week', today - retention)::date;
		end_day := first_day;
	END IF;
	WHILE end_day <= today + ahead LOOP
		EXECUTE format('CREATE TABLE jetbox.inbox_%s (LIKE jetbox.inbox INCLUDING DEFAULTS INCLUDING CONSTRAINTS)',
			to_char(end_day, 'YYYYMMDD'));
		EXECUTE format('ALTER TABLE jetbox.inbox ATTACH PARTITION jetbox.inbox_%s FOR VALUES FROM (%L) TO (%L)',
			to_char(end_day, 'YYYYMMDD'), end_day, end_day + 7);
		end_day := end_day + 7;
	END LOOP;
	-- One week a call: a clock that jumps ahead for an hour is to take no more.
	SELECT min(w) INTO old FROM jetbox.inbox_weeks() w WHERE w + 7 <= today - retention;
	IF old IS NOT NULL THEN
		-- Every worker queues behind us while we wait for the lock. Where workers are
		-- busy all the time there is no other way, so after a day we wait longer.
		PERFORM set_config('lock_timeout', CASE WHEN old + 8 <= today - retention THEN '2s' ELSE '50ms' END, true);
		BEGIN
			EXECUTE format('DROP TABLE jetbox.inbox_%s', to_char(old, 'YYYYMMDD'));
			first_day := old + 7;
		EXCEPTION WHEN lock_not_available THEN
			NULL; -- the next call tries again
		END;
	END IF;
	RETURN NEXT;
END $$;

-- inbox_weeks lists the first day of each weekly partition.
CREATE FUNCTION jetbox.inbox_weeks() RETURNS SETOF date
LANGUAGE sql STABLE SET search_path = jetbox, pg_temp AS $$
	SELECT to_date(substr(c.relname, 7), 'YYYYMMDD')
	FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
	WHERE i.inhparent = 'jetbox.inbox'::pg_catalog.regclass AND c.relname ~ '^inbox_[0-9]{8}$'
$$;

-- known returns what consumer_name has of ids, whose days are given with them:
-- those it has done, those that are its dead letters, and those that it has tried
-- and failed at. Every batch of a worker asks it. The indexes are asked once for
-- each ID, whatever Postgres thought of a table when it made the plan: OFFSET 0
-- keeps EXISTS from becoming a join, and a partition analyzed while it was empty
-- would be scanned when it no longer is. The plan is made once in a session:
-- making it takes ten times as long as running it.
CREATE FUNCTION jetbox.known(consumer_name text, ids uuid[], days date[])
RETURNS TABLE (id uuid, state text)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
	RETURN QUERY
	SELECT k.id, 'done' FROM unnest(ids, days) AS k (id, day) WHERE EXISTS (
		SELECT FROM jetbox.inbox i WHERE i.message_id = k.id AND i.consumer = consumer_name AND i.day = k.day OFFSET 0)
	UNION ALL
	SELECT k.id, 'dead' FROM unnest(ids) AS k (id) WHERE EXISTS (
		SELECT FROM jetbox.dead_letter d WHERE d.message_id = k.id AND d.consumer = consumer_name OFFSET 0)
	UNION ALL
	SELECT k.id, 'tried' FROM unnest(ids) AS k (id) WHERE EXISTS (
		SELECT FROM jetbox.failed_attempt f WHERE f.message_id = k.id AND f.consumer = consumer_name OFFSET 0);
END $$;
-- +goose StatementEnd
REVOKE EXECUTE ON FUNCTION jetbox.maintain_inbox(interval, interval) FROM PUBLIC;
SELECT jetbox.maintain_inbox('14 days', '14 days');

-- +goose Down
DROP FUNCTION jetbox.known(text, uuid[], date[]);
DROP FUNCTION jetbox.maintain_inbox(interval, interval);
DROP FUNCTION jetbox.inbox_weeks();
DROP TABLE jetbox.failed_attempt;
DROP TABLE jetbox.inbox;
