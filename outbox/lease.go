package outbox

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

// errLeaseLost reports a lease that could not be renewed in time.
var errLeaseLost = fmt.Errorf("lease lost: %w", errFenced)

// lease is the right to publish. Only the database's clock decides when it
// ends; the process's own, which is monotonic, tells a relay to stop before that.
type lease struct {
	conn  *pgx.Conn
	owner string
	ttl   time.Duration
	epoch int64
	until atomic.Pointer[time.Time] // no publishing after this moment
}

// valid reports whether the relay may still publish. A process that was frozen
// finds its lease over as soon as it thaws.
func (l *lease) valid() bool {
	return time.Now().Before(*l.until.Load())
}

// extend counts the term from before the database was asked: never too long.
func (l *lease) extend(asked time.Time) {
	until := asked.Add(l.ttl)
	l.until.Store(&until)
}

const listenLeaseSQL = `LISTEN jetbox_lease`

// acquire waits until the lease is free and takes it under a new epoch. It calls
// standingBy when another relay holds it.
func (l *lease) acquire(ctx context.Context, standingBy func()) error {
	if _, err := l.conn.Exec(ctx, listenLeaseSQL); err != nil {
		return fmt.Errorf("listen for lease: %w", err)
	}
	for {
		taken, err := l.take(ctx)
		if err != nil || taken {
			return err
		}
		standingBy()
		if err := l.waitUntilFree(ctx); err != nil {
			return err
		}
	}
}

// takeLeaseSQL also takes a lease that was renewed in the future: the clock has
// been set back since, and the lease would outlive its holder by as much.
const takeLeaseSQL = `
UPDATE jetbox.relay_lease
SET epoch = epoch + 1, owner = @owner, renewed_at = clock_timestamp(), expires_at = clock_timestamp() + @ttl
WHERE expires_at <= clock_timestamp() OR renewed_at > clock_timestamp() + @ttl
RETURNING epoch`

func (l *lease) take(ctx context.Context) (bool, error) {
	asked := time.Now()
	err := l.conn.QueryRow(ctx, takeLeaseSQL, pgx.StrictNamedArgs{"owner": l.owner, "ttl": l.ttl}).Scan(&l.epoch)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("take lease: %w", err)
	}
	l.extend(asked)
	return true, nil
}

const leaseLeftSQL = `
SELECT greatest(extract(epoch FROM expires_at - clock_timestamp()), 0)::float8
FROM jetbox.relay_lease`

// waitUntilFree sleeps until the lease ends by time, or its holder gives it back.
func (l *lease) waitUntilFree(ctx context.Context) error {
	var left float64
	if err := l.conn.QueryRow(ctx, leaseLeftSQL).Scan(&left); err != nil {
		return fmt.Errorf("read lease: %w", err)
	}
	_, err := notified(ctx, l.conn, min(time.Duration(left*float64(time.Second)), l.ttl)+time.Millisecond)
	return err
}

// pulse is what a renewal of the lease brings along.
type pulse struct {
	due    bool // a scheduled message is
	paused bool // an operator wants no publishing
}

// renewLeaseSQL also asks for the pulse: one round trip a second for all of it
// keeps an idle relay quiet.
const renewLeaseSQL = `
UPDATE jetbox.relay_lease
SET renewed_at = clock_timestamp(), expires_at = clock_timestamp() + @ttl
WHERE epoch = @epoch AND owner = @owner
RETURNING jetbox.scheduled_is_due(), coalesce(paused_until > clock_timestamp(), false)`

// renew prolongs the lease, unless another relay has taken it.
func (l *lease) renew(ctx context.Context) (p pulse, err error) {
	ctx, cancel := context.WithDeadlineCause(ctx, *l.until.Load(), errLeaseLost)
	defer cancel()
	asked := time.Now()
	err = l.conn.QueryRow(ctx, renewLeaseSQL, pgx.StrictNamedArgs{"epoch": l.epoch, "owner": l.owner, "ttl": l.ttl}).Scan(&p.due, &p.paused)
	switch {
	case errors.Is(err, pgx.ErrNoRows), errors.Is(context.Cause(ctx), errLeaseLost):
		return p, errLeaseLost
	case err != nil:
		return p, fmt.Errorf("renew lease: %w", err)
	}
	l.extend(asked)
	return p, nil
}

const releaseLeaseSQL = `
WITH released AS (
	UPDATE jetbox.relay_lease SET expires_at = 'epoch'
	WHERE epoch = $1 AND owner = $2
	RETURNING epoch)
SELECT pg_notify('jetbox_lease', '') FROM released`

// release gives the lease back, so that a standby takes over at once.
func (l *lease) release(ctx context.Context) error {
	if _, err := l.conn.Exec(ctx, releaseLeaseSQL, l.epoch, l.owner); err != nil {
		return fmt.Errorf("release lease: %w", err)
	}
	return nil
}

// notified waits for a notification on conn for at most d and reports whether
// one came.
func notified(ctx context.Context, conn *pgx.Conn, d time.Duration) (bool, error) {
	wait, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	_, err := conn.WaitForNotification(wait)
	switch {
	case err == nil:
		return true, nil
	case ctx.Err() != nil:
		return false, ctx.Err()
	case wait.Err() != nil:
		return false, nil
	}
	return false, fmt.Errorf("wait for notification: %w", err)
}
