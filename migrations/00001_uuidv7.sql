-- +goose Up
-- +goose StatementBegin
-- uuidv7_at is the ID of a message for later: it carries the time at which the
-- inbox will see it, not that of its scheduling.
CREATE FUNCTION jetbox.uuidv7_at(at timestamptz) RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
	SELECT encode(set_bit(set_bit(overlay(
		uuid_send(gen_random_uuid())
		PLACING substring(int8send((date_part('epoch', at) * 1000)::bigint) FROM 3)
		FROM 1 FOR 6), 52, 1), 53, 1), 'hex')::uuid
$$;
-- +goose StatementEnd

-- +goose StatementBegin
-- A message's default ID: a UUIDv7 carries its time, which lets the inbox meet
-- a duplicate in the partition of its original. PostgreSQL 18 has its own.
DO $$
BEGIN
	IF current_setting('server_version_num')::int >= 180000 THEN
		CREATE FUNCTION jetbox.uuidv7() RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE
		AS 'SELECT pg_catalog.uuidv7()';
	ELSE
		CREATE FUNCTION jetbox.uuidv7() RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE
		AS 'SELECT jetbox.uuidv7_at(clock_timestamp())';
	END IF;
END $$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION jetbox.uuidv7();
DROP FUNCTION jetbox.uuidv7_at(timestamptz);
