package main

import (
	"net/http"
	"os/exec"
	"regexp"
	"testing"

	"github.com/jetboxhq/jetbox/integration/testenv"
)

// The README shows these lines: a person types them first.
func TestWalk_GoesFromAPostToItsResultWithCurlAlone(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("no curl")
	}
	db := testenv.EmptyDatabase(t)
	url := launch(t, vars{"DATABASE_URL": dsn(db), "NATS_URL": testenv.OwnNATS(t).URL()}, "up").address(t)
	testenv.Eventually(t, "readiness", func() bool { code, _ := get(t, url+"/readyz"); return code == http.StatusOK })
	out, err := exec.CommandContext(t.Context(), "sh", "../../examples/walk.sh", url).CombinedOutput()
	want := regexp.MustCompile(`^202 /jobs/[0-9a-f-]{36}\n\{.*"status":"done".*"result":\{"hello":"world"\}.*\}\n$`)
	if err != nil || !want.Match(out) {
		t.Errorf("walk.sh = %v\n%s\nwant a place, then the result", err, out)
	}
}
