// Package testenv gives every test a real Postgres database and a real
// JetStream stream of its own, so that tests can run in parallel and none can
// wake, block or read another.
//
// The servers behind them are shared by one test binary and started on first
// use: those of TEST_DATABASE_URL and TEST_NATS_URL if set, else containers,
// else installed programs and an embedded server. Their data do not survive a
// crash of the machine: fsync is off. Where no Postgres can be had, tests skip
// with the reason; under CI=true they fail, as they do for one that was named
// and does not answer.
//
// A package that uses it has one line: func TestMain(m *testing.M) { testenv.Main(m) }.
package testenv

import (
	"crypto/rand"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/testcontainers/testcontainers-go/log"
	"go.uber.org/goleak"
)

// Main runs the tests of a package, stops the servers they used, and fails the
// run if a goroutine is left behind.
func Main(m *testing.M) {
	log.SetDefault(log.NewNoopLogger()) // of testcontainers: announce says what matters
	code := m.Run()
	if err := stopServers(); err != nil {
		fmt.Fprintln(os.Stderr, "testenv:", err)
		code = max(code, 1)
	}
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, "testenv: goroutines left behind:", err)
			code = 1
		}
	}
	os.Exit(code)
}

// Eventually fails the test unless cond becomes true within a minute, which only a
// failing test, or one on a very busy machine, ever waits.
func Eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if cond() {
			return
		}
	}
	t.Fatalf("timed out waiting for %s", what)
}

// unique returns a name no other test has, on servers others may share.
func unique() string {
	return strings.ToLower(rand.Text()[:12])
}
