package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"
)

// on is what a kind of fault strikes.
type on int

const (
	aDaemon on = iota
	aRelay
	aServer
	aLink
	aPostgresLink // of a daemon that commits
	thePostgres
	theClock // of Postgres
	theStream
)

// kind is a way to break something. inject returns when it has been mended
// again, and what it returns besides is that nothing was broken at all.
type kind struct {
	on       on
	servers  int           // how many the lab must have; 0 for any number
	unorders bool          // takes messages from the stream, so that its order cannot be judged
	longest  time.Duration // zero means the plan's
	inject   func(ctx context.Context, l *lab, f fault) error
}

// faults are all there are. A fault that does what another one does under
// another name is not among them.
var faults = map[string]kind{
	"kill":             {on: aDaemon, inject: endDaemon(syscall.SIGKILL)},
	"terminate":        {on: aDaemon, inject: endDaemon(syscall.SIGTERM)},
	"freeze":           {on: aDaemon, inject: freezeDaemon},
	"freeze-recording": {on: aRelay, inject: freezeRecording},

	"nats-kill":   {on: aServer, inject: endServer(syscall.SIGKILL)},
	"nats-stop":   {on: aServer, inject: endServer(syscall.SIGTERM)},
	"nats-freeze": {on: aServer, inject: freezeServer},

	"nats-rollback":   {on: aServer, servers: 1, inject: rollBackStore},
	"stream-delete":   {on: theStream, unorders: true, inject: deleteStream},
	"stream-recreate": {on: theStream, unorders: true, inject: recreateStream},
	"stream-purge":    {on: theStream, unorders: true, inject: purgeStream},
	"stream-fill":     {on: theStream, inject: fillStream},
	"disk-fill":       {on: theStream, inject: fillDisk},
	"consumer-delete": {on: theStream, inject: deleteConsumer},
	"step-down":       {on: theStream, servers: 3, inject: stepDown},
	"quorum-loss":     {on: theStream, servers: 3, inject: loseQuorum},

	"pg-stop":      {on: thePostgres, inject: crashPostgres(syscall.SIGQUIT)},
	"pg-kill":      {on: thePostgres, inject: crashPostgres(syscall.SIGKILL)},
	"pg-terminate": {on: thePostgres, inject: terminateBackends},
	"pg-hold-xmin": {on: thePostgres, inject: holdTransaction(holdXminSQL)},
	"pg-lock":      {on: thePostgres, inject: holdTransaction(lockSQL)},

	"clock-forward": {on: theClock, inject: shiftClock(10 * time.Minute)},
	"clock-back":    {on: theClock, inject: shiftClock(-10 * time.Minute)},
	"clock-jump":    {on: theClock, inject: shiftClock(30*time.Second, -30*time.Second)},

	"route-cut":  {on: aServer, servers: 3, inject: cutLinks},
	"route-hole": {on: aServer, servers: 3, longest: election, inject: holeLinks},

	"link-cut":        {on: aLink, inject: cutLinks},
	"link-slow":       {on: aLink, inject: slowLink},
	"link-slice":      {on: aLink, inject: sliceLink},
	"link-hole":       {on: aLink, inject: holeLinks},
	"link-half-hole":  {on: aLink, inject: halfHoleLink},
	"commit-not-sent": {on: aPostgresLink, inject: loseCommits(toServer)},
	"commit-unheard":  {on: aPostgresLink, inject: loseCommits(toClient)},
}

func endDaemon(sig syscall.Signal) func(context.Context, *lab, fault) error {
	return func(ctx context.Context, l *lab, f fault) error {
		return l.daemons[f.Target].end(ctx, sig, f.For, nothing)
	}
}

func endServer(sig syscall.Signal) func(context.Context, *lab, fault) error {
	return func(ctx context.Context, l *lab, f fault) error {
		return l.servers[f.Target].end(ctx, sig, f.For, nothing)
	}
}

func nothing() error { return nil }

func freezeDaemon(ctx context.Context, l *lab, f fault) error {
	return l.daemons[f.Target].freeze(ctx, f.For)
}

func freezeServer(ctx context.Context, l *lab, f fault) error {
	return l.servers[f.Target].freeze(ctx, f.For)
}

// inject strikes with f. A server that other faults keep away all the time
// cannot be struck, which breaks nothing that is not broken.
func (l *lab) inject(ctx context.Context, f fault) error {
	err := faults[f.Kind].inject(ctx, l, f)
	if err == nil || ctx.Err() != nil || errors.Is(err, errTimeout) && !errors.Is(err, errNoPostgres) {
		return nil
	}
	return fmt.Errorf("%s %s: %w", f.Kind, f.Target, err)
}
