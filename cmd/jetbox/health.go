package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

type healthCommand struct {
	HTTPAddr string        `name:"http-addr" placeholder:"127.0.0.1:8080" help:"Where the daemon listens (HTTP_ADDR)."`
	Timeout  time.Duration `default:"2500ms" help:"How long the daemon may take to answer."`
}

func (c healthCommand) Run(ctx context.Context, w world) error {
	addr := cmp.Or(newEnvironment(w.environ).or(c.HTTPAddr, "HTTP_ADDR"), "127.0.0.1:8080")
	url, err := readyURL(addr)
	if err != nil {
		return mistakes{err}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.Timeout, fmt.Errorf("no answer within %s", c.Timeout))
	defer cancel()
	answer, err := askReady(ctx, url)
	if err != nil {
		return fmt.Errorf("health: %w", err)
	}
	_, err = fmt.Fprintln(w.stdout, answer)
	return err
}

// checkAddr refuses what no daemon can listen on. Port 0 is any that is free.
func checkAddr(addr string) error {
	_, port, err := net.SplitHostPort(addr)
	if err == nil {
		_, err = new(net.Resolver).LookupPort(context.Background(), "tcp", port)
	}
	if err != nil {
		return fmt.Errorf("--http-addr (or HTTP_ADDR): %q is not host:port with a port of 0 to 65535; examples: 127.0.0.1:8080, :8080", addr)
	}
	return nil
}

// readyURL is where a daemon that listens on addr answers. One that listens
// everywhere is asked over the loopback.
func readyURL(addr string) (string, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil || port == "" || port == "0" {
		return "", fmt.Errorf("HTTP_ADDR: %q names no host:port that can be asked", addr)
	}
	if ip := net.ParseIP(host); host == "" || ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, port) + "/readyz", nil
}

// askReady returns what the daemon says, as an error unless it is ready. Proxy
// variables are not for a daemon on this machine.
func askReady(ctx context.Context, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return "", errors.Join(err, context.Cause(ctx))
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	err = errors.Join(err, res.Body.Close())
	answer := strings.TrimSpace(string(body))
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", res.Status, answer)
	}
	return answer, err
}
