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
	content_type  text,
	CONSTRAINT subject_is_1_to_16_tokens_of_letters_digits_dash_underscore
		CHECK (subject ~ '^[A-Za-z0-9-][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+){0,15}$'),
	CONSTRAINT subject_is_at_most_200_bytes
		CHECK (octet_length(subject) <= 200),
	CONSTRAINT key_is_1_to_200_bytes_without_control_or_outer_space
		CHECK (octet_length(key) BETWEEN 1 AND 200 AND key = btrim(key) AND key !~ '[\x01-\x1f\x7f]'),
	CONSTRAINT headers_is_an_object_of_strings
		CHECK (jetbox.headers_are_strings(headers)),
	CONSTRAINT headers_has_no_nats_jetbox_status_or_description_name
		CHECK (jetbox.headers_are_unreserved(headers)),
	CONSTRAINT headers_is_at_most_8192_bytes
		CHECK (octet_length(headers::text) <= 8192),
	CONSTRAINT exactly_one_of_payload_and_payload_bytes
		CHECK (num_nonnulls(payload, payload_bytes) = 1),
	CONSTRAINT payload_is_at_most_900000_bytes
		CHECK (octet_length(payload::text) <= 900000),
	CONSTRAINT payload_bytes_is_at_most_900000_bytes
		CHECK (octet_length(payload_bytes) <= 900000),
	CONSTRAINT content_type_is_1_to_100_printable_ascii_characters
		CHECK (content_type ~ '^[!-~][ -~]{0,99}$')
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
-- ORMs send an explicit NULL for what they leave unset; a column default does
-- not apply then. The WHEN clause keeps the price off everyone else's rows.
CREATE FUNCTION jetbox.default_message_id() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	NEW.message_id := jetbox.uuidv7();
	RETURN NEW;
END $$;
-- +goose StatementEnd
CREATE TRIGGER default_message_id BEFORE INSERT ON jetbox.outbox
	FOR EACH ROW WHEN (NEW.message_id IS NULL) EXECUTE FUNCTION jetbox.default_message_id();

-- +goose Down
DROP TABLE jetbox.outbox;
DROP FUNCTION jetbox.default_message_id();
