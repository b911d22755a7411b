// Package process runs jetbox itself as processes that can be killed, frozen
// and started again, for the demo and the tests: only a real process can die
// between two steps.
package process

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Process is one program, started and ended many times. Its fields are set
// before the first Start.
type Process struct {
	Name       string
	Executable string
	Args       []string
	Env        []string
	Log        string // file that takes stdout and stderr of every start

	cmd   *exec.Cmd
	ended chan struct{} // closed when the process has ended
	err   error         // how, once ended is closed
	cpu   time.Duration
}

// Start starts the process, or starts it again.
func (p *Process) Start() error {
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("%s: log: %w", p.Name, err)
	}
	defer log.Close()
	cmd := exec.Command(p.Executable, p.Args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = p.Env, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for us: we stop it in order
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%s: start: %w", p.Name, err)
	}
	ended := make(chan struct{})
	p.cmd, p.ended, p.err = cmd, ended, nil
	go func() { // waited for by Kill or Stop
		p.err = cmd.Wait()
		close(ended)
	}()
	return nil
}

// Ended is closed when the process that was started last has ended, on our
// request or by itself. Stop then tells how.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Err is how the process ended, once Ended is closed.
func (p *Process) Err() error { return p.err }

// Signal sends sig, such as SIGSTOP and SIGCONT.
func (p *Process) Signal(sig os.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("%s: %v: %w", p.Name, sig, err)
	}
	return nil
}

// Kill is SIGKILL: the process gets no chance to do anything more.
func (p *Process) Kill() error {
	if err := p.Signal(os.Kill); err != nil {
		return err
	}
	_ = p.bury() // killed, as was asked
	return nil
}

// bury waits for the end of the process and returns how it was.
func (p *Process) bury() error {
	<-p.ended
	p.cpu = p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()
	p.cmd = nil
	if p.err != nil {
		return fmt.Errorf("%s: %w", p.Name, p.err)
	}
	return nil
}

// Stop asks the process to end and waits for it. It returns an error when the
// process does not end well; one that is not running is no error.
func (p *Process) Stop() error {
	if p.cmd == nil {
		return nil
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // an end that came first is seen below
	select {
	case <-p.ended:
		return p.bury()
	case <-time.After(30 * time.Second):
		return errors.Join(fmt.Errorf("%s does not stop", p.Name), p.Kill())
	}
}

// CPU is the processors' time that the latest run has taken, once it has been
// ended by Stop or Kill.
func (p *Process) CPU() time.Duration { return p.cpu }

// Tail is the end of the process's log.
func (p *Process) Tail() string {
	text, err := os.ReadFile(p.Log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return fmt.Sprintf("--- %s\n%s\n", p.Name, strings.Join(lines[max(0, len(lines)-8):], "\n"))
}
