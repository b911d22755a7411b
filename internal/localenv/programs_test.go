package localenv

import (
	"os"
	"path/filepath"
	"testing"
)

func TestPrograms_AreTheNewestThatCanReadTheData(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for _, v := range []string{"9.6", "13", "14", "16"} {
		install(t, filepath.Join(root, v, "bin"), v)
	}
	onPath := filepath.Join(root, "path")
	install(t, onPath, "15")
	patterns := []string{filepath.Join(root, "*", "bin")}
	for name, tt := range map[string]struct {
		lookPath func(string) (string, error)
		major    string
		want     string
	}{
		"newest":               {nowhere, "", filepath.Join(root, "16", "bin")},
		"the PATH comes first": {found(onPath), "", onPath},
		"the data's version":   {found(onPath), "14", filepath.Join(root, "14", "bin")},
		"data too old for us":  {nowhere, "13", ""},
		"not installed":        {nowhere, "17", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := finder{tt.lookPath, patterns}
			if got, err := f.programs(t.Context(), tt.major); got != tt.want || (err != nil) != (tt.want == "") {
				t.Errorf("programs(%q) = %q, %v, want %q", tt.major, got, err, tt.want)
			}
		})
	}
}

func found(dir string) func(string) (string, error) {
	return func(program string) (string, error) { return filepath.Join(dir, program), nil }
}

// install makes programs that only know their version.
func install(t *testing.T, bin, version string) {
	t.Helper()
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	script := "#!/bin/sh\necho 'postgres (PostgreSQL) " + version + ".4'\n"
	for _, program := range []string{"postgres", "initdb"} {
		if err := os.WriteFile(filepath.Join(bin, program), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
}
