package localenv

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// child is a server process of ours.
type child struct {
	process *os.Process
	ended   chan struct{}
}

func startChild(cmd *exec.Cmd) (*child, error) {
	c := &child{ended: make(chan struct{})}
	started := make(chan error)
	go c.keep(cmd, started)
	return c, <-started
}

// keep stays on one thread until the child has ended: what Linux ties a child's
// life to is the thread that started it, not the process.
func (c *child) keep(cmd *exec.Cmd, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(c.ended)
	err := cmd.Start()
	c.process = cmd.Process
	started <- err
	if err == nil {
		_ = cmd.Wait() // how it ended is in the server's log
	}
}

// stop asks for a fast shutdown, which keeps everything; the harsher signals
// keep everything committed.
func (c *child) stop() error {
	for _, s := range []struct {
		signal os.Signal
		wait   time.Duration
	}{{syscall.SIGINT, 20 * time.Second}, {syscall.SIGQUIT, 5 * time.Second}, {syscall.SIGKILL, 5 * time.Second}} {
		_ = c.process.Signal(s.signal) // ended already: the channel says so
		select {
		case <-c.ended:
			return nil
		case <-time.After(s.wait):
		}
	}
	return errors.New("the process does not end")
}
