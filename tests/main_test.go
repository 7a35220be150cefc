// Package tests runs rbox end to end, as an unprivileged account.
package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"rbox/tests/account"
	"rbox/tests/images"
)

// run is what all tests of one run share; TestMain makes it and nothing changes it.
var run struct {
	top    string // the repository
	dir    string // everybody can walk through it; short, for sockets below it
	bin    string // a copy of rbox that the accounts can execute
	alpine string // root file system, tar.gz
	real   bool   // whether alpine is Alpine's own
	plain  account.Account

	patience time.Duration // factor of all limits
}

func TestMain(m *testing.M) {
	os.Exit(mainStatus(m))
}

func mainStatus(m *testing.M) int {
	if os.Getenv(reapedEnv) == "" {
		status, err := reaped()
		if err != nil {
			fmt.Fprintln(os.Stderr, "tests: reap:", err)
			return 1
		}
		return status
	}
	os.Unsetenv(reapedEnv)
	if err := setUp(); err != nil {
		fmt.Fprintln(os.Stderr, "tests: set up:", err)
		return 1
	}
	defer os.RemoveAll(run.dir)
	status := m.Run()
	if left := leftovers(run.dir, 10*time.Second); len(left) > 0 {
		fmt.Fprintf(os.Stderr, "tests: still there at the end:\n%s\n", strings.Join(left, "\n"))
		status = 1
	}
	return status
}

func setUp() (err error) {
	debug.SetGCPercent(200)
	run.patience = 1
	if n, err := strconv.Atoi(os.Getenv("RBOX_TESTS_PATIENCE")); err == nil && n > 0 {
		run.patience = time.Duration(n) // the machine is that much slower than others
	}
	if os.Geteuid() == 0 {
		// In the namespace that reaped made, as systemd has it: what a test unmounts goes
		// from containers of other tests, too, and they do not keep it busy.
		if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_SHARED, ""); err != nil {
			return os.NewSyscallError("mount", err)
		}
	}
	if run.top, err = filepath.Abs(".."); err != nil {
		return err
	}
	if run.plain, err = account.Ensure(account.Plain); err != nil {
		return err
	}
	if run.dir, err = os.MkdirTemp("/tmp", "rbt-"); err != nil {
		return err
	}
	if err := os.Chmod(run.dir, 0o755); err != nil {
		return err
	}
	if run.bin, err = account.CopyBinary(run.top, run.dir); err != nil {
		return err
	}
	run.alpine, run.real, err = images.Alpine(run.top, run.dir)
	return err
}
