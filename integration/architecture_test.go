package integration_test

import (
	"os/exec"
	"strings"
	"testing"

	// Imported so that a change in them also invalidates this test's cached
	// result: the go command does not see what go list reads.
	_ "github.com/jetboxhq/jetbox/inbox"
	_ "github.com/jetboxhq/jetbox/inbox/inboxtest"
	_ "github.com/jetboxhq/jetbox/internal/api"
	_ "github.com/jetboxhq/jetbox/internal/bench"
	_ "github.com/jetboxhq/jetbox/internal/config"
	_ "github.com/jetboxhq/jetbox/internal/daemon"
	_ "github.com/jetboxhq/jetbox/internal/deadletter"
	_ "github.com/jetboxhq/jetbox/internal/demo"
	_ "github.com/jetboxhq/jetbox/internal/doctor"
	_ "github.com/jetboxhq/jetbox/internal/handlers"
	_ "github.com/jetboxhq/jetbox/internal/localenv"
	_ "github.com/jetboxhq/jetbox/internal/natsconn"
	_ "github.com/jetboxhq/jetbox/internal/operator"
	_ "github.com/jetboxhq/jetbox/internal/process"
	_ "github.com/jetboxhq/jetbox/internal/proxy"
	_ "github.com/jetboxhq/jetbox/internal/streams"
	_ "github.com/jetboxhq/jetbox/internal/telemetry"
	_ "github.com/jetboxhq/jetbox/internal/wait"
	_ "github.com/jetboxhq/jetbox/internal/wire"
	_ "github.com/jetboxhq/jetbox/migrations"
	_ "github.com/jetboxhq/jetbox/outbox"
)

const module = "github.com/jetboxhq/jetbox/"

// arrows is what each package may import of this module. The two halves meet on
// the wire and in the table of dead letters, never in Go.
var arrows = map[string]string{
	"outbox":                       "internal/deadletter internal/streams internal/wire internal/wait",
	"inbox":                        "internal/deadletter internal/streams internal/wire internal/wait",
	"inbox/inboxtest":              "inbox internal/deadletter internal/streams internal/wire outbox internal/wait",
	"migrations":                   "",
	"internal/wire":                "",
	"internal/wait":                "",
	"internal/deadletter":          "",
	"internal/streams":             "",
	"internal/natsconn":            "",
	"internal/proxy":               "",
	"internal/process":             "",
	"internal/daemon":              "",
	"internal/telemetry":           "",
	"internal/handlers":            "inbox internal/deadletter internal/streams internal/wire internal/wait",
	"internal/localenv":            "internal/wait",
	"internal/config":              "internal/streams",
	"internal/bench":               "inbox internal/deadletter internal/localenv internal/natsconn internal/process internal/streams internal/wire migrations outbox internal/wait",
	"internal/demo":                "internal/localenv internal/process internal/proxy migrations internal/wait",
	"internal/api":                 "inbox internal/deadletter internal/operator internal/streams internal/wire outbox internal/wait",
	"internal/doctor":              "inbox internal/deadletter internal/streams internal/wire internal/wait",
	"internal/operator":            "inbox internal/deadletter internal/streams internal/wire outbox internal/wait",
	"integration/nemesis/goworker": "inbox internal/deadletter internal/streams internal/wire internal/wait",
	"integration/nemesis":          "internal/localenv internal/process internal/proxy internal/wait migrations",
	"integration/testenv":          "internal/localenv migrations internal/wait",
	"examples/worker":              "inbox internal/deadletter internal/streams internal/wire internal/wait",
	"cmd/jetbox":                   "*",
}

func TestArchitecture_ArrowsPointOneWay(t *testing.T) {
	t.Parallel()
	for _, pkg := range goList(t, "{{.ImportPath}}", "./...") {
		allowed, known := arrows[pkg]
		if !known && pkg != "integration" {
			t.Errorf("package %s has no line in arrows: say what it may import", pkg)
		}
		for _, dep := range goList(t, `{{join .Deps "\n"}}`, module+pkg) {
			if known && allowed != "*" && !contains(allowed, dep) {
				t.Errorf("%s imports %s", pkg, dep)
			}
		}
	}
}

// Libraries must not pull exporters, servers or migrations into an application.
func TestArchitecture_LibrariesStayLight(t *testing.T) {
	t.Parallel()
	for _, pkg := range []string{"outbox", "inbox"} {
		for _, heavy := range []string{"github.com/nats-io/nats-server", "github.com/pressly/goose", "github.com/alecthomas/kong", "promhttp"} {
			for _, dep := range list(t, `{{join .Deps "\n"}}`, module+pkg) {
				if strings.Contains(dep, heavy) {
					t.Errorf("%s depends on %s", pkg, dep)
				}
			}
		}
	}
}

func TestArchitecture_EveryPackageHasOneDoc(t *testing.T) {
	t.Parallel()
	for _, line := range list(t, `{{.ImportPath}} {{if .Doc}}ok{{end}}{{if not .GoFiles}}ok{{end}}`, "./...") {
		if !strings.HasSuffix(line, "ok") {
			t.Errorf("%s has no package comment", line)
		}
	}
}

func contains(allowed, dep string) bool {
	for a := range strings.FieldsSeq(allowed) {
		if a == dep {
			return true
		}
	}
	return false
}

// goList returns the packages of this module among what go list prints.
func goList(t *testing.T, format string, args ...string) []string {
	t.Helper()
	var ours []string
	for _, line := range list(t, format, args...) {
		if pkg, ok := strings.CutPrefix(line, module); ok {
			ours = append(ours, pkg)
		}
	}
	return ours
}

func list(t *testing.T, format string, args ...string) []string {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-f", format}, args...)...)
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %v: %v", args, err)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}
