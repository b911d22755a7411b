// Package proxy stands between a process and its server on the loopback and
// breaks the link on purpose: it holds back what flows in one direction, or
// cuts. It is how the demo and the tests kill a process between two steps
// without a hook in it. It can also be slow, cut up what it carries, and lose a
// COMMIT or the reply to one.
//
// A proxy changes nothing of what it carries, and reads none of it but COMMIT.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// Direction is one of the two ways through a proxy.
type Direction int

const (
	// ToServer carries requests: queries, publishes, acks.
	ToServer Direction = iota
	// ToClient carries replies and deliveries.
	ToClient
)

// Proxy forwards connections to one server.
type Proxy struct {
	listener net.Listener
	gates    [2]gate
	commits  commits
	delay    atomic.Int64 // of each read, in nanoseconds
	slice    atomic.Int64 // bytes a write, 0 for all

	mu     sync.Mutex
	target string
	links  map[*link]struct{}
}

// Listen opens a port on the loopback for target, a host and port. Nothing is
// forwarded until Run.
func Listen(target string) (*Proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("proxy: listen: %w", err)
	}
	return &Proxy{listener: l, target: target, links: map[*link]struct{}{}}, nil
}

// Addr is where to connect instead of to the server.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Run forwards until ctx is done, then closes every connection.
func (p *Proxy) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	defer context.AfterFunc(ctx, func() { p.listener.Close() })()
	for {
		client, err := p.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return g.Wait()
		}
		if err != nil {
			return errors.Join(fmt.Errorf("proxy: accept: %w", err), g.Wait())
		}
		g.Go(func() error {
			p.carry(ctx, client)
			return nil
		})
	}
}

// Hold keeps back what flows in direction d from now on, until Release. What a
// killed process had sent is dropped with its connection.
func (p *Proxy) Hold(d Direction) { p.gates[d].close() }

// Release lets everything held flow on.
func (p *Proxy) Release(d Direction) { p.gates[d].open() }

// Slow holds every read up by delay, and writes on at most slice bytes at a
// time. Zero is no delay, and all at once.
func (p *Proxy) Slow(delay time.Duration, slice int) {
	p.delay.Store(int64(delay))
	p.slice.Store(int64(slice))
}

// Retarget has new connections go to another server.
func (p *Proxy) Retarget(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
}

// Cut closes every connection; new ones are accepted.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.cut()
	}
}

// link is a client's connection and ours to the server.
type link struct {
	client, server net.Conn
	ended          chan struct{}
	once           sync.Once
	deaf           atomic.Bool // the next reply is lost, and the link with it
}

func (l *link) cut() {
	l.once.Do(func() {
		close(l.ended)
		l.client.Close()
		l.server.Close()
	})
}

// carry forwards one connection until either side, a cut or ctx ends it.
func (p *Proxy) carry(ctx context.Context, client net.Conn) {
	p.mu.Lock()
	target := p.target
	p.mu.Unlock()
	server, err := net.Dial("tcp", target)
	if err != nil {
		client.Close() // the client sees a server that is away, which it is
		return
	}
	l := &link{client: client, server: server, ended: make(chan struct{})}
	p.mu.Lock()
	p.links[l] = struct{}{}
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.links, l)
		p.mu.Unlock()
	}()
	defer context.AfterFunc(ctx, l.cut)()
	var g errgroup.Group
	g.Go(func() error { return p.pump(l, ToServer) })
	g.Go(func() error { return p.pump(l, ToClient) })
	_ = g.Wait() // either end closing is how a connection ends
}

func (p *Proxy) pump(l *link, d Direction) error {
	defer l.cut()
	from, to := l.client, l.server
	if d == ToClient {
		from, to = to, from
	}
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if !p.pass(l, d, buf[:n]) {
				return net.ErrClosed
			}
			if err := p.write(to, buf[:n]); err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
	}
}

// pass waits until b may go on in direction d, and reports false if it never may.
func (p *Proxy) pass(l *link, d Direction, b []byte) bool {
	if d == ToClient && l.deaf.Load() {
		return false
	}
	if d == ToServer && !p.commits.pass(l, b) {
		return false
	}
	if delay := time.Duration(p.delay.Load()); delay > 0 {
		select {
		case <-time.After(delay):
		case <-l.ended:
			return false
		}
	}
	return p.gates[d].pass(l.ended)
}

func (p *Proxy) write(to net.Conn, b []byte) error {
	slice := int(p.slice.Load())
	if slice == 0 {
		slice = len(b)
	}
	for part := range slices.Chunk(b, slice) {
		if _, err := to.Write(part); err != nil {
			return err
		}
	}
	return nil
}

// gate is open at first.
type gate struct {
	mu   sync.Mutex
	shut chan struct{} // closed by open; nil while open
}

func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut == nil {
		g.shut = make(chan struct{})
	}
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut != nil {
		close(g.shut)
		g.shut = nil
	}
}

// pass waits until the gate is open, and reports whether it opened before ended.
func (g *gate) pass(ended <-chan struct{}) bool {
	g.mu.Lock()
	shut := g.shut
	g.mu.Unlock()
	if shut == nil {
		return true
	}
	select {
	case <-shut:
		return true
	case <-ended:
		return false
	}
}
