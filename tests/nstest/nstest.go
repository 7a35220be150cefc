// Package nstest lets a test be root of namespaces of its own, for what needs
// privilege: no test is run with sudo.
package nstest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"rbox/tests/account"
)

// stageEnv is set in the rerun test: "wait" until the maps are written, then "in".
const stageEnv = "RBOX_NSTEST"

// Flags that add a namespace to the user and mount namespaces of Enter.
const (
	PID     = syscall.CLONE_NEWPID
	Network = syscall.CLONE_NEWNET
	IPC     = syscall.CLONE_NEWIPC
	UTS     = syscall.CLONE_NEWUTS
	Cgroup  = syscall.CLONE_NEWCGROUP
)

// Enter reruns the calling test as root of a new user and mount namespace, and
// of the namespaces that extra adds, made by an unprivileged user. It returns
// true in the rerun, and false, once that is over and its failure passed on,
// in the original: the test then returns. All of the user's subordinate ids are
// mapped, or its own id alone where there are none (see Mapped).
//
// A host that allows no user namespaces skips the test.
func Enter(t *testing.T, extra ...uintptr) bool {
	t.Helper()
	switch os.Getenv(stageEnv) {
	case "in":
		return true
	case "wait":
		becomeRoot() // does not return
	}
	if strings.Contains(t.Name(), "/") {
		t.Fatal("nstest.Enter: call it in the test itself, not in a subtest")
	}
	who, err := account.Ensure(account.Plain)
	if err != nil {
		t.Fatalf("nstest.Enter: %v", err)
	}
	flags := uintptr(syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS)
	for _, f := range extra {
		flags |= f
	}
	out, err := rerun(t.Name(), who, flags)
	t.Logf("as root of a new user namespace:\n%s", out)
	switch {
	case err == nil && bytes.Contains(out, []byte("--- SKIP: "+t.Name())):
		t.Skip("skipped in the namespace")
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EACCES):
		t.Skipf("this host allows no user namespaces: %v", err)
	case err != nil:
		t.Errorf("in the namespace: %v", err)
	}
	return false
}

// Mapped returns how many uids the namespace of a test has: 1 on the single-id rung.
func Mapped(t *testing.T) int {
	t.Helper()
	data, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		t.Fatal(err)
	}
	sum := 0
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) == 3 {
			n, _ := strconv.Atoi(f[2])
			sum += n
		}
	}
	return sum
}

// rerun runs the test called name in new namespaces and returns its output.
func rerun(name string, who account.Account, flags uintptr) ([]byte, error) {
	ready, release, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer release.Close()
	args := []string{"-test.run=^" + regexp.QuoteMeta(name) + "$", "-test.v", "-test.count=1"}
	if testing.Short() {
		args = append(args, "-test.short")
	}
	// /proc/self/exe: the account may be unable to walk to a test binary of root's.
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), stageEnv+"=wait", "HOME=/", "USER=root")
	cmd.ExtraFiles = []*os.File{ready}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	// Without a map the new process has no id to keep its capabilities by:
	// ambient ones carry them over the exec.
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  flags,
		AmbientCaps: []uintptr{unix.CAP_SETUID, unix.CAP_SETGID},
		Pdeathsig:   syscall.SIGKILL,
	}
	err = cmd.Start()
	ready.Close()
	if err != nil {
		return nil, err
	}
	if err := writeMaps(cmd.Process.Pid, who); err != nil {
		cmd.Process.Kill()
		cmd.Wait()
		return out.Bytes(), err
	}
	if _, err := release.Write([]byte{1}); err != nil {
		return nil, err
	}
	err = cmd.Wait()
	return out.Bytes(), err
}

// becomeRoot is the rerun test until its maps are there: it becomes root of the
// namespace and starts over.
func becomeRoot() {
	fail := func(what string, err error) {
		fmt.Fprintf(os.Stderr, "nstest: %s: %v\n", what, err)
		os.Exit(1)
	}
	if _, err := io.ReadFull(os.NewFile(3, "ready"), make([]byte, 1)); err != nil {
		fail("wait for the maps", err)
	}
	if err := syscall.Setgroups(nil); err != nil && !errors.Is(err, syscall.EPERM) {
		fail("setgroups", err)
	}
	if err := syscall.Setresgid(0, 0, 0); err != nil {
		fail("setresgid", err)
	}
	if err := syscall.Setresuid(0, 0, 0); err != nil {
		fail("setresuid", err)
	}
	os.Setenv(stageEnv, "in")
	fail("exec", syscall.Exec("/proc/self/exe", os.Args, os.Environ()))
}

// writeMaps maps who's own id to 0 and its subordinate ids to 1 and up.
func writeMaps(pid int, who account.Account) error {
	if os.Geteuid() != 0 {
		if len(who.SubUIDs) > 0 && len(who.SubGIDs) > 0 {
			uids := append([]string{strconv.Itoa(pid)}, fields(who.UID, who.SubUIDs)...)
			gids := append([]string{strconv.Itoa(pid)}, fields(who.GID, who.SubGIDs)...)
			if exec.Command("newuidmap", uids...).Run() == nil && exec.Command("newgidmap", gids...).Run() == nil {
				return nil
			}
		}
		who.SubUIDs, who.SubGIDs = nil, nil
		if err := writeProc(pid, "setgroups", "deny"); err != nil {
			return err
		}
	}
	if err := writeProc(pid, "uid_map", lines(fields(who.UID, who.SubUIDs))); err != nil {
		return err
	}
	return writeProc(pid, "gid_map", lines(fields(who.GID, who.SubGIDs)))
}

func writeProc(pid int, file, text string) error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/%s", pid, file), []byte(text), 0)
}

// fields is the mapping as newuidmap(1) takes it: three numbers a range.
func fields(own uint32, sub []account.Range) []string {
	out := []string{"0", fmt.Sprint(own), "1"}
	next := uint32(1)
	for _, r := range sub {
		out = append(out, fmt.Sprint(next), fmt.Sprint(r.Start), fmt.Sprint(r.Count))
		next += r.Count
	}
	return out
}

// lines is the mapping as /proc/PID/uid_map takes it: a line a range.
func lines(fields []string) string {
	var b strings.Builder
	for i := 0; i < len(fields); i += 3 {
		b.WriteString(strings.Join(fields[i:i+3], " ") + "\n")
	}
	return b.String()
}
