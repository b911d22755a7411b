package inbox_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/jetboxhq/jetbox/inbox"
)

// What the stopped worker held would show up after AckWait at the earliest, and
// what it gave back, or the broker was still sending to it, would be a redelivery.
func TestRun_StopsOneOfTwoWorkersWithoutARedelivery(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ messages, batch int }{
		"with far more in hand than a batch": {300, 10},
		"while the broker is sending":        {2000, 500},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stopOneOfTwo(t, c.messages, c.batch)
		})
	}
}

func stopOneOfTwo(t *testing.T, messages, batch int) {
	e := newEnv(t)
	e.publishAsync(messages, func(int, uuid.UUID) string { return "" })
	began := make(chan struct{}, 1)
	handler := inbox.HandleTx(e.subject("n"), func(ctx context.Context, tx pgx.Tx, m inbox.Message[[]byte]) (none, error) {
		select {
		case began <- struct{}{}:
		default:
		}
		_, err := tx.Exec(ctx, effectSQL, m.ID, "")
		return none{}, err
	})
	var seen []*prometheus.Registry
	start := func() (stop func()) {
		cfg, reg := e.config(), prometheus.NewRegistry()
		cfg.BatchSize, cfg.Concurrency = batch, 1
		cfg.AckWait, cfg.DrainTimeout, cfg.Metrics = time.Hour, time.Hour, reg
		seen = append(seen, reg)
		return e.start(cfg, handler)
	}
	stop := start()
	<-began
	start()
	stop()
	e.eventuallySettled()
	e.wantEffects(messages)
	for i, reg := range seen {
		if n := metric(t, reg, "inbox_redeliveries_total"); n != 0 {
			t.Errorf("worker %d met %v redeliveries", i+1, n)
		}
	}
}
