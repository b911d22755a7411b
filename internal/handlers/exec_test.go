package handlers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// script is an exec handler of a shell script.
func script(t *testing.T, text string, change ...func(*ExecConfig)) *Exec {
	t.Helper()
	cfg := ExecConfig{
		Command: []string{"sh", "-c", text},
		Environ: []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "DATABASE_URL=postgres://u:hunter2@db/app", "SMTP_HOST=mail"},
	}
	for _, c := range change {
		c(&cfg)
	}
	e, err := NewExec(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestExec_TakesItsVerdictFromTheExitStatus(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct{ verdict, result, err string }{
		"cat":                      {"done", payload, ""},
		"echo charged":             {"done", `"charged"`, ""},
		"exit 0 <&-":               {"done", "", ""},
		"echo away >&2; exit 75":   {"retry", "", "exit status 75: away"},
		"echo wrong >&2; exit 1":   {"permanent", "", "exit status 1: wrong"},
		"exit 65":                  {"permanent", "", "exit status 65"},
		"kill -SEGV $$":            {"retry", "", "segmentation fault"},
		"kill -KILL $$":            {"retry", "", "signal: killed"},
		"head -c 900001 /dev/zero": {"permanent", "", "larger than 900000 bytes"},
		"head -c 99999 /dev/zero >&2; echo end >&2; exit 1": {"permanent", "", "end"},
	} {
		got, err := script(t, text).Call(t.Context(), message())
		if verdict(err) != want.verdict || string(got) != want.result {
			t.Errorf("%s: %s %s, want %s %s: %v", text, verdict(err), got, want.verdict, want.result, err)
		}
		if err != nil && (!strings.Contains(err.Error(), want.err) || len(err.Error()) > maxLog+200) {
			t.Errorf("%s: %d bytes of %.300v, want %q", text, len(err.Error()), err, want.err)
		}
		secretive(t, err)
	}
}

func TestExec_HandsOnTheMessageAndNoSecret(t *testing.T) {
	t.Parallel()
	got, err := script(t, "env", func(c *ExecConfig) { c.Pass = []string{"SMTP_HOST"} }).Call(t.Context(), message())
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.Trim(string(got), `"`), `\n`)
	msg := message()
	for _, want := range []string{
		"JETBOX_MESSAGE_ID=" + msg.ID.String(), "JETBOX_SUBJECT=jobs.bill", "JETBOX_KEY=order 7", "JETBOX_ATTEMPT=3",
		"JETBOX_IDEMPOTENCY_KEY=" + msg.IdempotencyKey(), "CONTENT_TYPE=application/json", "TRACEPARENT=00-aa-bb-01",
		"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "SMTP_HOST=mail",
	} {
		if !strings.Contains("\n"+strings.Join(lines, "\n")+"\n", "\n"+want+"\n") {
			t.Errorf("environment lacks %s: %q", want, lines)
		}
	}
	for _, line := range lines {
		if strings.HasPrefix(line, "DATABASE_URL") || strings.HasPrefix(line, "LD_PRELOAD") {
			t.Errorf("environment has %s", line)
		}
	}
	if !strings.Contains(string(got), `JETBOX_HEADERS={\"Authorization\":[\"forged\"]`) {
		t.Errorf("no headers in %s", got)
	}
}

func TestExec_EndsTheWholeGroup(t *testing.T) {
	t.Parallel()
	reason := errors.New("handler timeout")
	for name, text := range map[string]string{
		"at the timeout":        "sleep 300 & echo $! >$PIDS; wait",
		"after the command":     "sleep 300 & echo $! >$PIDS",
		"with the output taken": "sleep 300 >/dev/null 2>&1 & echo $! >$PIDS; sleep 300",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pids := filepath.Join(t.TempDir(), "pids")
			e := script(t, text, func(c *ExecConfig) { c.Environ, c.Pass = append(c.Environ, "PIDS="+pids), []string{"PIDS"} })
			ctx, cancel := context.WithTimeoutCause(t.Context(), 3*time.Second, reason)
			defer cancel()
			_, err := e.Call(ctx, message())
			if want := name != "after the command"; errors.Is(err, reason) != want {
				t.Errorf("Call = %v, want the timeout to be the reason: %v", err, want)
			}
			eventuallyGone(t, pids)
		})
	}
}

// eventuallyGone waits until the process of the file is no more, or a zombie
// that waits for its new parent.
func eventuallyGone(t *testing.T, file string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Sscan(string(text), &pid); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); running(pid); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the command's child still runs")
		}
	}
}

func running(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z")
}

func TestNewExec_ReportsEveryMistake(t *testing.T) {
	t.Parallel()
	_, err := NewExec(ExecConfig{Command: []string{"no-such-program"}, Pass: []string{"SMTP_HOST", "SMTP_PORT"}, Environ: []string{"SMTP_HOST=mail"}})
	if err == nil || !strings.Contains(err.Error(), `"no-such-program": executable file not found`) || !strings.Contains(err.Error(), "env: SMTP_PORT is not set") {
		t.Errorf("NewExec = %v, want the program and the variable", err)
	}
	if _, err := NewExec(ExecConfig{}); err == nil {
		t.Error("NewExec took no command")
	}
}
