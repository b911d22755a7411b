package localenv

import (
	"context"
	"errors"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
)

const oldestMajor = 14

var errNoPrograms = errors.New("they are not installed")

// finder says where to look for a server; a test looks elsewhere.
type finder struct {
	lookPath func(program string) (string, error)
	patterns []string // of directories with postgres and initdb
}

func installed() finder {
	return finder{exec.LookPath, []string{
		"/usr/lib/postgresql/*/bin",
		"/usr/pgsql-*/bin",
		"/opt/homebrew/opt/postgresql@*/bin",
		"/usr/local/opt/postgresql@*/bin",
	}}
}

// programs returns the directory of the newest programs, those on the PATH
// first. Data are bound to the major version that made them: with a major, no
// other will do.
func (f finder) programs(ctx context.Context, major string) (string, error) {
	for _, bin := range f.candidates() {
		v := versionOf(ctx, bin)
		n, _ := strconv.Atoi(v) // no version: zero, too old
		if n >= oldestMajor && (major == "" || major == v) {
			return bin, nil
		}
	}
	return "", errNoPrograms
}

func (f finder) candidates() []string {
	var bins []string
	if path, err := f.lookPath("postgres"); err == nil {
		bins = append(bins, filepath.Dir(path))
	}
	for _, pattern := range f.patterns {
		found, _ := filepath.Glob(pattern) // its only error is a bad pattern
		slices.SortFunc(found, func(a, b string) int { return pathNumber(b) - pathNumber(a) })
		bins = append(bins, found...)
	}
	return slices.DeleteFunc(bins, func(bin string) bool { return !exists(filepath.Join(bin, "initdb")) })
}

var lastNumber = regexp.MustCompile(`(\d+)[^\d]*$`)

func pathNumber(path string) int {
	m := lastNumber.FindStringSubmatch(path)
	if m == nil {
		return 0
	}
	n, _ := strconv.Atoi(m[1]) // digits only: at worst out of range, and last
	return n
}

var majorVersion = regexp.MustCompile(`^postgres \(PostgreSQL\) (\d+)`)

// versionOf returns the major version, and nothing for what does not run.
func versionOf(ctx context.Context, bin string) string {
	out, _ := exec.CommandContext(ctx, filepath.Join(bin, "postgres"), "--version").Output()
	if m := majorVersion.FindSubmatch(out); m != nil {
		return string(m[1])
	}
	return ""
}
