package testenv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/jetboxhq/jetbox/internal/localenv"
)

const startTimeout = 3 * time.Minute

// lazy is a server of this test binary, started by the first test that needs it.
type lazy[S any] struct {
	name  string
	start func(ctx context.Context) (S, closer, error)

	once   sync.Once
	server S
	stop   closer
	err    error
}

// closer stops what was started; it may be nil.
type closer func() error

// The one state that a test binary shares.
var (
	postgres = lazy[*database]{name: "Postgres", start: startPostgres}
	broker   = lazy[string]{name: "NATS", start: startNATS}
)

func (l *lazy[S]) get(t testing.TB) S {
	t.Helper()
	l.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
		defer cancel()
		l.server, l.stop, l.err = l.start(ctx)
	})
	switch {
	case l.err == nil:
	case errors.Is(l.err, localenv.ErrNoPostgres) && os.Getenv("CI") != "true":
		t.Skipf("no %s, and no TEST_DATABASE_URL: %v", l.name, l.err)
	default:
		t.Fatalf("no %s: %v", l.name, l.err)
	}
	return l.server
}

func (l *lazy[S]) close() error {
	if l.stop == nil {
		return nil
	}
	return l.stop()
}

func stopServers() error {
	return errors.Join(broker.close(), postgres.close())
}

// announce says once which server the tests of this binary ran against.
func announce(kind, origin string) {
	fmt.Fprintf(os.Stderr, "testenv: %s: %s\n", kind, origin)
}

// tempDir holds a server's data until the tests have ended.
func tempDir() (string, closer, error) {
	dir, err := os.MkdirTemp("", "jetbox-testenv-")
	if err != nil {
		return "", nil, fmt.Errorf("temporary directory: %w", err)
	}
	return dir, func() error { return os.RemoveAll(dir) }, nil
}

// inOrder joins what is to be stopped, first to last.
func inOrder(closers ...closer) closer {
	return func() error {
		var errs []error
		for _, c := range closers {
			if c != nil {
				errs = append(errs, c())
			}
		}
		return errors.Join(errs...)
	}
}
