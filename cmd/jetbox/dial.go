package main

import (
	"context"
	"net"
	"time"
)

// gone is after how long a server counts as gone that answers nothing at all, not
// even that it has got what was sent. Linux by itself waits a quarter of an hour,
// in which a worker would keep its messages from those that can reach another.
const gone = 15 * time.Second

// dialPostgres is for machines and firewalls that end without a word.
func dialPostgres(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: gone / 3, Interval: gone / 5, Count: 3},
		Control:         boundSilence,
	}
	return d.DialContext(ctx, network, address)
}
