// Package proxy stands between a process and its server on the loopback and
// breaks the link on purpose: it holds back what flows in one direction, or
// cuts. It is how the demo and the tests kill a process between two steps
// without a hook in it.
//
// A proxy neither reads nor changes what it carries.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

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
	target   string
	gates    [2]gate

	mu    sync.Mutex
	links map[*link]struct{}
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
	server, err := net.Dial("tcp", p.target)
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
	g.Go(func() error { return l.pump(server, client, &p.gates[ToServer]) })
	g.Go(func() error { return l.pump(client, server, &p.gates[ToClient]) })
	_ = g.Wait() // either end closing is how a connection ends
}

func (l *link) pump(to, from net.Conn, g *gate) error {
	defer l.cut()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if !g.pass(l.ended) {
				return net.ErrClosed
			}
			if _, err := to.Write(buf[:n]); err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
	}
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
