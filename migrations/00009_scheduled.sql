-- +goose Up
-- Messages for later. The outbox's own rules hold here too, so that a due row can
-- always move; a DELETE cancels.
CREATE TABLE jetbox.scheduled (LIKE jetbox.outbox);
ALTER TABLE jetbox.scheduled
	DROP COLUMN xid,
	ALTER id ADD GENERATED ALWAYS AS IDENTITY,
	ADD PRIMARY KEY (id),
	ALTER created_at SET DEFAULT clock_timestamp(),
	ADD run_at timestamptz NOT NULL CONSTRAINT run_at_is_a_finite_time CHECK (isfinite(run_at));
CREATE INDEX scheduled_run_at ON jetbox.scheduled (run_at, id);
CREATE INDEX scheduled_message_id ON jetbox.scheduled (message_id);

-- +goose StatementBegin
CREATE FUNCTION jetbox.assign_message_id() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	-- For a time that has passed it is a message of now, which the inbox knows.
	NEW.message_id := jetbox.uuidv7_at(greatest(NEW.run_at, clock_timestamp()));
	RETURN NEW;
END $$;
-- +goose StatementEnd
-- Triggers fire in the order of their names: the ID is there when it is checked.
CREATE TRIGGER assign_message_id BEFORE INSERT ON jetbox.scheduled
	FOR EACH ROW WHEN (NEW.message_id IS NULL AND isfinite(NEW.run_at)) EXECUTE FUNCTION jetbox.assign_message_id();
CREATE TRIGGER check_message BEFORE INSERT OR UPDATE ON jetbox.scheduled
	FOR EACH ROW EXECUTE FUNCTION jetbox.check_message();

-- +goose StatementBegin
-- schedule has the message enqueued at run_at by this database's clock: never
-- earlier, and about a second later at most. It returns the message's ID.
CREATE FUNCTION jetbox.schedule(
	subject text, payload json, key text DEFAULT NULL, headers json DEFAULT NULL,
	message_id uuid DEFAULT NULL, run_at timestamptz DEFAULT now()
) RETURNS uuid LANGUAGE sql AS $$
	INSERT INTO jetbox.scheduled (subject, payload, key, headers, message_id, run_at)
	VALUES (schedule.subject, schedule.payload, schedule.key, schedule.headers, schedule.message_id, schedule.run_at)
	RETURNING message_id
$$;
-- scheduled_is_due reports whether a message waits whose time has come; not, while
-- someone locks the table: what asks renews the relay's lease as well.
CREATE FUNCTION jetbox.scheduled_is_due() RETURNS boolean
LANGUAGE plpgsql STABLE SET lock_timeout = '50ms' AS $$
BEGIN
	RETURN EXISTS (SELECT FROM jetbox.scheduled WHERE run_at <= now());
EXCEPTION WHEN lock_not_available THEN
	RETURN false;
END $$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION jetbox.scheduled_is_due();
DROP FUNCTION jetbox.schedule(text, json, text, json, uuid, timestamptz);
DROP TABLE jetbox.scheduled;
DROP FUNCTION jetbox.assign_message_id();
