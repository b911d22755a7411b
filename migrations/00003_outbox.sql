-- +goose Up
-- CACHE 1: a larger cache hands out ids out of order across sessions, and the
-- order of ids within a poll is the order of messages per key.
CREATE SEQUENCE jetbox.outbox_id_seq CACHE 1;

-- A ring of eight children of 2^24 ids each: the relay empties the oldest with
-- TRUNCATE, so the outbox has no dead tuples and needs no vacuum.
CREATE TABLE jetbox.outbox (
	id            bigint      NOT NULL DEFAULT nextval('jetbox.outbox_id_seq'),
	xid           xid8        NOT NULL DEFAULT pg_current_xact_id(),
	created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
	message_id    uuid        NOT NULL DEFAULT jetbox.uuidv7(),
	subject       text        NOT NULL,
	key           text,
	headers       json,
	payload       json,
	payload_bytes bytea,
	content_type  text
) PARTITION BY LIST (((id >> 24) & 7));

ALTER SEQUENCE jetbox.outbox_id_seq OWNED BY jetbox.outbox.id;

-- +goose StatementBegin
-- The relay needs one index, on xid. The BRIN costs almost nothing per row and
-- serves the backlog walk (id) and the look-up of one message (message_id).
DO $$
BEGIN
	FOR i IN 0..7 LOOP
		EXECUTE format('CREATE TABLE jetbox.outbox_%s PARTITION OF jetbox.outbox FOR VALUES IN (%s)
			WITH (fillfactor = 100, autovacuum_enabled = off, toast.autovacuum_enabled = off)', i, i);
		EXECUTE format('CREATE INDEX outbox_%s_xid ON jetbox.outbox_%s (xid)', i, i);
		EXECUTE format('CREATE INDEX outbox_%s_brin ON jetbox.outbox_%s USING brin (id, message_id)
			WITH (pages_per_range = 32)', i, i);
	END LOOP;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- check_message holds the rules that a CHECK constraint cannot: it names the rule
-- that a row breaks as a constraint's name, with SQLSTATE 23514. As constraints
-- the same rules cost a single-row INSERT four times as much, because Postgres
-- prepares every one anew for each statement.
--
-- It also gives an ID to a row that has none: ORMs send an explicit NULL for what
-- they leave unset, and a column's default does not apply then.
CREATE FUNCTION jetbox.check_message() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
	broken text;
BEGIN
	-- No pattern has a backslash: what it means is a setting of the session.
	--
	-- Postgres prepares an expression anew in each transaction, so a row of short
	-- subject and JSON alone, as most are, is spared all but this one.
	IF NEW.subject ~ '^[A-Za-z0-9-][A-Za-z0-9_-]*([.][A-Za-z0-9_-]+)*$'
		AND octet_length(NEW.subject) <= 32
		AND octet_length(NEW.payload::text) <= 900000
		AND num_nonnulls(NEW.key, NEW.headers, NEW.payload_bytes, NEW.content_type) = 0
		AND NEW.message_id IS NOT NULL THEN
		RETURN NEW;
	END IF;
	broken := CASE
		WHEN NEW.subject !~ '^[A-Za-z0-9-][A-Za-z0-9_-]*([.][A-Za-z0-9_-]+)*$'
			OR octet_length(NEW.subject) > 32 AND NEW.subject ~ '([.].*){16}'
			THEN 'subject_is_1_to_16_tokens_of_letters_digits_dash_underscore'
		WHEN octet_length(NEW.subject) > 200
			THEN 'subject_is_at_most_200_bytes'
		WHEN num_nonnulls(NEW.payload, NEW.payload_bytes) <> 1
			THEN 'exactly_one_of_payload_and_payload_bytes'
		WHEN octet_length(NEW.payload::text) > 900000
			THEN 'payload_is_at_most_900000_bytes'
		WHEN octet_length(NEW.key) NOT BETWEEN 1 AND 200 OR NEW.key <> btrim(NEW.key) OR NEW.key ~ E'[\x01-\x1f\x7f]'
			THEN 'key_is_1_to_200_bytes_without_control_or_outer_space'
		WHEN strpos(NEW.headers::text, chr(92) || 'u') > 0 AND NOT jetbox.escapes_are_text(NEW.headers)
			OR NOT jetbox.headers_are_strings(NEW.headers)
			THEN 'headers_is_an_object_of_strings'
		WHEN NOT jetbox.headers_are_unreserved(NEW.headers)
			THEN 'headers_has_no_nats_jetbox_status_description_content_type_name'
		WHEN octet_length(NEW.headers::text) > 8192
			THEN 'headers_is_at_most_8192_bytes'
		WHEN octet_length(NEW.payload_bytes) > 900000
			THEN 'payload_bytes_is_at_most_900000_bytes'
		WHEN NEW.content_type !~ '^[!-~][ -~]{0,99}$'
			THEN 'content_type_is_1_to_100_printable_ascii_characters'
	END;
	IF broken IS NOT NULL THEN
		RAISE EXCEPTION 'new row for relation "outbox" violates check constraint "%"', broken
			USING ERRCODE = 'check_violation', SCHEMA = 'jetbox', TABLE = 'outbox', CONSTRAINT = broken;
	END IF;
	IF NEW.message_id IS NULL THEN
		NEW.message_id := jetbox.uuidv7();
	END IF;
	RETURN NEW;
END $$;
-- +goose StatementEnd
CREATE TRIGGER check_message BEFORE INSERT OR UPDATE ON jetbox.outbox
	FOR EACH ROW EXECUTE FUNCTION jetbox.check_message();

-- +goose Down
DROP TABLE jetbox.outbox;
DROP FUNCTION jetbox.check_message();
