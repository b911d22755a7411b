-- +goose Up
-- What a person, or a program on a person's behalf, did to messages: an audit,
-- and the part of a message's story that no other table tells.
CREATE TABLE jetbox.operator_action (
	id         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	-- When its transaction began: what the action brings about comes later.
	at         timestamptz NOT NULL DEFAULT now(),
	actor      text        NOT NULL,
	action     text        NOT NULL,
	message_id uuid,
	consumer   text,
	-- A redriven or discarded letter's reason and errors, among others.
	details    jsonb       NOT NULL DEFAULT '{}'
);
CREATE INDEX operator_action_at ON jetbox.operator_action (at);
CREATE INDEX operator_action_message_id ON jetbox.operator_action (message_id) WHERE message_id IS NOT NULL;

-- +goose Down
DROP TABLE jetbox.operator_action;
