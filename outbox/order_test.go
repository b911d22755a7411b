package outbox_test

import (
	"encoding/json"
	"net/url"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/jetboxhq/jetbox/integration/testenv"
	"github.com/jetboxhq/jetbox/internal/proxy"
)

const (
	orderMessages = 100_000
	orderKeys     = 50
	doubtful      = 2_500 // new messages by the plain route, after each start on a replicated stream
)

// enqueueKeyed puts a backlog of many keys into the outbox.
func (l *lab) enqueueKeyed() {
	l.t.Helper()
	l.exec(`INSERT INTO jetbox.outbox (subject, key, payload)
		SELECT $1, (i % $3)::text, to_json(i) FROM generate_series(0, $2::int - 1) i`, l.prefix+".x", orderMessages, orderKeys)
}

// recorded is how many messages the ledger says are published.
func (l *lab) recorded() int {
	l.t.Helper()
	return ask[int](l, `SELECT coalesce(sum(n), 0) FROM jetbox.relay_batch`)
}

// midway waits until more than n of the backlog is published.
func (l *lab) midway(n int) {
	l.t.Helper()
	testenv.Eventually(l.t, "part of the backlog", func() bool { return l.recorded() > n })
	if l.recorded() >= orderMessages {
		l.t.Fatal("the backlog was through before it could be disturbed")
	}
}

// wantOrder checks that each key's messages are in the stream without a hole,
// in the order of their rows; a repeat of what is there already is no harm.
func (l *lab) wantOrder() {
	l.t.Helper()
	for last := -1; l.recorded() > last && l.recorded() < orderMessages; { // while there is progress
		last = l.recorded()
		testenv.Eventually(l.t, "more of the backlog", func() bool { return l.recorded() > last })
	}
	l.waitCaughtUp()
	next := make([]int, orderKeys)
	for _, m := range l.stored() {
		var n int
		if err := json.Unmarshal(m.Data(), &n); err != nil {
			l.t.Fatal(err)
		}
		key, turn := n%orderKeys, n/orderKeys
		if turn > next[key] {
			l.t.Fatalf("key %d: message %d is stored, but %d is not yet", key, turn, next[key])
		}
		if turn == next[key] {
			next[key]++
		}
	}
	for key, n := range next {
		if n != orderMessages/orderKeys {
			l.t.Errorf("key %d: %d messages, want %d", key, n, orderMessages/orderKeys)
		}
	}
}

func TestRelay_KeepsTheOrderWhenItsConnectionIsCut(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	link := l.behindProxy()
	l.enqueueKeyed()
	l.relay()
	l.midway(8000)
	for range 3 {
		link.Cut()
		time.Sleep(50 * time.Millisecond)
	}
	l.wantOrder()
}

// behindProxy makes relays that start from now on reach NATS through a proxy.
func (l *lab) behindProxy() *proxy.Proxy {
	l.t.Helper()
	u, err := url.Parse(l.nats)
	if err != nil {
		l.t.Fatal(err)
	}
	p, err := proxy.Listen(u.Host)
	if err != nil {
		l.t.Fatal(err)
	}
	done := make(chan error, 1)
	ctx := l.t.Context() // done just before the cleanups run
	go func() { done <- p.Run(ctx) }()
	l.t.Cleanup(func() {
		if err := <-done; err != nil {
			l.t.Error(err)
		}
	})
	l.nats = "nats://" + p.Addr()
	return p
}

func TestRelay_KeepsTheOrderWhenTheServerIsKilled(t *testing.T) {
	t.Parallel()
	own := testenv.OwnNATS(t)
	l := newLabOn(t, own.URL())
	l.enqueueKeyed()
	l.relay()
	l.midway(8000)
	if err := own.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := own.Start(); err != nil {
		t.Fatal(err)
	}
	l.wantOrder()
}

func TestRelay_KeepsTheOrderWhenTheLeaderStepsDown(t *testing.T) {
	t.Parallel()
	servers := testenv.Cluster(t)
	l := newLabOn(t, servers[0].ClientURL())
	l.stream.Replicas = 3
	// A leader that steps down and leads again may call an ID "in process" whose
	// message is lost, until this is over (nats-server 2.15.2).
	l.stream.Duplicates = 20 * time.Second
	l.enqueueKeyed()
	l.relay()
	l.midway(doubtful + 8000) // by then it is by the fast route
	for range 3 {
		nc, err := nats.Connect(servers[0].ClientURL())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := nc.Request("$JS.API.STREAM.LEADER.STEPDOWN."+l.stream.Name, nil, 5*time.Second); err != nil {
			t.Log(err) // an election was under way
		}
		nc.Close()
		time.Sleep(200 * time.Millisecond)
	}
	l.wantOrder()
}
