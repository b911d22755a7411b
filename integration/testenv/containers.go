package testenv

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/testcontainers/testcontainers-go"
	tcpostgres "github.com/testcontainers/testcontainers-go/modules/postgres"
	"github.com/testcontainers/testcontainers-go/wait"
)

const (
	postgresImage = "postgres:17-alpine"
	natsImage     = "nats:2.15-alpine"

	engineTimeout    = 5 * time.Second
	containerTimeout = time.Minute // with the image's download
)

// errNoEngine reports a machine without containers: nothing to tell anybody.
var errNoEngine = errors.New("no container engine")

func findEngine(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, engineTimeout)
	defer cancel()
	engine, err := testcontainers.NewDockerProvider()
	if err != nil {
		return errNoEngine
	}
	if err := engine.Health(ctx); err != nil { // closes it, too
		return errNoEngine
	}
	return nil
}

func runPostgres(ctx context.Context) (url string, stop closer, err error) {
	if err := findEngine(ctx); err != nil {
		return "", nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, containerTimeout)
	defer cancel()
	var flags []string
	for _, s := range settings {
		flags = append(flags, "-c", s)
	}
	c, err := tcpostgres.Run(ctx, postgresImage,
		testcontainers.WithCmdArgs(flags...), tcpostgres.BasicWaitStrategies())
	stop = func() error { return testcontainers.TerminateContainer(c) }
	if err == nil {
		url, err = c.ConnectionString(ctx, "sslmode=disable")
	}
	if err != nil {
		return "", nil, errors.Join(err, stop())
	}
	return url, stop, nil
}

func runNATS(ctx context.Context) (url string, stop closer, err error) {
	if err := findEngine(ctx); err != nil {
		return "", nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, containerTimeout)
	defer cancel()
	c, err := testcontainers.Run(ctx, natsImage,
		testcontainers.WithCmd("-js"), testcontainers.WithExposedPorts("4222/tcp"),
		testcontainers.WithWaitStrategy(wait.ForLog("Server is ready"))) // the port answers before the server does
	stop = func() error { return testcontainers.TerminateContainer(c) }
	if err == nil {
		url, err = c.PortEndpoint(ctx, "4222/tcp", "nats")
	}
	if err != nil {
		return "", nil, errors.Join(err, stop())
	}
	return url, stop, nil
}

// because explains a fallback to whoever has an engine and wonders.
func because(err error) string {
	if err == nil || errors.Is(err, errNoEngine) {
		return ""
	}
	return fmt.Sprintf(" (no container: %v)", err)
}
