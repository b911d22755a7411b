-- +goose Up
-- +goose StatementBegin
-- ring_doorbell announces a row when announce may not do it quietly.
--
-- A row that can vanish in a crash must not be published, so a transaction
-- with an outbox row commits synchronously. Once a transaction has notified, its
-- other rows need not.
CREATE FUNCTION jetbox.ring_doorbell() RETURNS xid8 LANGUAGE plpgsql AS $$
BEGIN
	IF current_setting('synchronous_commit') = 'off' THEN
		PERFORM set_config('synchronous_commit', 'on', true);
	END IF;
	IF current_setting('jetbox.doorbell', true) IS DISTINCT FROM 'off'
		AND NOT pg_try_advisory_xact_lock_shared(116983976849272) THEN
		PERFORM pg_notify('jetbox_outbox', ''), set_config('jetbox.doorbell', 'off', true);
	END IF;
	RETURN pg_current_xact_id();
END $$;
-- +goose StatementEnd

-- announce returns a row's xid and wakes a sleeping relay. A relay that sleeps holds
-- the advisory lock 116983976849272 ('jetbox' in ASCII) exclusively: only then does a
-- writer notify, because NOTIFY serialises commits across the whole cluster. A writer
-- that gets the shared lock keeps it until its commit, so the relay, which
-- tries for the exclusive one before it sleeps, sees that a row is coming.
--
-- PREPARE TRANSACTION refuses a transaction that has notified:
-- SET jetbox.doorbell = off leaves the row to the relay's fallback poll.
--
-- It is the default of a column because Postgres plans a default once for a prepared
-- INSERT and inlines this function; a trigger is prepared anew for each.
CREATE FUNCTION jetbox.announce() RETURNS xid8 LANGUAGE sql VOLATILE
RETURN CASE WHEN current_setting('synchronous_commit') <> 'off' AND (
		current_setting('jetbox.doorbell', true) IS NOT DISTINCT FROM 'off'
		OR pg_try_advisory_xact_lock_shared(116983976849272))
	THEN pg_current_xact_id() ELSE jetbox.ring_doorbell() END;

ALTER TABLE jetbox.outbox ALTER xid SET DEFAULT jetbox.announce();

-- +goose Down
ALTER TABLE jetbox.outbox ALTER xid SET DEFAULT pg_current_xact_id();
DROP FUNCTION jetbox.announce();
DROP FUNCTION jetbox.ring_doorbell();
