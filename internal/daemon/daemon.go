// Package daemon holds what every long-running command shares: services that
// live and stop together, and the HTTP server that says how they are.
package daemon

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"
)

// Service is a part of a daemon. Run blocks until ctx is done, and returns
// early only when the service cannot go on.
type Service interface {
	Run(ctx context.Context) error
}

// Run runs services until ctx is done or one of them stops, and returns when
// all have stopped.
func Run(ctx context.Context, services ...Service) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, s := range services {
		g.Go(func() error {
			err := s.Run(ctx)
			if err == nil && ctx.Err() == nil {
				return fmt.Errorf("%T stopped early", s) // else the rest would run on, half a daemon
			}
			return err
		})
	}
	return g.Wait()
}
