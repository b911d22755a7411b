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
	a = embedded(a.Unmap().WithZone(""))
	switch {
	case never(a):
		return fmt.Errorf("address %s is refused: it is link-local, multicast or a cloud's metadata service", a)
	case !g.private && inside(a):
		return fmt.Errorf("address %s is refused: it is private, and the URL's name is not; set allow_private: true if that is meant", a)
	}
	return nil
}

// nat64 is where a network without IPv4 reaches it: the last four bytes are the
// address that is dialled in the end.
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// embedded is the IPv4 address that a means by NAT64, else a itself.
func embedded(a netip.Addr) netip.Addr {
	if !nat64.Contains(a) {
		return a
	}
	b := a.As16()
	return netip.AddrFrom4([4]byte(b[12:]))
}

// metadata are services of clouds (AWS and Google by IPv6, Alibaba, Oracle,
// Azure) that are not link-local. AWS has more than one in its prefix.
var metadata = []netip.Prefix{
	netip.MustParsePrefix("fd00:ec2::/32"), netip.MustParsePrefix("fd20:ce::254/128"),
	netip.MustParsePrefix("100.100.100.200/32"), netip.MustParsePrefix("192.0.0.192/32"), netip.MustParsePrefix("168.63.129.16/32"),
}

func never(a netip.Addr) bool {
	return a.IsLinkLocalUnicast() || a.IsMulticast() || a.IsUnspecified() ||
		slices.ContainsFunc(metadata, func(p netip.Prefix) bool { return p.Contains(a) })
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
