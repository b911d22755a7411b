package localenv

import (
	"net/url"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func TestNATS_KeepsItsPortAndStreamsOverARestart(t *testing.T) {
	t.Parallel()
	n := startNATS(t)
	before := n.URL()
	js := connectJS(t, n)
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), "s", nil); err != nil {
		t.Fatal(err)
	}
	restart(t, n, func() {})
	if n.URL() != before {
		t.Errorf("URL = %s, want %s as before", n.URL(), before)
	}
	s, err := connectJS(t, n).Stream(t.Context(), "S")
	if err != nil {
		t.Fatal(err)
	}
	if got := s.CachedInfo().State.Msgs; got != 1 {
		t.Errorf("messages = %d, want 1", got)
	}
	restart(t, n, func() {
		if err := os.RemoveAll(n.StoreDir()); err != nil {
			t.Fatal(err)
		}
	})
	if _, err := connectJS(t, n).Stream(t.Context(), "S"); err == nil {
		t.Error("the stream outlived its disk")
	}
}

func TestNATS_SyncsEveryWriteUnlessTuned(t *testing.T) {
	t.Parallel()
	if n := startNATS(t); !n.options.SyncAlways {
		t.Error("SyncAlways = false, want true")
	}
	if n := startNATS(t, func(o *server.Options) { o.SyncAlways = false }); n.options.SyncAlways {
		t.Error("SyncAlways = true, want false as tuned")
	}
}

func TestNATS_RefusesWhatIsInUse(t *testing.T) {
	t.Parallel()
	n := startNATS(t)
	if _, err := StartNATS(n.dir, 0); err == nil || !strings.Contains(err.Error(), "another process is using "+n.dir) {
		t.Errorf("start on the same directory = %v, want a refusal", err)
	}
	u, err := url.Parse(n.URL())
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := StartNATS(t.TempDir(), port); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("start on the same port = %v, want the reason", err)
	}
}

func startNATS(t *testing.T, tune ...func(*server.Options)) *NATS {
	t.Helper()
	n, err := StartNATS(t.TempDir(), 0, tune...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Stop(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func restart(t *testing.T, n *NATS, between func()) {
	t.Helper()
	if err := n.Stop(); err != nil {
		t.Fatal(err)
	}
	between()
	if err := n.Start(); err != nil {
		t.Fatal(err)
	}
}

func connectJS(t *testing.T, n *NATS) jetstream.JetStream {
	t.Helper()
	nc, err := nats.Connect(n.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}
