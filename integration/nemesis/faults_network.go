package main

import (
	"context"
	"strings"
	"time"

	"github.com/jetboxhq/jetbox/internal/proxy"
	"github.com/jetboxhq/jetbox/internal/wait"
)

const (
	toServer = proxy.ToServer
	toClient = proxy.ToClient
)

// election is longer than a cluster needs to see that its leader is gone and to
// have another.
const election = 12 * time.Second

// struck are the links that f strikes: one, or all routes of a server.
func (l *lab) struck(f fault) (links []*proxy.Proxy) {
	for name, p := range l.links {
		from, to, _ := strings.Cut(name, "→")
		route := l.servers[from] != nil
		if name == f.Target || route && (from == f.Target || to == f.Target) {
			links = append(links, p)
		}
	}
	return links
}

// cutLinks breaks every connection, again and again.
func cutLinks(ctx context.Context, l *lab, f fault) error {
	for end := time.Now().Add(f.For); time.Now().Before(end); {
		for _, p := range l.struck(f) {
			p.Cut()
		}
		if !wait.Sleep(ctx, 300*time.Millisecond) {
			return nil
		}
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

// holeLinks swallows what flows either way, without an end of the connections;
// they die when it heals, as after a partition longer than their patience.
func holeLinks(ctx context.Context, l *lab, f fault) error {
	for _, p := range l.struck(f) {
		p.Hold(proxy.ToServer)
		p.Hold(proxy.ToClient)
	}
	wait.Sleep(ctx, f.For)
	for _, p := range l.struck(f) {
		p.Cut()
		p.Release(proxy.ToServer)
		p.Release(proxy.ToClient)
	}
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
