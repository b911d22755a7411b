package handlers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jetboxhq/jetbox/inbox"
)

// ExecConfig says which command an exec handler runs.
type ExecConfig struct {
	// Command is the program and its arguments. No shell reads them.
	Command []string
	// Environ is the environment of this process, of which the command gets what
	// has no secrets: PATH, HOME and the like.
	Environ []string
	// Pass names what the command gets beyond that.
	Pass []string
}

// Exec handles messages by running a command for each.
type Exec struct {
	path string
	args []string
	env  []string
}

// NewExec returns a handler, or every mistake in cfg.
func NewExec(cfg ExecConfig) (*Exec, error) {
	if len(cfg.Command) == 0 {
		return nil, errors.New("no command")
	}
	path, err := exec.LookPath(cfg.Command[0])
	env, missing := choose(cfg.Environ, cfg.Pass)
	if err := errors.Join(err, missing); err != nil {
		return nil, err
	}
	return &Exec{path: path, args: cfg.Command[1:], env: env}, nil
}

// harmless are the variables that every command gets, if they are set.
var harmless = []string{"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR"}

// choose returns the harmless variables of environ and those named in pass.
func choose(environ, pass []string) (env []string, err error) {
	missing := slices.Clone(pass)
	for _, line := range environ {
		name, _, _ := strings.Cut(line, "=")
		if slices.Contains(harmless, name) || strings.HasPrefix(name, "LC_") || slices.Contains(pass, name) {
			env = append(env, line)
		}
		missing = slices.DeleteFunc(missing, func(m string) bool { return m == name })
	}
	if len(missing) > 0 {
		err = fmt.Errorf("env: %s is not set", strings.Join(missing, ", "))
	}
	return env, err
}

// afterwards is how long output is waited for once the command has ended: a
// process it left behind may hold on to it.
const afterwards = time.Second

// Call runs the command for msg and returns what it wrote to stdout. When it
// returns, the command's process group has ended.
func (e *Exec) Call(ctx context.Context, msg inbox.Message[[]byte]) (json.RawMessage, error) {
	// Linux ends the command with the thread that started it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var out, log window
	out.size, log.size, log.slide = maxResult+1, maxLog, true
	cmd := exec.CommandContext(ctx, e.path, e.args...)
	cmd.Env = slices.Concat(e.env, metadataOf(msg))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(msg.Payload), &out, &log
	cmd.SysProcAttr = childAttr()
	cmd.Cancel = func() error { return killGroup(cmd) }
	cmd.WaitDelay = afterwards
	err := cmd.Run()
	if cmd.Process != nil {
		_ = killGroup(cmd) // mostly it has ended
	}
	if err := e.judge(ctx, err, log.String()); err != nil {
		return nil, err
	}
	return result(out.kept)
}

func killGroup(cmd *exec.Cmd) error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }

func metadataOf(msg inbox.Message[[]byte]) []string {
	headers, _ := json.Marshal(msg.Headers) // strings always are JSON
	env := []string{
		"JETBOX_MESSAGE_ID=" + msg.ID.String(),
		"JETBOX_SUBJECT=" + msg.Subject,
		"JETBOX_KEY=" + msg.Key,
		"JETBOX_ATTEMPT=" + strconv.Itoa(msg.Attempt),
		"JETBOX_IDEMPOTENCY_KEY=" + msg.IdempotencyKey(),
		"JETBOX_HEADERS=" + string(headers),
		"CONTENT_TYPE=" + contentType(msg),
	}
	for _, name := range []string{"traceparent", "tracestate", "baggage"} {
		if values := msg.Headers[name]; len(values) > 0 {
			env = append(env, strings.ToUpper(name)+"="+values[0])
		}
	}
	return env
}

// tempFail is EX_TEMPFAIL of sysexits.h, by which programs that deliver mail ask
// for another attempt.
const tempFail = 75

// judge says what the end of a command means, with the end of its stderr: nil is
// done. A command that was killed did not say, so it runs again.
func (e *Exec) judge(ctx context.Context, err error, log string) error {
	if err == nil || errors.Is(err, exec.ErrWaitDelay) {
		return nil
	}
	exit, exited := errors.AsType[*exec.ExitError](err)
	if ctx.Err() != nil {
		err, exited = context.Cause(ctx), false
	}
	err = fmt.Errorf("exec %s: %w", e.path, err)
	if log != "" {
		err = fmt.Errorf("%w: %s", err, log)
	}
	if exited && exit.Exited() && exit.ExitCode() != tempFail {
		return inbox.Permanent(err)
	}
	return err
}

// maxLog bounds the stderr that is kept with an attempt.
const maxLog = 2048

// window keeps the first or, if it slides, the last size bytes of what is
// written to it. It never fails, so that the command runs on.
type window struct {
	size  int
	slide bool
	kept  []byte
}

func (w *window) Write(p []byte) (int, error) {
	if w.slide {
		w.kept = append(w.kept, p[max(0, len(p)-w.size):]...)
		w.kept = w.kept[max(0, len(w.kept)-w.size):]
	} else {
		w.kept = append(w.kept, p[:min(len(p), w.size-len(w.kept))]...)
	}
	return len(p), nil
}

func (w *window) String() string { return strings.TrimSpace(strings.ToValidUTF8(string(w.kept), "")) }
