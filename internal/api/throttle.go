package api

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	failuresAtOnce = 20
	failureEvery   = time.Second
	strangers      = 10_000 // addresses to remember, at most
)

// throttle keeps whoever sends wrong tokens from having the database look for
// each. A token that was right before passes whatever its neighbours do: behind
// a proxy all have one address.
type throttle struct {
	mu       sync.Mutex
	failures map[netip.Prefix]*rate.Limiter
	known    map[[32]byte]bool // hashes of tokens that were right
}

func newThrottle() *throttle {
	return &throttle{failures: map[netip.Prefix]*rate.Limiter{}, known: map[[32]byte]bool{}}
}

// refuses reports whether addr has failed too often to be asked again so soon.
func (t *throttle) refuses(addr string, hash [32]byte) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.failures[network(addr)]
	return l != nil && l.Tokens() < 1 && !t.known[hash]
}

// right notes that a token was.
func (t *throttle) right(hash [32]byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.known[hash] = true
}

// wrong notes that addr had no token, or a wrong one.
func (t *throttle) wrong(addr string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.failures) >= strangers {
		clear(t.failures)
	}
	from := network(addr)
	if t.failures[from] == nil {
		t.failures[from] = rate.NewLimiter(rate.Every(failureEvery), failuresAtOnce)
	}
	t.failures[from].Allow()
}

// network is what one person has: an IPv4 address, or the first half of an IPv6
// address. What is neither is one network of its own.
func network(addr string) netip.Prefix {
	a, err := netip.ParseAddrPort(addr)
	if err != nil {
		return netip.Prefix{}
	}
	ip := a.Addr().Unmap()
	p, err := ip.Prefix(min(ip.BitLen(), 64))
	if err != nil {
		return netip.Prefix{}
	}
	return p
}
