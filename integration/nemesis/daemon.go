package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jetboxhq/jetbox/internal/process"
	"github.com/jetboxhq/jetbox/internal/wait"
)

// daemon is a process with a supervisor, as an installation would have one: it
// is started again when it has ended, unless a fault holds it down.
type daemon struct {
	*process.Process
	mu    sync.Mutex
	exits []string   // without our asking: what the process said last; for supervise
	down  sync.Mutex // held: not to be started
	asked atomic.Bool
}

// supervise keeps the process running until ctx is done, then stops it.
func (d *daemon) supervise(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := d.start(); err != nil {
			return err
		}
		select {
		case <-d.Ended():
			if !d.asked.Swap(false) {
				d.exits = append(d.exits, fmt.Sprintf("%v\n%s", d.Err(), d.Tail()))
			}
			wait.Sleep(ctx, 200*time.Millisecond)
		case <-ctx.Done():
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.Stop()
}

func (d *daemon) start() error {
	d.down.Lock()
	defer d.down.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.Start()
}

// signal sends sig; a process that has ended by itself gets none.
func (d *daemon) signal(sig syscall.Signal) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// end sends sig, keeps the process down for a while once it has ended, and
// calls then before it may start again.
func (d *daemon) end(ctx context.Context, sig syscall.Signal, away time.Duration, then func() error) error {
	d.down.Lock()
	defer d.down.Unlock()
	d.asked.Store(true)
	ended := d.Ended()
	if err := d.signal(sig); err != nil {
		return err
	}
	select {
	case <-ended:
	case <-ctx.Done():
		return ctx.Err()
	}
	wait.Sleep(ctx, away)
	return then()
}

// freeze stops the process where it stands, and lets it go on after a while.
func (d *daemon) freeze(ctx context.Context, away time.Duration) error {
	if err := d.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	wait.Sleep(ctx, away)
	return d.signal(syscall.SIGCONT)
}
