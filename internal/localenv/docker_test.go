package localenv

import (
	"os/exec"
	"strings"
	"testing"
)

func TestPostgres_RunsInDockerAndKeepsItsData(t *testing.T) {
	t.Parallel()
	f := finder{lookPath: onlyDocker}
	if _, err := f.engine(t.Context()); err != nil {
		t.Skip("no Docker engine")
	}
	dir := t.TempDir()
	for _, sql := range []string{`CREATE TABLE kept AS SELECT 42 AS n`, `SELECT n FROM kept`} {
		p, err := f.start(t.Context(), dir, nil, []string{"fsync=off"})
		if err != nil {
			t.Fatal(err)
		}
		execute(t, p.URL(), sql)
		stop(t, p)
	}
	_, err := f.start(t.Context(), dir, nil, []string{"max_connections=none"})
	if err == nil || !strings.Contains(err.Error(), `invalid value for parameter "max_connections"`) {
		t.Errorf("start = %v, want the server's own words", err)
	}
}

func onlyDocker(program string) (string, error) {
	if program == "docker" {
		return exec.LookPath(program)
	}
	return "", exec.ErrNotFound
}
