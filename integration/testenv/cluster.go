package testenv

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
)

// Cluster starts three embedded servers that only this test has, for streams
// with replicas.
func Cluster(t testing.TB) []*server.Server {
	t.Helper()
	ports := freePorts(t, 3)
	routes := make([]*url.URL, len(ports))
	for i, port := range ports {
		routes[i] = &url.URL{Scheme: "nats", Host: fmt.Sprintf("127.0.0.1:%d", port)}
	}
	servers := make([]*server.Server, len(ports))
	name := fmt.Sprintf("test%x", rand.Uint64()) // strangers' servers do not join
	for i, port := range ports {
		servers[i] = startMember(t, &server.Options{
			ServerName: fmt.Sprintf("n%d", i), Host: "127.0.0.1", Port: server.RANDOM_PORT,
			JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true,
			Cluster: server.ClusterOpts{Name: name, Host: "127.0.0.1", Port: port},
			Routes:  routes,
		})
	}
	Eventually(t, "the cluster to elect a leader", func() bool {
		for _, s := range servers {
			if s.JetStreamIsLeader() && s.JetStreamIsCurrent() {
				return len(s.JetStreamClusterPeers()) == len(servers)
			}
		}
		return false
	})
	return servers
}

func startMember(t testing.TB, o *server.Options) *server.Server {
	t.Helper()
	s, err := server.NewServer(o)
	if err != nil {
		t.Fatalf("testenv: cluster: %v", err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	return s
}

// freePorts are below those that the system gives to clients: one of those could
// be taken before the server listens.
func freePorts(t testing.TB, n int) []int {
	t.Helper()
	const first, last = 10_000, 30_000
	var ports []int
	for range 1000 {
		if len(ports) == n {
			return ports
		}
		port := first + rand.IntN(last-first)
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue // somebody has it
		}
		defer l.Close()
		ports = append(ports, port)
	}
	t.Fatalf("testenv: no %d free ports from %d to %d", n, first, last)
	return nil
}
