package main

import (
	"net/http"
	"strings"
	"testing"

	"github.com/jetboxhq/jetbox/integration/testenv"
)

func TestHarmless_LeavesNothingThatMovesACursor(t *testing.T) {
	t.Parallel()
	if got, want := harmless("a\x1b[31mß\n\x7f\u009bx"), "a [31mß   x"; got != want {
		t.Errorf("harmless = %q, want %q", got, want)
	}
}

func TestTail_ShowsBothSidesOfAMessage(t *testing.T) {
	t.Parallel()
	i := install(t, shoutYAML)
	execute(t, i.db, shoutSQL)
	for _, daemon := range []string{"relay", "worker"} {
		url := launch(t, i.with(nil), daemon).address(t)
		testenv.Eventually(t, "readiness", func() bool { code, _ := get(t, url+"/readyz"); return code == http.StatusOK })
	}
	people := launch(t, i.with(nil), "tail", i.prefix+".*")
	programs := launch(t, i.with(nil), "tail", "--json")
	testenv.Eventually(t, "a message that both show", func() bool { // those before they listen are none of theirs
		execute(t, i.db, `INSERT INTO jetbox.outbox (subject, payload) VALUES ($1, '"a"')`, i.prefix+".shout")
		for _, want := range []string{"  sent   ", "  done   ", "worker  \"A\"\n"} {
			if !strings.Contains(people.stderr.String(), want) {
				return false
			}
		}
		return strings.Contains(programs.stderr.String(), `"what":"sent","id":"`) && strings.Contains(programs.stderr.String(), `"text":"\"A\""}`)
	})
}

func TestTail_KeepsToOneLine(t *testing.T) {
	t.Parallel()
	if got, want := oneLine("a\nb\x1b[2Jc\u009b"), "a b [2Jc "; got != want {
		t.Errorf("oneLine = %q, want %q", got, want)
	}
	if got := []rune(oneLine(strings.Repeat("ä", 500))); len(got) != 100 {
		t.Errorf("oneLine = %d runes, want 100", len(got))
	}
}
