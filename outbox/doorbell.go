package outbox

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/jetboxhq/jetbox/internal/wait"
)

// doorbell lets an idle relay sleep until a writer rings. Asleep means holding
// the advisory lock exclusively: writers then cannot share it, so they notify.
// When the relay cannot get it, a writer is in flight and will not notify: the
// relay stays awake. So no wake-up is missed, and under load nobody notifies.
type doorbell struct {
	conn     *pgx.Conn
	asleep   bool
	busy     time.Time // when rows were found last
	refusals int
	fallback time.Duration
	m        *metrics
}

const listenSQL = `LISTEN jetbox_outbox`

func (d *doorbell) listen(ctx context.Context) error {
	if _, err := d.conn.Exec(ctx, listenSQL); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	return nil
}

// A relay stays awake for linger after it has found rows, and polls every breath
// unless it finds many. If it lay down in each gap between commits, many writers
// at once would find it asleep, and NOTIFY lets their commits flush only one after
// the other. If it took no breath, a poll, a batch and a record would be made for
// every message or two, which cost as much as for many.
const (
	linger = 10 * time.Millisecond
	breath = time.Millisecond
	many   = 64 // rows
)

// wait returns when it is time for the next poll. The first call after linger
// only lies down: the caller must poll once more before it sleeps.
func (d *doorbell) wait(ctx context.Context) error {
	switch {
	case time.Since(d.busy) < linger:
		wait.Sleep(ctx, breath)
		return nil
	case !d.asleep:
		return d.lieDown(ctx)
	}
	rung, err := notified(ctx, d.conn, d.fallback)
	if err != nil {
		return err
	}
	d.m.wakeup(rung)
	if rung {
		return d.awake(ctx)
	}
	return nil
}

// lockSQL and unlockSQL name the lock of jetbox.announce: 'jetbox' in ASCII.
const (
	lockSQL   = `SELECT pg_try_advisory_lock(116983976849272)`
	unlockSQL = `SELECT pg_advisory_unlock(116983976849272)`
)

func (d *doorbell) lieDown(ctx context.Context) error {
	d.hush()
	if err := d.conn.QueryRow(ctx, lockSQL).Scan(&d.asleep); err != nil {
		return fmt.Errorf("lock doorbell: %w", err)
	}
	if d.asleep {
		d.refusals = 0
		return nil
	}
	// A writer's commit is usually near; a transaction that stays open for
	// minutes, or a frozen relay that kept the lock, is polled less often.
	pause := min(time.Millisecond<<min(d.refusals, 5), 25*time.Millisecond)
	d.refusals++
	_, err := notified(ctx, d.conn, pause)
	return err
}

// found notes that a poll found n rows, and returns when it is time for the next.
func (d *doorbell) found(ctx context.Context, n int) error {
	d.busy = time.Now()
	if err := d.awake(ctx); err != nil {
		return err
	}
	d.hush()
	if n < many {
		wait.Sleep(ctx, breath)
	}
	return nil
}

// hush forgets the rings so far: a poll comes before the next sleep. They come
// without end while another relay, which is gone, still has the lock.
func (d *doorbell) hush() {
	now, cancel := context.WithCancel(context.Background())
	cancel()
	for {
		if _, err := d.conn.WaitForNotification(now); err != nil {
			return
		}
	}
}

// awake gives the lock back, so that writers stop notifying.
func (d *doorbell) awake(ctx context.Context) error {
	if !d.asleep {
		return nil
	}
	d.asleep = false
	if _, err := d.conn.Exec(ctx, unlockSQL); err != nil {
		return fmt.Errorf("unlock doorbell: %w", err)
	}
	return nil
}
