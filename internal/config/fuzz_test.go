package config

import (
	"strings"
	"testing"
)

// With another library a second document that was empty made jetbox panic.
func FuzzLoad_TakesAFileOrNamesItsMistakes(f *testing.F) {
	for _, text := range []string{
		whole, "--- a\n---", "\xde\xc5\"\\u00\n'\n---", "a: &a [*a, {<<: *a}]\n? b\n: |+2\n  c\n",
		"%YAML 1.2\n---\n!!str x: >-\n...\n", strings.Repeat("{a: [", 100), strings.Repeat("- ", 100),
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		_, err := parse("jetbox.yaml", []byte(text))
		if err != nil && !strings.HasPrefix(err.Error(), "jetbox.yaml:") {
			t.Errorf("parse(%q) = %v, want the file's name first", text, err)
		}
	})
}
