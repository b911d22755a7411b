package inbox_test

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/jetboxhq/jetbox/internal/proxy"
)

// network is the way to Postgres, with faults at the moments that matter.
type network struct {
	beforeCommit atomic.Int32 // how many COMMITs are cut off before they are sent
	afterCommit  atomic.Int32 // how many lose their reply
	hold         atomic.Pointer[chan struct{}]
	held         atomic.Int32 // COMMITs that hold has stopped
	down         atomic.Bool
	cuts         atomic.Int32 // COMMITs that have been cut

	mu    sync.Mutex
	conns map[net.Conn]struct{}
}

var errCut = errors.New("the test has cut the connection")

// newNetwork returns a pool on the test's database whose connections go through
// a network of the test's own.
func newNetwork(t testing.TB, db *pgxpool.Pool) (*network, *pgxpool.Pool) {
	t.Helper()
	n := &network{conns: map[net.Conn]struct{}{}}
	cfg := db.Config()
	dial := cfg.ConnConfig.DialFunc
	cfg.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if n.down.Load() {
			return nil, errCut
		}
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		n.conns[conn] = struct{}{}
		return &tap{Conn: conn, n: n}, nil
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return n, pool
}

// cut takes the network down and breaks every connection.
func (n *network) cut() {
	n.down.Store(true)
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.conns {
		_ = c.Close()
	}
	clear(n.conns)
}

// tap is one connection.
type tap struct {
	net.Conn
	n    *network
	deaf atomic.Bool // the next reply is lost, and the connection with it
}

func (w *tap) Write(b []byte) (int, error) {
	if !proxy.IsCommit(b) {
		return w.Conn.Write(b)
	}
	if gate := w.n.hold.Load(); gate != nil {
		w.n.held.Add(1)
		<-*gate
	}
	switch {
	case take(&w.n.beforeCommit):
		w.n.cuts.Add(1)
		return 0, errors.Join(errCut, w.Close())
	case take(&w.n.afterCommit):
		w.n.cuts.Add(1)
		w.deaf.Store(true)
	}
	return w.Conn.Write(b)
}

func (w *tap) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	if w.deaf.Load() && n > 0 {
		return 0, errors.Join(io.ErrUnexpectedEOF, w.Close())
	}
	return n, err
}

func take(n *atomic.Int32) bool {
	for {
		v := n.Load()
		if v <= 0 {
			return false
		}
		if n.CompareAndSwap(v, v-1) {
			return true
		}
	}
}
