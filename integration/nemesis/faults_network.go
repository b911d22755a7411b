package main

import (
	"context"
	"time"

	"github.com/jetboxhq/jetbox/internal/proxy"
	"github.com/jetboxhq/jetbox/internal/wait"
)

const (
	toServer = proxy.ToServer
	toClient = proxy.ToClient
)

// cutLink breaks every connection of the link, again and again.
func cutLink(ctx context.Context, l *lab, f fault) error {
	for end := time.Now().Add(f.For); time.Now().Before(end); {
		l.links[f.Target].Cut()
		wait.Sleep(ctx, 300*time.Millisecond)
	}
	return nil
}

func slowLink(ctx context.Context, l *lab, f fault) error {
	defer l.links[f.Target].Slow(0, 0)
	l.links[f.Target].Slow(100*time.Millisecond, 0)
	wait.Sleep(ctx, f.For)
	return nil
}

func sliceLink(ctx context.Context, l *lab, f fault) error {
	defer l.links[f.Target].Slow(0, 0)
	l.links[f.Target].Slow(0, 7)
	wait.Sleep(ctx, f.For)
	return nil
}

// holeLink swallows what flows either way, without an end of the connections;
// they die when it heals, as after a partition longer than their patience.
func holeLink(ctx context.Context, l *lab, f fault) error {
	p := l.links[f.Target]
	p.Hold(proxy.ToServer)
	p.Hold(proxy.ToClient)
	wait.Sleep(ctx, f.For)
	p.Cut()
	p.Release(proxy.ToServer)
	p.Release(proxy.ToClient)
	return nil
}

// halfHoleLink holds what the server says back, and lets it arrive late.
func halfHoleLink(ctx context.Context, l *lab, f fault) error {
	p := l.links[f.Target]
	defer p.Release(proxy.ToClient)
	p.Hold(proxy.ToClient)
	wait.Sleep(ctx, f.For)
	return nil
}

// loseCommits loses COMMITs one after another, before or after the server has
// them.
func loseCommits(d proxy.Direction) func(context.Context, *lab, fault) error {
	return func(ctx context.Context, l *lab, f fault) error {
		p := l.links[f.Target]
		defer p.KeepCommits()
		for end := time.Now().Add(f.For); time.Now().Before(end); {
			p.LoseCommit(d)
			wait.Sleep(ctx, 200*time.Millisecond)
		}
		return nil
	}
}
