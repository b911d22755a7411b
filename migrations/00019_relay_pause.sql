-- +goose Up
-- A person's word that no relay is to publish until then. The relay that holds
-- the lease keeps it, and looks here with each beat.
ALTER TABLE jetbox.relay_lease ADD COLUMN paused_until timestamptz;
GRANT UPDATE (paused_until) ON jetbox.relay_lease TO jetbox_operator;

-- +goose Down
ALTER TABLE jetbox.relay_lease DROP COLUMN paused_until;
