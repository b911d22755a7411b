-- +goose Up
-- The outbox in the shape of Debezium's event router: an application that writes
-- Debezium's table can write this view. The subject is jobs.<aggregatetype>.<type>.
CREATE VIEW jetbox.outboxevent AS
SELECT message_id AS id,
	split_part(subject, '.', 2) AS aggregatetype,
	key AS aggregateid,
	regexp_replace(subject, '^[^.]*\.[^.]*\.', '') AS type,
	payload
FROM jetbox.outbox
WHERE subject LIKE 'jobs.%.%';

-- +goose StatementBegin
CREATE FUNCTION jetbox.insert_outboxevent() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO jetbox.outbox (message_id, subject, key, payload)
	VALUES (NEW.id, 'jobs.' || NEW.aggregatetype || '.' || NEW.type, NEW.aggregateid, NEW.payload)
	RETURNING message_id INTO NEW.id;
	RETURN NEW;
END $$;
-- +goose StatementEnd
CREATE TRIGGER insert_outboxevent INSTEAD OF INSERT ON jetbox.outboxevent
	FOR EACH ROW EXECUTE FUNCTION jetbox.insert_outboxevent();

-- +goose Down
DROP VIEW jetbox.outboxevent;
DROP FUNCTION jetbox.insert_outboxevent();
