package bench

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// child is a relay in a process of its own: what it costs is not mixed with
// what the benchmark does.
type child struct {
	cmd *exec.Cmd
	log *os.File
}

// startRelay returns once the relay leads and has published a first message.
func (l *lab) startRelay(ctx context.Context, to jetstream.Stream) (*child, error) {
	if err := l.exec(ctx, "enqueue first message", enqueueSQL, l.subject(to), l.payload(), 1); err != nil {
		return nil, err
	}
	seq, err := l.ledgerSeq(ctx)
	if err != nil {
		return nil, err
	}
	c, err := l.spawnRelay(to)
	if err != nil {
		return nil, err
	}
	err = l.until(ctx, time.Minute, func() (bool, error) {
		n, err := l.recorded(ctx, seq)
		return n > 0, err
	})
	if err != nil {
		_, stopErr := c.stop()
		text, _ := os.ReadFile(l.path("relay.log")) // the reason, if there is one
		return nil, errors.Join(fmt.Errorf("relay does not publish: %w\n%s", err, text), stopErr)
	}
	return c, nil
}

func (l *lab) spawnRelay(to jetstream.Stream) (*child, error) {
	cfg := to.CachedInfo().Config
	yaml := fmt.Sprintf("streams: [{name: %s, subjects: [%q]}]\n", cfg.Name, cfg.Subjects[0])
	if err := os.WriteFile(l.path("jetbox.yaml"), []byte(yaml), 0o600); err != nil {
		return nil, fmt.Errorf("write config: %w", err)
	}
	log, err := os.Create(l.path("relay.log"))
	if err != nil {
		return nil, fmt.Errorf("relay's log: %w", err)
	}
	cmd := exec.Command(l.Executable, "relay")
	cmd.Env, cmd.Stdout, cmd.Stderr = l.relayEnv(), log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for us: we stop it in order
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start relay: %w", err), log.Close())
	}
	return &child{cmd, log}, nil
}

func (l *lab) relayEnv() []string {
	n := l.nats
	return append(l.Environ[:len(l.Environ):len(l.Environ)],
		"DATABASE_URL="+l.url, "HTTP_ADDR=127.0.0.1:0", "LOG_FORMAT=json", "JETBOX_CONFIG="+l.path("jetbox.yaml"),
		"NATS_URL="+n.URL, "NATS_CREDS="+n.Creds, "NATS_NKEY="+n.NKey, "NATS_USER="+n.User, "NATS_PASSWORD="+n.Password,
		"NATS_TOKEN="+n.Token, "NATS_CA="+n.CA, "NATS_CERT="+n.Cert, "NATS_KEY="+n.Key)
}

// stop ends the relay in order and returns the CPU time of its whole life.
func (c *child) stop() (cpu time.Duration, err error) {
	kill := time.AfterFunc(30*time.Second, func() { _ = c.cmd.Process.Kill() })
	defer kill.Stop()
	_ = c.cmd.Process.Signal(syscall.SIGTERM) // one that has ended already shows below
	if err = c.cmd.Wait(); err != nil {
		text, _ := os.ReadFile(c.log.Name()) // the reason, if there is one
		err = fmt.Errorf("relay: %w\n%s", err, text)
	}
	state := c.cmd.ProcessState
	return state.UserTime() + state.SystemTime(), errors.Join(err, c.log.Close())
}

// withDatabase is dsn, a URL or libpq's words, with another database.
func withDatabase(dsn, name string) string {
	u, err := url.Parse(dsn)
	if err != nil || !strings.Contains(dsn, "://") {
		return dsn + " dbname=" + name
	}
	q := u.Query()
	q.Del("dbname")
	u.Path, u.RawQuery = "/"+name, q.Encode()
	return u.String()
}
