package idmap

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"rbox/tests/account"
)

// inNamespace starts a process in a new user namespace, has use act on its
// pid, and ends it.
func inNamespace(t *testing.T, use func(pid int)) {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", "echo; read x")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Skipf("this host has no user namespaces for us: %v", ExplainUserNS(err))
	}
	defer cmd.Wait()
	defer stdin.Close()
	if _, err := bufio.NewReader(stdout).ReadByte(); err != nil {
		t.Fatal(err)
	}
	use(cmd.Process.Pid)
}

// written is what the kernel has of a map now, in text's format.
func written(t *testing.T, pid int, name string) string {
	t.Helper()
	file := fmt.Sprintf("/proc/%d/%s", pid, name)
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	ms, err := parseMap(file, string(b))
	if err != nil {
		t.Fatal(err)
	}
	return string(text(ms))
}

func TestWrite(t *testing.T) {
	h := CurrentHost()
	planned, err := Plan(h)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("planned", func(t *testing.T) { checkWrite(t, planned) })
	t.Run("single", func(t *testing.T) { checkWrite(t, SingleMaps(h, nil)) })
}

// checkWrite writes m into a namespace and compares what the kernel has.
func checkWrite(t *testing.T, m Maps) {
	t.Helper()
	inNamespace(t, func(pid int) {
		if err := m.Write(pid); err != nil {
			t.Fatalf("%v: %v", m, err)
		}
		if got, want := written(t, pid, "uid_map"), string(text(m.UIDs)); got != want {
			t.Errorf("uid_map %q, want %q", got, want)
		}
		if got, want := written(t, pid, "gid_map"), string(text(m.GIDs)); got != want {
			t.Errorf("gid_map %q, want %q", got, want)
		}
	})
}

// asUser reruns the calling test as an account with subordinate ids where it
// is run by root, who needs none. It returns false in the original.
func asUser(t *testing.T) bool {
	t.Helper()
	if os.Geteuid() != 0 {
		return true
	}
	who, err := account.Ensure(account.Plain)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "HOME=/", "USER="+who.Name)
	cmd.SysProcAttr = who.Become(nil)
	out, err := cmd.CombinedOutput()
	t.Logf("as %s:\n%s", who.Name, out)
	switch {
	case err != nil:
		t.Errorf("as %s: %v", who.Name, err)
	case strings.Contains(string(out), "--- SKIP"):
		t.Skip("skipped as " + who.Name)
	}
	return false
}

// All subordinate ids, by newuidmap and newgidmap.
func TestWriteByHelpers(t *testing.T) {
	if !asUser(t) {
		return
	}
	m, err := Plan(CurrentHost())
	if err != nil {
		t.Fatal(err)
	}
	if m.Single {
		t.Skipf("this user has one id: %v", m.Skipped)
	}
	checkWrite(t, m)
}

// A range that is not ours, as after an administrator took it back.
func TestWriteRefused(t *testing.T) {
	if !asUser(t) {
		return
	}
	h := CurrentHost()
	m, err := Plan(h)
	if err != nil {
		t.Fatal(err)
	}
	if m.Single {
		t.Skipf("this user has one id: %v", m.Skipped)
	}
	inNamespace(t, func(pid int) {
		m.UIDs = []Mapping{{0, h.UID, 1}, {1, 4294967290, 3}}
		err := m.Write(pid)
		var hint interface{ Hint() string }
		checkError(t, err, "not allowed")
		if !errors.As(err, &hint) || !strings.Contains(hint.Hint(), "/etc/subuid") {
			t.Errorf("%v: no hint of /etc/subuid", err)
		}
	})
}
