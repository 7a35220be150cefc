package userns

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"rbox/tests/account"
)

// helperEnv names what this program is to be instead of a test.
const helperEnv = "RBOX_USERNS_HELPER"

// stageEnv is the path of the stage executable, which every account can run.
const stageEnv = "RBOX_USERNS_STAGE"

func TestMain(m *testing.M) {
	if what := os.Getenv(helperEnv); what != "" {
		helper(what)
		return
	}
	os.Exit(mainStatus(m))
}

func mainStatus(m *testing.M) int {
	if os.Getenv(stageEnv) != "" {
		return m.Run()
	}
	dir, err := buildStage()
	if err != nil {
		fmt.Fprintln(os.Stderr, "build the stage executable:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	os.Setenv(stageEnv, filepath.Join(dir, "stage"))
	return m.Run()
}

// buildStage builds cmd/stage into a new directory that everybody can enter.
func buildStage() (dir string, err error) {
	if dir, err = os.MkdirTemp("/tmp", "rbox-stage-"); err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-o", dir, "rbox/cmd/stage")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", errors.Join(fmt.Errorf("%w: %s", err, out), os.RemoveAll(dir))
	}
	return dir, os.Chmod(dir, 0o755)
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
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+regexp.QuoteMeta(t.Name())+"$", "-test.v")
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
