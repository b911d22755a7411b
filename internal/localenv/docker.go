package localenv

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

const (
	image         = "postgres:17-alpine"
	engineTimeout = 5 * time.Second
	pullTimeout   = 5 * time.Minute
)

// startDocker runs the server in a container whose data lie in our directory,
// so that removing the container loses nothing.
func (f finder) startDocker(ctx context.Context, c cluster) (*Postgres, error) {
	docker, err := f.engine(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, pullTimeout)
	defer cancel()
	name := fmt.Sprintf("jetbox-postgres-%x", sha256.Sum256([]byte(c.dir)))[:28]
	if err := docker.remove(name); err != nil { // a kill left it behind
		return nil, err
	}
	stop := func() error { return docker.stop(name) }
	if err := os.MkdirAll(c.dockerData(), 0o700); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	p, err := c.runContainer(ctx, docker, name, stop)
	if err != nil {
		return nil, errors.Join(err, docker.remove(name))
	}
	return p, nil
}

func (c cluster) runContainer(ctx context.Context, docker engine, name string, stop func() error) (*Postgres, error) {
	if _, err := docker.command(ctx, c.password, c.containerArguments(name)...); err != nil {
		return nil, err
	}
	ended, unwatch, err := docker.watch(ctx, name)
	if err != nil {
		return nil, err
	}
	defer unwatch()
	host, err := docker.command(ctx, "", "port", name, "5432/tcp")
	if err != nil { // it has ended already
		return nil, fmt.Errorf("%w: %s", err, docker.lastWords(ctx, name))
	}
	host, _, _ = strings.Cut(host, "\n")
	p, err := c.serve(ctx, host, "in Docker ("+image+")", ended, stop)
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, docker.lastWords(ctx, name))
	}
	return p, nil
}

func (c cluster) containerArguments(name string) []string {
	args := []string{
		"run", "--detach", "--name", name, "--publish", "127.0.0.1::5432",
		"--volume", c.dockerData() + ":/data", "--env", "PGDATA=/data",
		"--env", "POSTGRES_USER=" + superuser, "--env", "POSTGRES_PASSWORD",
	}
	if uid := os.Getuid(); uid != 0 {
		args = append(args, "--user", strconv.Itoa(uid)+":"+strconv.Itoa(os.Getgid()))
	}
	args = append(args, image)
	for _, s := range c.settings {
		args = append(args, "-c", s)
	}
	return args
}

// engine is the path of a Docker client whose engine answers.
type engine string

func (f finder) engine(ctx context.Context) (engine, error) {
	path, err := f.lookPath("docker")
	if err != nil {
		return "", ErrNoPostgres
	}
	ctx, cancel := context.WithTimeout(ctx, engineTimeout)
	defer cancel()
	if _, err := engine(path).command(ctx, "", "version", "--format", "{{.Server.Version}}"); err != nil {
		return "", ErrNoPostgres
	}
	return engine(path), nil
}

// watch closes ended when the container ends, until unwatch.
func (e engine) watch(ctx context.Context, name string) (ended <-chan struct{}, unwatch func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	c, err := startChild(exec.CommandContext(ctx, string(e), "wait", name))
	return c.ended, func() { cancel(); <-c.ended }, err
}

// lastWords is the end of the container's log.
func (e engine) lastWords(ctx context.Context, name string) string {
	log, _ := exec.CommandContext(ctx, string(e), "logs", "--tail", "3", name).CombinedOutput() // gone: nothing to add
	return strings.TrimSpace(string(log))
}

// stop asks for a fast shutdown first.
func (e engine) stop(name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	_, _ = e.command(ctx, "", "stop", name) // removed in any case
	return e.remove(name)
}

// remove also succeeds when there is no such container.
func (e engine) remove(name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	_, err := e.command(ctx, "", "rm", "--force", "--volumes", name)
	if err != nil && strings.Contains(err.Error(), "No such container") {
		return nil
	}
	return err
}

// command runs the client. The password goes through the environment: other
// users of this machine can read arguments.
func (e engine) command(ctx context.Context, password string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, string(e), args...)
	cmd.Env = append(os.Environ(), "POSTGRES_PASSWORD="+password)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("docker %s: %w: %s", args[0], err, bytes.TrimSpace(stderr.Bytes()))
	}
	return strings.TrimSpace(string(out)), nil
}
