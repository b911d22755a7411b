package main

// schemaSQL is the application. truth is written in the producers' own
// transactions; effect has no unique constraint, which would hide what is
// doubled. The handler fails at poison always and at flaky once.
const schemaSQL = `
CREATE SCHEMA nemesis;
CREATE TABLE nemesis.counter (key text PRIMARY KEY, n bigint NOT NULL);
INSERT INTO nemesis.counter SELECT 'k' || i, 0 FROM generate_series(0, 19) i;
INSERT INTO nemesis.counter VALUES ('nowhere', 0);
CREATE TABLE nemesis.truth (id uuid PRIMARY KEY, key text NOT NULL, n bigint NOT NULL, kind text NOT NULL);
CREATE TABLE nemesis.effect (
	id uuid NOT NULL, key text, n bigint,
	worker text NOT NULL DEFAULT current_setting('application_name'), at timestamptz NOT NULL DEFAULT clock_timestamp());
CREATE INDEX ON nemesis.effect (id);
CREATE FUNCTION nemesis.handle(m jetbox.message) RETURNS json LANGUAGE plpgsql AS $$
BEGIN
	IF m.payload->>'kind' = 'poison' OR (m.payload->>'kind' = 'flaky' AND m.attempt <= 1) THEN
		RAISE EXCEPTION 'refused for its kind';
	END IF;
	INSERT INTO nemesis.effect (id, key, n) VALUES (m.message_id, m.key, (m.payload->>'n')::bigint);
	RETURN json_build_object('n', m.payload->'n');
END $$`

// countSQL takes the next numbers of a key. Its row lock makes the order of the
// numbers the order of the commits.
const countSQL = `UPDATE nemesis.counter SET n = n + $2 WHERE key = $1 RETURNING n - $2 + 1`

// enqueueSQL writes messages and the truth about them. A key's messages stand
// in the outbox in the order of their numbers.
const enqueueSQL = `
WITH made AS (
	INSERT INTO nemesis.truth (id, key, n, kind)
	SELECT jetbox.uuidv7(), $1, i, $4 FROM generate_series($2::bigint, $2::bigint + $3::bigint - 1) i
	RETURNING id, key, n, kind)
INSERT INTO jetbox.outbox (message_id, subject, key, payload)
SELECT id, $5, key, json_build_object('n', n, 'kind', kind, 'canary', $6::text, 'pad', repeat('x', $7::int))
FROM made ORDER BY n`
