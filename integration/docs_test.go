package integration_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	namedTest   = regexp.MustCompile(`\b(?:Test|Fuzz|Benchmark)[A-Z][A-Za-z0-9]*_?[A-Za-z0-9_]*\b`)
	definedTest = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)\w+)\(`)
)

// read returns the text of every file of the tree whose name ends so.
func read(t *testing.T, suffix string) map[string]string {
	t.Helper()
	texts := map[string]string{}
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, suffix) {
			return err
		}
		text, err := os.ReadFile(path)
		texts[path] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return texts
}

func TestDocs_NameOnlyTestsThatExist(t *testing.T) {
	t.Parallel()
	defined := map[string]bool{}
	for _, text := range read(t, "_test.go") {
		for _, m := range definedTest.FindAllStringSubmatch(text, -1) {
			defined[m[1]] = true
		}
	}
	named := 0
	for path, text := range read(t, ".md") {
		for _, name := range namedTest.FindAllString(text, -1) {
			if named++; !defined[name] {
				t.Errorf("%s names %s, which no file defines", path, name)
			}
		}
	}
	if named < 10 {
		t.Errorf("found %d names of tests in all documents: the pattern sees too little", named)
	}
}
