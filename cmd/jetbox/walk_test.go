package main

import (
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/jetboxhq/jetbox/integration/testenv"
)

// walk finds the lines that the README gives a person to type first.
var walk = regexp.MustCompile("(?s)```sh\n(up=http://127.0.0.1:8080\n.*?)```")

func TestReadme_WalksFromAPostToItsResultWithCurlAlone(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("no curl")
	}
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	lines := walk.FindSubmatch(readme)
	if lines == nil {
		t.Fatal("README.md has no walk with curl")
	}
	db := testenv.EmptyDatabase(t)
	url := launch(t, vars{"DATABASE_URL": dsn(db), "NATS_URL": testenv.OwnNATS(t).URL()}, "up").address(t)
	testenv.Eventually(t, "readiness", func() bool { code, _ := get(t, url+"/readyz"); return code == http.StatusOK })
	script := strings.Replace(string(lines[1]), "http://127.0.0.1:8080", url, 1)
	out, err := exec.CommandContext(t.Context(), "sh", "-euc", script).CombinedOutput()
	want := regexp.MustCompile(`^202 /jobs/[0-9a-f-]{36}\n\{.*"status":"done".*"result":\{"hello":"world"\}.*\}\n$`)
	if err != nil || !want.Match(out) {
		t.Errorf("the README's walk = %v\n%s\nwant a place, then the result", err, out)
	}
}
