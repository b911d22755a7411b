package natsconn_test

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/jetboxhq/jetbox/integration/testenv"
	"github.com/jetboxhq/jetbox/internal/natsconn"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func file(t *testing.T, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte("x"), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestValidate_AcceptsWhatTheNATSCLIDoes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]natsconn.Config{
		"nothing":                  {},
		"several servers":          {URL: "nats://a:4222, nats://b:4222"},
		"no scheme":                {URL: "localhost:4222"},
		"websocket":                {URL: "wss://example.com"},
		"user and password in URL": {URL: "nats://u:p@a"},
		"a private file":           {Creds: file(t, 0o600)},
		"a mounted secret":         {Creds: file(t, 0o440)},
		"a public certificate":     {CA: file(t, 0o644)},
		"user and password":        {User: "u", Password: "p"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := c.Validate(); err != nil {
				t.Errorf("Validate = %v, want nil", err)
			}
		})
	}
}

func TestValidate_NamesTheMistake(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		cfg  natsconn.Config
		want string
	}{
		"scheme":            {natsconn.Config{URL: "http://a"}, `server 1 has scheme "http", need nats`},
		"no host":           {natsconn.Config{URL: "nats://"}, "server 1 has no host"},
		"second server":     {natsconn.Config{URL: "nats://a,nats://b:x"}, "server 2 is not a URL"},
		"missing file":      {natsconn.Config{Creds: "/nowhere/at.all"}, "NATS_CREDS: stat /nowhere/at.all"},
		"directory":         {natsconn.Config{CA: os.TempDir()}, "is a directory"},
		"open secret":       {natsconn.Config{Creds: file(t, 0o644)}, "has mode 0644, so others can read the secret: chmod 600 "},
		"open key":          {natsconn.Config{Cert: file(t, 0o644), Key: file(t, 0o604)}, "NATS_KEY: "},
		"two log-ins":       {natsconn.Config{User: "u", Token: "t"}, "NATS_USER and NATS_TOKEN are set"},
		"password alone":    {natsconn.Config{Password: "p"}, "NATS_PASSWORD is set without NATS_USER"},
		"certificate alone": {natsconn.Config{Cert: file(t, 0o600)}, "NATS_CERT and NATS_KEY go together"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := tt.cfg.Validate(); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Validate = %v, want %q", err, tt.want)
			}
		})
	}
}

func TestValidate_ReportsEveryMistakeAtOnce(t *testing.T) {
	t.Parallel()
	err := natsconn.Config{URL: "http://a,nats://", Password: "p", CA: "/nowhere"}.Validate()
	for _, want := range []string{"server 1", "server 2", "NATS_PASSWORD", "NATS_CA"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Validate = %v, want %q in it", err, want)
		}
	}
}

func TestErrors_NeverShowAPassword(t *testing.T) {
	t.Parallel()
	for name, url := range map[string]string{
		"bad escape":       "nats://user:hunter2%zz@host",
		"hash in password": "nats://user:hunter2#x@host",
		"bad port":         "nats://user:hunter2@host:99x",
		"wrong scheme":     "http://user:hunter2@host",
		"nobody listens":   "nats://user:hunter2@127.0.0.1:1",
		"control":          "nats://user:hunter2\x01@host",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := natsconn.Config{URL: url}
			_, err := c.Dial("test", "")
			if err == nil || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("Dial = %v, want an error without the password", err)
			}
			if got := c.Redacted(); strings.Contains(got, "hunter2") {
				t.Errorf("Redacted = %q shows the password", got)
			}
		})
	}
}

func TestDial_AsksUnderItsInboxPrefix(t *testing.T) {
	t.Parallel()
	nc, err := natsconn.Config{URL: testenv.NATSURL(t)}.Dial("test", "_INBOX_relay")
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if got := nc.NewRespInbox(); !strings.HasPrefix(got, "_INBOX_relay.") {
		t.Errorf("reply subject = %q, want it under _INBOX_relay", got)
	}
	if nc.Opts.MaxReconnect != -1 || nc.Opts.ReconnectBufSize != -1 {
		t.Errorf("MaxReconnect = %d, ReconnectBufSize = %d, want -1 and -1", nc.Opts.MaxReconnect, nc.Opts.ReconnectBufSize)
	}
}

// lockedBuffer is what a logger writes to while the test reads.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func TestLogTo_TellsWhatTheServerRefuses(t *testing.T) {
	t.Parallel()
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: -1, NoSigs: true, NoLog: true,
		Users: []*server.User{{Username: "u", Password: "p", Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Allow: []string{"allowed"}},
		}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	var out lockedBuffer
	nc, err := natsconn.Config{URL: s.ClientURL(), User: "u", Password: "p"}.
		Dial("test", "", natsconn.LogTo(slog.New(slog.NewTextHandler(&out, nil))))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if err := nc.PublishMsg(nats.NewMsg("forbidden")); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "the violation to be logged", func() bool {
		return strings.Contains(out.String(), "level=ERROR") && strings.Contains(out.String(), "forbidden")
	})
}

func TestLogTo_TellsThatTheServerWentAndCameBack(t *testing.T) {
	t.Parallel()
	own := testenv.OwnNATS(t)
	var out lockedBuffer
	nc, err := natsconn.Config{URL: own.URL()}.
		Dial("test", "", natsconn.LogTo(slog.New(slog.NewTextHandler(&out, nil))), nats.ReconnectWait(1))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if err := own.Stop(); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "the loss to be logged", func() bool { return strings.Contains(out.String(), "lost NATS") })
	if err := own.Start(); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "the return to be logged", func() bool { return strings.Contains(out.String(), "reconnected to NATS") })
}
