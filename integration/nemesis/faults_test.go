package main

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"

	"github.com/jetboxhq/jetbox/integration/testenv"
	"github.com/jetboxhq/jetbox/internal/proxy"
)

// A fault that does nothing would be survived by anything.

func TestShift_MovesTheClockOfPostgresAlone(t *testing.T) {
	t.Parallel()
	if faketime() == "" {
		t.Skip("libfaketime is not installed")
	}
	l := openLab(t, plan{Servers: 1, Clock: true})
	for _, by := range []time.Duration{10 * time.Minute, -10 * time.Minute, 0} {
		if err := l.postgres.shift(by); err != nil {
			t.Fatal(err)
		}
		var now time.Time
		if err := l.db.QueryRow(t.Context(), `SELECT clock_timestamp()`).Scan(&now); err != nil {
			t.Fatal(err)
		}
		if got := time.Until(now).Round(10 * time.Minute); got != by {
			t.Errorf("shifted by %v, the clock is ahead by %v", by, got)
		}
	}
}

func TestRoutes_IsolateOneServer(t *testing.T) {
	t.Parallel()
	l := openLab(t, plan{Servers: 3})
	heard := dial(t, l, "nats-3")
	sub, err := heard.SubscribeSync("hello")
	if err != nil {
		t.Fatal(err)
	}
	for _, from := range []string{"nats-1", "nats-2"} {
		hears(t, dial(t, l, from), sub)
	}
	for _, p := range l.struck(fault{Target: "nats-1"}) {
		p.Hold(proxy.ToServer)
		p.Hold(proxy.ToClient)
	}
	for _, from := range []string{"nats-1", "nats-2"} {
		greet(t, dial(t, l, from), from)
	}
	got := greeting
	for got == greeting {
		m, err := sub.NextMsg(patience)
		if err != nil {
			t.Fatal(err)
		}
		got = string(m.Data)
	}
	if got != "nats-2" {
		t.Errorf("%s was heard, though it is isolated", got)
	}
}

const greeting = "are you there?"

// hears waits until what is said to one server is heard at another.
func hears(t *testing.T, nc *nats.Conn, sub *nats.Subscription) {
	t.Helper()
	err := until(t.Context(), patience, func(context.Context) (bool, error) {
		greet(t, nc, greeting)
		_, err := sub.NextMsg(100 * time.Millisecond)
		return err == nil, err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func greet(t *testing.T, nc *nats.Conn, text string) {
	t.Helper()
	if err := nc.Publish("hello", []byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
}

func dial(t *testing.T, l *lab, server string) *nats.Conn {
	t.Helper()
	return testenv.Dial(t, "nats://"+l.servers[server].addr, nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1))
}

// openLab is servers and links, without daemons.
func openLab(t *testing.T, p plan) *lab {
	t.Helper()
	bin, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	g, ctx := errgroup.WithContext(ctx)
	l, err := open(ctx, p, t.TempDir(), bin, g)
	t.Cleanup(func() {
		stop()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
		if err := l.close(); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}
