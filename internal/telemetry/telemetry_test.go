package telemetry

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

func TestNewLogger_WritesJSONUnlessAPersonWatches(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		cfg  LogConfig
		json bool
	}{
		"a service":             {LogConfig{}, true},
		"a terminal":            {LogConfig{Terminal: true}, false},
		"a terminal asks json":  {LogConfig{Terminal: true, Format: "json"}, true},
		"a service asks text":   {LogConfig{Format: "text"}, false},
		"auto follows the rest": {LogConfig{Format: "auto"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			log, err := NewLogger(&out, tt.cfg)
			if err != nil {
				t.Fatal(err)
			}
			log.Info("hello")
			if got := json.Valid(out.Bytes()); got != tt.json {
				t.Errorf("JSON = %v, want %v: %s", got, tt.json, out.String())
			}
		})
	}
}

func TestNewLogger_ColoursOnlyATerminalThatAllowsIt(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		cfg    LogConfig
		colour bool
	}{
		"terminal":                 {LogConfig{Terminal: true}, true},
		"terminal with NO_COLOR":   {LogConfig{Terminal: true, NoColor: true}, false},
		"text that goes to a file": {LogConfig{Format: "text"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			log, err := NewLogger(&out, tt.cfg)
			if err != nil {
				t.Fatal(err)
			}
			log.Error("hello")
			if got := strings.Contains(out.String(), "\x1b["); got != tt.colour {
				t.Errorf("colour = %v, want %v: %q", got, tt.colour, out.String())
			}
		})
	}
}

func TestNewLogger_ReportsEveryMistakeAtOnce(t *testing.T) {
	t.Parallel()
	_, err := NewLogger(&bytes.Buffer{}, LogConfig{Level: "loud", Format: "xml"})
	if err == nil || !strings.Contains(err.Error(), "LOG_LEVEL") || !strings.Contains(err.Error(), "LOG_FORMAT") {
		t.Errorf("error = %v, want both LOG_LEVEL and LOG_FORMAT", err)
	}
}

func TestNewLogger_KeepsQuietBelowItsLevel(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log, err := NewLogger(&out, LogConfig{Level: "warn"})
	if err != nil {
		t.Fatal(err)
	}
	log.Info("quiet")
	log.Warn("heard")
	if got := out.String(); strings.Contains(got, "quiet") || !strings.Contains(got, "heard") {
		t.Errorf("output = %s, want only the warning", got)
	}
}

func TestNewRegistry_SaysWhatIsRunning(t *testing.T) {
	t.Parallel()
	families, err := NewRegistry("1.2.3").Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "jetbox_build_info" {
			continue
		}
		for _, l := range f.GetMetric()[0].GetLabel() {
			if l.GetName() == "version" && l.GetValue() == "1.2.3" {
				return
			}
		}
	}
	t.Error("no jetbox_build_info with version 1.2.3")
}
