package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// grace is how long requests in flight may take to finish at shutdown.
const grace = 5 * time.Second

// HTTP is a Service that serves Handler on Listener.
type HTTP struct {
	Listener net.Listener
	Handler  http.Handler
	Logger   *slog.Logger
}

// Listen opens addr, so that a port in use is known before anything starts.
func Listen(ctx context.Context, addr string) (net.Listener, error) {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("HTTP_ADDR: %s is in use by another process: choose another port, or 0 for any that is free", addr)
	}
	if err != nil {
		return nil, fmt.Errorf("HTTP_ADDR: %w", err)
	}
	return ln, nil
}

// Run serves until ctx is done, then lets requests in flight finish.
func (h HTTP) Run(ctx context.Context) error {
	srv := &http.Server{
		Handler:           h.Handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      2 * time.Minute, // a client may wait for a result
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(h.Logger.Handler(), slog.LevelWarn),
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := srv.Serve(h.Listener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve http: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
		defer cancel()
		if srv.Shutdown(wait) != nil {
			return srv.Close() // whoever still reads has had their time
		}
		return nil
	})
	return g.Wait()
}
