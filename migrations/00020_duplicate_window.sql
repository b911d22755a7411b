-- +goose Up
-- For how long the broker remembers IDs: the longest of the streams' windows, as
-- the relay last saw them. Who sends a message out again under its own ID waits
-- for that long, or the broker would drop it.
ALTER TABLE jetbox.relay_lease ADD COLUMN duplicate_window interval NOT NULL DEFAULT '2 minutes';
GRANT UPDATE (duplicate_window) ON jetbox.relay_lease TO jetbox_relay;

-- +goose Down
ALTER TABLE jetbox.relay_lease DROP COLUMN duplicate_window;
