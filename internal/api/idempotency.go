package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/jetboxhq/jetbox/internal/operator"
	"github.com/jetboxhq/jetbox/outbox"
)

// accept commits the job and its key in one transaction, or finds the job that
// an earlier request with the key made.
func (a *API) accept(ctx context.Context, r request) (operator.Status, error) {
	state := operator.Queued
	r.msg.ID = outbox.NewID(time.Now())
	if r.runAt != nil {
		r.msg.ID, state = outbox.ScheduledID(*r.runAt), operator.Scheduled
	}
	status := operator.Status{ID: r.msg.ID, Status: state, Subject: &r.msg.Subject, RunAt: r.runAt}
	first := r.msg.ID
	err := pgx.BeginFunc(ctx, a.db, func(tx pgx.Tx) (err error) {
		if first, err = claim(ctx, tx, owner(ctx), r); err != nil || first != r.msg.ID {
			return err
		}
		if r.runAt != nil {
			return outbox.Schedule(ctx, tx, *r.runAt, r.msg)
		}
		return outbox.Enqueue(ctx, tx, r.msg)
	})
	if err != nil || first == r.msg.ID {
		return status, err
	}
	status, err = operator.ReadStatus(ctx, a.db, first)
	if err == nil && status.Status == operator.Unknown {
		status.Status = operator.Done // so long ago that only its key is left
	}
	return status, err
}

// claimSQL waits for a request with the same key that is under way, and then
// finds its row.
const claimSQL = `
INSERT INTO jetbox.idempotency_key (owner, key, body_hash, message_id) VALUES ($1, $2, $3, $4)
ON CONFLICT (owner, key) DO NOTHING`

const claimedSQL = `SELECT message_id, body_hash FROM jetbox.idempotency_key WHERE owner = $1 AND key = $2`

var errKeyReused = problem(http.StatusUnprocessableEntity, "idempotency_key_reused",
	"this Idempotency-Key came with another body before: a new job needs a new key")

// claim returns the ID of the job that the key stands for: r's own if it is new.
func claim(ctx context.Context, tx pgx.Tx, owner string, r request) (uuid.UUID, error) {
	if r.key == "" {
		return r.msg.ID, nil
	}
	tag, err := tx.Exec(ctx, claimSQL, owner, r.key, r.hash, r.msg.ID)
	if err != nil {
		return uuid.Nil, fmt.Errorf("claim idempotency key: %w", err)
	}
	if tag.RowsAffected() == 1 {
		return r.msg.ID, nil
	}
	var id uuid.UUID
	var hash []byte
	if err := tx.QueryRow(ctx, claimedSQL, owner, r.key).Scan(&id, &hash); err != nil {
		return uuid.Nil, fmt.Errorf("read idempotency key: %w", err)
	}
	if !bytes.Equal(hash, r.hash) {
		return uuid.Nil, errKeyReused
	}
	return id, nil
}

// pruneSQL removes a bounded part of what has expired; another API may do the
// same at this moment.
const pruneSQL = `
DELETE FROM jetbox.idempotency_key WHERE (owner, key) IN (
	SELECT owner, key FROM jetbox.idempotency_key WHERE created_at < now() - interval '24 hours'
	LIMIT $1 FOR UPDATE SKIP LOCKED)`

const (
	pruneEvery = time.Minute
	pruneRows  = 10_000
	// keepActions is how long the audit is kept; it must exceed the inbox's
	// retention, for it tells a cancelled message from one that is done.
	keepActions = 400 * 24 * time.Hour
)

// upkeep removes what has expired. A failure is not worth stopping for: the
// next turn tries again.
func (a *API) upkeep(ctx context.Context) error {
	turn := time.NewTicker(pruneEvery)
	defer turn.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-turn.C:
		}
		if err := a.prune(ctx); err != nil && ctx.Err() == nil {
			a.log.LogAttrs(ctx, slog.LevelWarn, "upkeep failed, will try again", slog.Any("error", err))
		}
	}
}

func (a *API) prune(ctx context.Context) error {
	for n := int64(pruneRows); n == pruneRows; {
		tag, err := a.db.Exec(ctx, pruneSQL, pruneRows)
		if err != nil {
			return errors.Join(errors.New("prune idempotency keys"), err)
		}
		n = tag.RowsAffected()
	}
	return operator.Prune(ctx, a.db, keepActions)
}
