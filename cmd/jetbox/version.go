package main

import (
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/jetboxhq/jetbox/internal/telemetry"
	"github.com/jetboxhq/jetbox/migrations"
)

type versionCommand struct {
	JSON bool `name:"json" help:"One JSON object."`
}

type build struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Go       string `json:"go"`
	Schema   int64  `json:"schema"`
}

func (c versionCommand) Run(w world) error {
	b := build{version(), telemetry.Revision(), runtime.Version(), migrations.Latest()}
	if c.JSON {
		return json.NewEncoder(w.stdout).Encode(b)
	}
	_, err := fmt.Fprintf(w.stdout, "jetbox %s (schema %d, %s)\n", b.Version, b.Schema, b.Go)
	return err
}

// version is the tag that the go command built, or a name made from the commit.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
