package localenv

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// serverUser says whom the server runs as, nil for us: Postgres refuses root.
// Data that exist stay their owner's.
func serverUser(data string) (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	if info, err := os.Stat(data); err == nil {
		if st := info.Sys().(*syscall.Stat_t); st.Uid != 0 {
			return &syscall.Credential{Uid: st.Uid, Gid: st.Gid}, nil
		}
	}
	for _, name := range []string{"postgres", "nobody"} {
		if u, err := user.Lookup(name); err == nil {
			return credential(u)
		}
	}
	return nil, errors.New("Postgres does not run as root, and there is no user postgres or nobody to run it")
}

func credential(u *user.User) (*syscall.Credential, error) {
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("user %s: %w", u.Username, err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("user %s: %w", u.Username, err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// handOver lets to reach dir and gives it the password file, which initdb reads.
func handOver(to *syscall.Credential, dir, passwordFile string) error {
	if err := openPath(to, dir); err != nil {
		return err
	}
	if err := os.Chown(passwordFile, int(to.Uid), int(to.Gid)); err != nil {
		return fmt.Errorf("password: %w", err)
	}
	return nil
}

// openPath lets to pass through every directory down to dir. dir is ours to
// open, and so is what lies below the temporary directory (os.MkdirTemp shuts
// it to all but root); any other is its owner's decision.
func openPath(to *syscall.Credential, dir string) error {
	temp, err := filepath.EvalSymlinks(os.TempDir())
	if err != nil {
		return fmt.Errorf("temporary directory: %w", err)
	}
	for d := dir; d != filepath.Dir(d); d = filepath.Dir(d) {
		info, err := os.Stat(d)
		if err != nil {
			return fmt.Errorf("data directory: %w", err)
		}
		switch {
		case passes(to, info):
		case d == dir, strings.HasPrefix(d, temp+string(filepath.Separator)):
			// To pass through, not to list.
			if err := os.Chmod(d, info.Mode().Perm()|0o011); err != nil {
				return fmt.Errorf("data directory: %w", err)
			}
		default:
			return fmt.Errorf("Postgres does not run as root, and user %d cannot pass through %s to the data in %s: "+
				"choose another data directory, such as /var/lib/jetbox, or do not run as root", to.Uid, d, dir)
		}
	}
	return nil
}

func passes(who *syscall.Credential, info os.FileInfo) bool {
	st := info.Sys().(*syscall.Stat_t)
	switch perm := info.Mode().Perm(); {
	case st.Uid == who.Uid:
		return perm&0o100 != 0
	case st.Gid == who.Gid:
		return perm&0o010 != 0
	default:
		return perm&0o001 != 0
	}
}

// makeDir makes path anew, empty, and owner's.
func makeDir(path string, owner *syscall.Credential) error {
	if err := os.RemoveAll(path); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	if owner == nil {
		return nil
	}
	if err := os.Chown(path, int(owner.Uid), int(owner.Gid)); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	return nil
}
