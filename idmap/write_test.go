package idmap

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"syscall"
	"testing"
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
	for name, m := range map[string]Maps{"planned": planned, "single": SingleMaps(h, nil)} {
		t.Run(name, func(t *testing.T) {
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
		})
	}
	if planned.Single {
		t.Logf("one id only: %v", planned.Skipped)
	}
}

// A range that is not ours, as after an administrator took it back.
func TestWriteRefused(t *testing.T) {
	h := CurrentHost()
	m, err := Plan(h)
	if err != nil || m.Single || h.UID == 0 {
		t.Skipf("newuidmap has no part in this: uid %d, %v, %v", h.UID, m, err)
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

// TestAsUser runs the tests above as an account with subordinate ids, since
// root has no need of them.
func TestAsUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root: the other tests do it")
	}
	account := accountWithSubIDs()
	if account == nil {
		t.Skip("no account of this host has subordinate ids")
	}
	uid, _ := strconv.ParseUint(account.Uid, 10, 32)
	gid, _ := strconv.ParseUint(account.Gid, 10, 32)
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestWrite", "-test.v")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("as %s: %v\n%s", account.Username, err, out)
	}
	if strings.Contains(string(out), "one id only") {
		t.Logf("as %s:\n%s", account.Username, out)
	}
}

// accountWithSubIDs is the first that both passwd and subuid have.
func accountWithSubIDs() *user.User {
	f, err := os.Open("/etc/subuid")
	if err != nil {
		return nil
	}
	defer f.Close()
	b, _ := io.ReadAll(f)
	for line := range strings.Lines(string(b)) {
		name, _, _ := strings.Cut(line, ":")
		if u, err := user.Lookup(name); err == nil && u.Uid != "0" {
			return u
		}
	}
	return nil
}
