-- +goose Up
-- +goose StatementBegin
-- ring_doorbell wakes a sleeping relay. A relay that sleeps holds the advisory
-- lock 116983976849272 ('jetbox' in ASCII) exclusively: only then does a writer
-- notify, because NOTIFY serialises commits across the whole cluster. A writer
-- that gets the shared lock keeps it until its commit, so the relay, which
-- tries for the exclusive one before it sleeps, sees that a row is coming.
--
-- PREPARE TRANSACTION refuses a transaction that has notified:
-- SET jetbox.doorbell = off leaves the row to the relay's fallback poll.
--
-- A row that can vanish in a crash must not be published, so a transaction
-- with an outbox row commits synchronously.
CREATE FUNCTION jetbox.ring_doorbell() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF current_setting('synchronous_commit') = 'off' THEN
		PERFORM set_config('synchronous_commit', 'on', true);
	END IF;
	IF current_setting('jetbox.doorbell', true) IS DISTINCT FROM 'off'
		AND NOT pg_try_advisory_xact_lock_shared(116983976849272) THEN
		PERFORM pg_notify('jetbox_outbox', '');
	END IF;
	RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER ring_doorbell AFTER INSERT ON jetbox.outbox
	FOR EACH STATEMENT EXECUTE FUNCTION jetbox.ring_doorbell();

-- +goose Down
DROP TRIGGER ring_doorbell ON jetbox.outbox;
DROP FUNCTION jetbox.ring_doorbell();
