package handlers

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"
)

// guard decides which addresses may be dialled. The URL is the operator's, but
// what a name resolves to is not: whoever owns the name could point it at this
// machine, or at the cloud's metadata service, which hands out credentials.
//
// Link-local, metadata and multicast addresses are never dialled. Loopback and
// private ones are where the URL says so itself (localhost, an address, a name
// inside a cluster), and otherwise only if the operator allows it.
type guard struct{ private bool }

func (g guard) transport() *http.Transport {
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second, Control: g.control}
	return &http.Transport{
		DialContext:            dialer.DialContext, // and no proxy, which would hide the address
		ForceAttemptHTTP2:      true,
		DisableCompression:     true, // so that maxResult bounds what is read
		TLSHandshakeTimeout:    10 * time.Second,
		MaxIdleConnsPerHost:    32,
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
	}
}

// control sees the address after the name was resolved.
func (g guard) control(_, address string, _ syscall.RawConn) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("address %s: %w", address, err)
	}
	return g.check(at.Addr())
}

func (g guard) check(a netip.Addr) error {
	a = a.Unmap().WithZone("")
	switch {
	case never(a):
		return fmt.Errorf("address %s is refused: it is link-local, multicast or a cloud's metadata service", a)
	case !g.private && inside(a):
		return fmt.Errorf("address %s is refused: it is private, and the URL's name is not; set allow_private: true if that is meant", a)
	}
	return nil
}

// metadata are services of clouds (AWS by IPv6, Alibaba, Oracle) that are not
// link-local.
var metadata = []netip.Addr{
	netip.MustParseAddr("fd00:ec2::254"), netip.MustParseAddr("100.100.100.200"), netip.MustParseAddr("192.0.0.192"),
}

func never(a netip.Addr) bool {
	return a.IsLinkLocalUnicast() || a.IsMulticast() || a.IsUnspecified() || slices.Contains(metadata, a)
}

var carrierNAT = netip.MustParsePrefix("100.64.0.0/10")

func inside(a netip.Addr) bool {
	return a.IsLoopback() || a.IsPrivate() || carrierNAT.Contains(a)
}

// saysPrivate reports whether nobody on the Internet decides what host means.
func saysPrivate(host string) bool {
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	labels := strings.Split(strings.ToLower(strings.TrimSuffix(host, ".")), ".")
	return len(labels) == 1 || slices.Contains([]string{"localhost", "local", "internal", "svc"}, labels[len(labels)-1])
}

// literal refuses a URL whose host is an address that is never dialled.
func literal(host string) error {
	a, err := netip.ParseAddr(host)
	if err != nil {
		return nil // a name: the dialer sees what it means
	}
	return guard{private: true}.check(a)
}
