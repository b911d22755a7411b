package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/jetboxhq/jetbox/internal/localenv"
	"github.com/jetboxhq/jetbox/internal/natsconn"
)

// ServeNATS runs a NATS server that stores in dir, and writes its URL to stdout.
// It ends with stdin, as the process that holds the other end does.
func ServeNATS(dir string, syncAlways bool, stdin io.Reader, stdout io.Writer) error {
	n, err := localenv.StartNATS(dir, 0, func(o *server.Options) { o.SyncAlways = syncAlways })
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(stdout, n.URL())
	if err == nil {
		_, err = io.Copy(io.Discard, stdin)
	}
	return errors.Join(err, n.Stop())
}

// startNATS starts a server in a process of its own, as NATS is for its users: in
// ours it would share a scheduler and a garbage collector with the bare publisher
// and the worker, but not with the relay.
func (l *lab) startNATS() error {
	var lastWords bytes.Buffer
	cmd := exec.Command(l.Executable, "bench", "nats", l.dir, fmt.Sprintf("--sync-always=%t", l.SyncAlways))
	cmd.Env, cmd.Stderr = l.Environ, &lastWords
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for us: we stop it in order
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("nats: %w", err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("nats: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("nats: start: %w", err)
	}
	url, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		err = errors.Join(cmd.Wait(), err)
		return fmt.Errorf("nats: %w\n%s", err, lastWords.Bytes())
	}
	l.later(func(context.Context) error { return stopNATS(cmd, stdin) })
	l.nats = natsconn.Config{URL: url[:len(url)-1]}
	return nil
}

func stopNATS(cmd *exec.Cmd, stdin io.Closer) error {
	kill := time.AfterFunc(closeTimeout, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	if err := errors.Join(stdin.Close(), cmd.Wait()); err != nil {
		return fmt.Errorf("nats: stop: %w", err)
	}
	return nil
}
