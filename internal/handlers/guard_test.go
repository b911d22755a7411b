package handlers

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
)

func TestGuard_DialsNoMetadataAndNothingPrivateUnsaid(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct{ public, private bool }{
		"93.184.215.14":            {true, true},
		"2606:4700::1111":          {true, true},
		"127.0.0.1":                {false, true},
		"::1":                      {false, true},
		"::ffff:127.0.0.1":         {false, true},
		"10.1.2.3":                 {false, true},
		"172.20.0.1":               {false, true},
		"192.168.1.1":              {false, true},
		"100.64.0.1":               {false, true},
		"fd12::1":                  {false, true},
		"169.254.169.254":          {},
		"::ffff:169.254.169.254":   {},
		"fe80::1":                  {},
		"64:ff9b::5db8:d70e":       {true, true}, // NAT64 for 93.184.215.14
		"64:ff9b::10.1.2.3":        {false, true},
		"64:ff9b::127.0.0.1":       {false, true},
		"64:ff9b::169.254.169.254": {},
		"64:ff9b::168.63.129.16":   {},
		"64:ff9b::0.0.0.0":         {},
		"fd00:ec2::254":            {},
		"fd00:ec2::23":             {},
		"fd00:ec3::254":            {false, true},
		"fd20:ce::254":             {},
		"fd20:ce::255":             {false, true},
		"168.63.129.16":            {},
		"192.0.0.192":              {},
		"100.100.100.200":          {},
		"0.0.0.0":                  {},
		"::":                       {},
		"224.0.0.1":                {},
	} {
		a := netip.MustParseAddr(text)
		if got := (guard{}).check(a) == nil; got != want.public {
			t.Errorf("%s for a public name: allowed %v, want %v", text, got, want.public)
		}
		if got := (guard{private: true}).check(a) == nil; got != want.private {
			t.Errorf("%s for a private name: allowed %v, want %v", text, got, want.private)
		}
	}
}

func TestSaysPrivate_TrustsNamesThatNobodyOutsideDecides(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]bool{
		"localhost": true, "billing": true, "127.0.0.1": true, "::1": true, "10.0.0.1": true, "app.localhost": true,
		"billing.shop.svc": true, "billing.shop.svc.cluster.local": true, "host.docker.internal": true, "BILLING": true,
		"localtest.me": false, "billing.example.com": false, "0x7f.1": false, "local.example.com": false,
		"billing.example.com.": false,
	} {
		if got := saysPrivate(host); got != want {
			t.Errorf("%s: %v, want %v", host, got, want)
		}
	}
}

// The name is public and means this machine: what a name's owner can do at any
// time. The dialer sees the address.
func TestHTTP_IsRefusedAPublicNameForAPrivateAddress(t *testing.T) {
	t.Parallel()
	called := false
	for _, allow := range []bool{false, true} {
		h := endpoint(t, func(http.ResponseWriter, *http.Request) { called = true }, func(c *HTTPConfig) { c.AllowPrivate = allow })
		g := guard{private: allow} // as NewHTTP makes it for a public name
		h.client.Transport = resolved(g.transport(), h.host)
		h.url = strings.Replace(h.url, h.host, "billing.example.com", 1)
		_, err := h.Call(t.Context(), message())
		h.Close()
		if called != allow {
			t.Errorf("allow_private %v: called %v, %v", allow, called, err)
		}
		if !allow && (verdict(err) != "retry" || !strings.Contains(err.Error(), "set allow_private: true")) {
			t.Errorf("Call = %v, want another attempt and the way out", err)
		}
	}
}

// resolved is a transport for which every name means addr.
func resolved(t *http.Transport, addr string) *http.Transport {
	dial := t.DialContext
	t.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) { return dial(ctx, network, addr) }
	return t
}
