package operator

import (
	"strings"
	"testing"
)

func TestCausal_PutsTheWorkersPartBehindThePublishing(t *testing.T) {
	t.Parallel()
	for told, want := range map[string]string{
		"inserted published done":                                 "inserted published done",
		"inserted done published":                                 "inserted published done",
		"inserted failed done published":                          "inserted published failed done",
		"inserted published done published":                       "inserted published done published",
		"inserted published dead redrive inserted done published": "inserted published dead redrive inserted published done",
		"inserted done":                                           "inserted done",
	} {
		var story []Moment
		for _, what := range strings.Fields(told) {
			story = append(story, Moment{What: what})
		}
		var got []string
		for _, m := range causal(story) {
			got = append(got, m.What)
		}
		if text := strings.Join(got, " "); text != want {
			t.Errorf("%s becomes %s, want %s", told, text, want)
		}
	}
}
