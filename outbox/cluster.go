package outbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// clusterSQL asks which cluster this is, whether the ledger was written in it, and
// whether the outbox holds rows of transactions that it has not begun: a snapshot
// means nothing in another cluster, which counts its transactions anew. A standby
// that takes over is the same cluster.
const clusterSQL = `
SELECT c.system_identifier, coalesce(l.cluster = c.system_identifier, true),
	EXISTS (SELECT FROM jetbox.outbox WHERE xid >= pg_snapshot_xmax(pg_current_snapshot()))
FROM pg_control_system() c, jetbox.relay_lease l`

const adoptSQL = `UPDATE jetbox.relay_lease SET cluster = $1 WHERE epoch = $2`

// checkCluster notices that a dump was restored into another cluster, or that
// pg_upgrade made one: rows that came since would pass for published. All that the
// outbox holds is published again, and inboxes absorb the repeats. It must be
// called under the lease, on a connection that scans no table for a few rows.
func (s *session) checkCluster(ctx context.Context, conn *pgx.Conn) error {
	var cluster int64
	var same, restored bool
	err := conn.QueryRow(ctx, clusterSQL).Scan(&cluster, &same, &restored)
	switch e, _ := errors.AsType[*pgconn.PgError](err); {
	case e != nil && e.Code == "42501": // a provider may keep that to itself
		s.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "which cluster this is cannot be asked, so a dump that is restored elsewhere may go unnoticed: "+
			"GRANT EXECUTE ON FUNCTION pg_control_system() TO jetbox_relay", slog.Any("error", err))
		return nil
	case err != nil:
		return fmt.Errorf("check cluster: %w", err)
	case restored:
		return errRestored
	}
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if !same {
			if err := rewind(ctx, tx, 0, map[string]streamState{}); err != nil {
				return err
			}
		}
		_, err := tx.Exec(ctx, adoptSQL, cluster, s.lease.epoch)
		return err
	})
	switch {
	case err != nil:
		return fmt.Errorf("adopt cluster: %w", err)
	case same:
		return nil
	}
	s.cfg.Logger.LogAttrs(ctx, slog.LevelError, "the database is in another cluster than its ledger was written in, "+
		"as after a restored dump or pg_upgrade: publishing again all that the outbox holds")
	s.m.rewinds.Inc()
	return errRewound
}
