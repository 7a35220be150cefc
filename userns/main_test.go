package userns

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rbox/tests/account"
)

// helperEnv names what this program is to be instead of a test.
const helperEnv = "RBOX_USERNS_HELPER"

// stage is a path of this program, which is its own keeper: every account can
// run it, and its child of a clone is it, too.
const stage = "/proc/self/exe"

func TestMain(m *testing.M) {
	if os.Args[0] == "rbox-keeper" {
		idle, err := time.ParseDuration(os.Args[1])
		if err == nil {
			err = KeeperMain(idle, os.Args[2])
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "keeper:", err)
			os.Exit(1)
		}
		return
	}
	if what := os.Getenv(helperEnv); what != "" {
		helper(what)
		return
	}
	// What we were started with is not what the tests open.
	unix.CloseRange(3, 1<<31-1, unix.CLOSE_RANGE_CLOEXEC)
	os.Exit(m.Run())
}

// unprivileged tells whether the test is run by an ordinary user. For root it
// reruns the test as one, passes its failure on, and returns false.
func unprivileged(t *testing.T) bool {
	t.Helper()
	if os.Geteuid() != 0 {
		return true
	}
	who, err := account.Ensure(account.Plain)
	if err != nil {
		t.Fatal(err)
	}
	// /proc/self/exe: the account may be unable to walk to a test binary of root's.
	cmd := exec.Command(stage, "-test.run=^"+regexp.QuoteMeta(t.Name())+"$", "-test.v", "-test.timeout=20s")
	cmd.Env = append(os.Environ(), "HOME=/", "USER="+who.Name)
	cmd.SysProcAttr = who.Become(nil)
	cmd.Dir = "/"
	out, err := cmd.CombinedOutput()
	t.Logf("as %s:\n%s", who.Name, out)
	switch {
	case err != nil:
		t.Errorf("as %s: %v", who.Name, err)
	case bytes.Contains(out, []byte("--- SKIP: "+t.Name())):
		t.Skip("skipped as " + who.Name)
	}
	return false
}

// helper is this program as another process of rbox.
func helper(what string) {
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, what+":", err)
			os.Exit(1)
		}
	}
	switch what {
	case "open": // tells the namespace and holds it until stdin ends
		o, err := Open(testOptions(os.Args[1]))
		fail(err)
		fmt.Println(inode(o))
		io.Copy(io.Discard, os.Stdin)
	case "start and end": // leaves a process behind, if it can
		o, err := Open(testOptions(os.Args[1]))
		fail(err)
		cmd := o.Command("/bin/sleep", "1000")
		cmd.Stdout = os.Stdout
		fail(cmd.Start())
		fmt.Println("started")
	case "limits": // the limit on open files: ours, restored, a child's
		before := noFile()
		RestoreNoFile()
		fmt.Println(before, noFile())
		p := NewProgram()
		p.Call("exec", sysExecve, p.Str("/bin/sh"), p.Strs([]string{"sh", "-c", "ulimit -Sn"}), p.Strs(nil))
		c, err := Start(p, 0, -1)
		fail(err)
		fail(c.Started())
		_, err = c.Wait()
		fail(err)
	}
}
