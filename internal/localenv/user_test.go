package localenv

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func TestPostgres_RunsWithoutRootsRights(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("not root: nothing to drop")
	}
	dir := t.TempDir()
	start(t, dir)
	out, err := exec.Command("ps", "-o", "uid=", "-p", strconv.Itoa(serverPID(t, dir))).Output()
	if uid := strings.TrimSpace(string(out)); err != nil || uid == "0" {
		t.Errorf("the server's uid = %s, %v, want another than 0", uid, err)
	}
}

func TestOpenPath_NamesTheDirectoryThatShutsPostgresOut(t *testing.T) {
	shut := filepath.Join(t.TempDir(), "shut")
	dir := filepath.Join(shut, "data")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	stranger := &syscall.Credential{Uid: 4_000_000, Gid: 4_000_000}
	t.Run("not ours to open", func(t *testing.T) {
		t.Setenv("TMPDIR", "/usr")
		if err := openPath(stranger, dir); err == nil || !strings.Contains(err.Error(), shut+" ") {
			t.Errorf("openPath = %v, want an error that names %s", err, shut)
		}
	})
	t.Run("below the temporary directory", func(t *testing.T) {
		if err := openPath(stranger, dir); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(shut); err != nil || info.Mode().Perm() != 0o711 {
			t.Errorf("mode of %s = %v, %v, want to pass through but not to list", shut, info.Mode(), err)
		}
	})
}
