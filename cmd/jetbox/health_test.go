package main

import (
	"strings"
	"testing"

	"github.com/jetboxhq/jetbox/integration/testenv"
)

func TestHealth_TellsReadyFromNotReady(t *testing.T) {
	t.Parallel()
	i := install(t, "")
	ready := strings.TrimPrefix(launch(t, i.with(nil), "relay").address(t), "http://")
	testenv.Eventually(t, "a ready relay", func() bool {
		code, stdout, _ := invoke(t, vars{"HTTP_ADDR": ready}, "health")
		return code == exitOK && strings.Contains(stdout, `"ready":true`)
	})

	waiting := launch(t, vars{"DATABASE_URL": "postgres://u@127.0.0.1:1/app"}, "relay").address(t)
	code, _, stderr := invoke(t, vars{"HTTP_ADDR": strings.TrimPrefix(waiting, "http://")}, "health")
	if code != exitFailure || !strings.Contains(stderr, "relay") {
		t.Errorf("health = %d %q, want %d and the part that is not ready", code, stderr, exitFailure)
	}
}

func TestHealth_FailsWhereNobodyListens(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]int{
		"127.0.0.1:1": exitFailure, "0.0.0.0:1": exitFailure, ":1": exitFailure,
		"127.0.0.1:0": exitUsage, "localhost": exitUsage,
	} {
		if code, _, stderr := invoke(t, vars{"HTTP_ADDR": addr}, "health"); code != want {
			t.Errorf("health of %s = %d %q, want %d", addr, code, stderr, want)
		}
	}
}
