// Package telemetry builds what a process tells its operator: a logger for one
// destination and a registry of metrics. It reads no environment and keeps no
// global; the caller hands both on.
package telemetry

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/lmittmann/tint"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// LogConfig says what is logged and how it looks. The zero value is for a
// service: JSON from level info.
type LogConfig struct {
	// Level is debug, info, warn or error. Empty means info.
	Level string
	// Format is auto, json or text. Empty means auto: text where Terminal.
	Format string
	// Terminal says that a person is watching.
	Terminal bool
	// NoColor keeps text plain.
	NoColor bool
}

// NewLogger returns a logger that writes to w. It reports every mistake at once.
func NewLogger(w io.Writer, c LogConfig) (*slog.Logger, error) {
	var level slog.Level
	var errs []error
	if c.Level != "" && level.UnmarshalText([]byte(c.Level)) != nil {
		errs = append(errs, fmt.Errorf("LOG_LEVEL: %q is not debug, info, warn or error", c.Level))
	}
	text := c.Terminal
	switch c.Format {
	case "", "auto":
	case "json", "text":
		text = c.Format == "text"
	default:
		errs = append(errs, fmt.Errorf("LOG_FORMAT: %q is not auto, json or text", c.Format))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	if !text {
		return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level})), nil
	}
	return slog.New(tint.NewTextHandler(w, &tint.Options{
		Level:      level,
		TimeFormat: time.TimeOnly,
		NoColor:    c.NoColor || !c.Terminal,
	})), nil
}

// NewRegistry returns a registry with the process's own metrics in it.
func NewRegistry(version string) *prometheus.Registry {
	reg := prometheus.NewRegistry()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "jetbox_build_info",
		Help: "Always 1; the labels say what is running.",
		ConstLabels: prometheus.Labels{
			"version": version, "revision": Revision(), "goversion": runtime.Version(),
		},
	})
	build.Set(1)
	reg.MustRegister(build, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return reg
}

// Revision is the commit this binary was built from, or empty.
func Revision() string {
	info, _ := debug.ReadBuildInfo()
	if info == nil {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return ""
}
