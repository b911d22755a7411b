package main

import (
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/jetboxhq/jetbox/integration/testenv"
)

const slowYAML = `
worker:
  handlers:
    - {subject: PREFIX.slow, sql: public.slow}
`

const slowSQL = `
CREATE FUNCTION public.slow(m jetbox.message) RETURNS json LANGUAGE sql AS $$
	SELECT to_json(pg_sleep(20)::text)
$$`

const sleepingSQL = `
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'`

func TestMain_StopsAtOnceOnASecondSignal(t *testing.T) {
	t.Parallel()
	i := install(t, slowYAML)
	execute(t, i.db, slowSQL)
	launch(t, i.with(nil), "relay")
	worker := exec.Command(os.Args[0], "worker")
	worker.Env = i.with(vars{"JETBOX_IS_THIS_TEST": "1", "HTTP_ADDR": "127.0.0.1:0", "SHUTDOWN_TIMEOUT": "1m"}).environ()
	if err := worker.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = worker.Wait() }()
	t.Cleanup(func() { _ = worker.Process.Kill(); <-ended })

	execute(t, i.db, `INSERT INTO jetbox.outbox (subject, payload) VALUES ($1, '1')`, i.prefix+".slow")
	testenv.Eventually(t, "the handler to run", func() bool { return one[int](t, i.db, sleepingSQL) == 1 })
	testenv.Eventually(t, "the end", func() bool {
		_ = worker.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
			return true
		default:
			return false
		}
	})
	if code := worker.ProcessState.ExitCode(); code != exitInterrupted {
		t.Errorf("exit code = %d, want %d", code, exitInterrupted)
	}
}
