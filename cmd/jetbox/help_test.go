package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

func parser(t *testing.T) *kong.Kong {
	t.Helper()
	p, err := newParser(t.Context(), world{stdout: &output{}, stderr: &output{}}, func(int) {})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// words splits a command line as a shell does, as far as examples need it.
func words(line string) []string {
	quoted := false
	list := strings.FieldsFunc(line, func(r rune) bool {
		if r == '\'' {
			quoted = !quoted
		}
		return r == ' ' && !quoted
	})
	for i := range list {
		list[i] = strings.Trim(list[i], "'")
	}
	return list
}

func TestHelp_OfEachVerbHasAnExampleThatParses(t *testing.T) {
	t.Parallel()
	verbs := parser(t).Model.Leaves(true)
	if len(verbs) < 25 {
		t.Errorf("%d verbs, want all", len(verbs))
	}
	for _, verb := range verbs {
		path := words(verb.Path())
		code, stdout, stderr := invoke(t, nil, append(path, "--help")...)
		_, example, found := strings.Cut(stdout, "\nExample:\n  ")
		if code != exitOK || !found || verb.Help == "" {
			t.Errorf("jetbox %v --help = %d %s, want an example", path, code, stderr)
			continue
		}
		args := words(strings.TrimSpace(example))
		if _, err := parser(t).Parse(args[1:]); err != nil || args[0] != "jetbox" || !slices.Equal(args[1:1+len(path)], path) {
			t.Errorf("the example of jetbox %v is %v: %v", path, args, err)
		}
	}
}

func TestCompletion_KnowsVerbsFlagsAndWords(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"jetbox re":             "relay replay resume",
		"jetbox comp":           "completion",
		"jetbox dead ":          "list show redrive discard",
		"jetbox pause ":         "consumer relay",
		"jetbox replay --si":    "--since",
		"jetbox send --he":      "--help --header",
		"jetbox dead list --li": "--limit",
		"jetbox nothing x":      "",
	} {
		code, stdout, stderr := invoke(t, vars{"COMP_LINE": line}, "complete", "jetbox", "--x", "y")
		if got := strings.Join(strings.Fields(stdout), " "); code != exitOK || got != want {
			t.Errorf("%q completes to %q (%d %s), want %q", line, got, code, stderr, want)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if code, stdout, _ := invoke(t, nil, "completion", shell); code != exitOK || !strings.Contains(stdout, "jetbox complete") {
			t.Errorf("completion %s = %d %q, want a line for it", shell, code, stdout)
		}
	}
}
