package natsconn

import (
	"context"
	"errors"
	"log/slog"

	"github.com/nats-io/nats.go"
)

// LogTo has log told what happens to a connection behind its users' backs: lost,
// back, and what the server refuses. JetStream answers a forbidden publish with
// silence, so without this a missing permission looks like a slow network.
func LogTo(log *slog.Logger) nats.Option {
	return func(o *nats.Options) error {
		o.DisconnectedErrCB = func(_ *nats.Conn, err error) {
			if err != nil {
				log.LogAttrs(context.Background(), slog.LevelWarn, "lost NATS, reconnecting", slog.Any("error", err))
			}
		}
		o.ReconnectedCB = func(nc *nats.Conn) {
			log.LogAttrs(context.Background(), slog.LevelInfo, "reconnected to NATS",
				slog.String("server", nc.ConnectedUrlRedacted()))
		}
		o.AsyncErrorCB = func(_ *nats.Conn, _ *nats.Subscription, err error) { logAsync(log, err) }
		return nil
	}
}

func logAsync(log *slog.Logger, err error) {
	if errors.Is(err, nats.ErrPermissionViolation) {
		log.LogAttrs(context.Background(), slog.LevelError, "NATS refuses what this account may not do", slog.Any("error", err))
		return
	}
	log.LogAttrs(context.Background(), slog.LevelWarn, "NATS reports an error", slog.Any("error", err))
}
