package tests

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"rbox/tests/registry"
)

// shown tells which processes of the box show one of secrets to all users, in
// their command lines.
func (b *box) shown(secrets []string) (where []string) {
	for _, pid := range processesOf(b.dir) {
		line, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
		for _, s := range secrets {
			if bytes.Contains(line, []byte(s)) {
				where = append(where, fmt.Sprintf("process %d: %q", pid, line))
			}
		}
	}
	return where
}

// readable tells which files below the box hold one of secrets and can be read
// by other users: what is above them is for everybody.
func (b *box) readable(secrets []string) (where []string) {
	filepath.WalkDir(b.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		info, err := e.Info()
		if err != nil {
			return nil
		}
		if e.IsDir() && path != b.dir && path != b.home && info.Mode().Perm()&0o011 == 0 {
			return fs.SkipDir // nobody else gets further
		}
		if !e.Type().IsRegular() || info.Mode().Perm()&0o044 == 0 || info.Size() > 1<<20 {
			return nil
		}
		text, _ := os.ReadFile(path)
		for _, s := range secrets {
			if bytes.Contains(text, []byte(s)) {
				where = append(where, path)
			}
		}
		return nil
	})
	return where
}

// Passwords are in no command line, message, or file that others can read, while
// rbox logs in, pulls, and afterwards.
func TestSecretsOfRegistries(t *testing.T) {
	t.Parallel()
	const password = "pass-Zq7word"
	secrets := []string{password, base64.StdEncoding.EncodeToString([]byte("kim:" + password))}
	r := newRegistry(t, registry.Options{User: "kim", Password: password})
	push(t, r, "hello", hello(t))
	b := newBox(t, noImage)
	var mu sync.Mutex
	var shown []string
	asked := 0
	front := newServer(t, frontOf(r, func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		mu.Lock()
		shown, asked = append(shown, b.shown(secrets)...), asked+1
		mu.Unlock()
		next.ServeHTTP(w, req)
	}))
	helper := filepath.Join(b.own(filepath.Join(b.home, "bin")), "docker-credential-test")
	b.file("bin/docker-credential-test", `#!/bin/sh
		{ echo "$@"; tr '\0' ' ' </proc/self/cmdline; tr '\0' ' ' </proc/$PPID/cmdline; env; } >>`+b.home+`/seen
		case $1 in store) cat >`+b.home+`/kept; chmod 600 `+b.home+`/kept;; get) cat `+b.home+`/kept;; *) rm -f `+b.home+`/kept;; esac`, 0o755)
	check := func(what string, got result) {
		t.Helper()
		if got.status != 0 {
			t.Errorf("%s: %v", what, got)
		}
		for _, s := range secrets {
			if strings.Contains(got.stdout+got.stderr, s) {
				t.Errorf("%s shows the password: %v", what, got)
			}
		}
		if where := b.readable(secrets); where != nil {
			t.Errorf("%s: others can read it in %v", what, where)
		}
	}
	stdin := func() io.Reader { return strings.NewReader(password + "\n") }
	use := func(how string, env ...string) {
		t.Helper()
		check(how+": pull", b.do(call{args: []string{"pull", "-q", front + "/hello"}, env: env}))
		check(how+": inspect", b.do(call{args: []string{"image", "inspect", front + "/hello"}, env: env}))
		check(how+": events", b.do(call{args: []string{"events", "--since", "1h", "--until", "0s"}, env: env}))
		check(how+": login --get-login", b.do(call{args: []string{"login", "--get-login", front}, env: env}))
		check(how+": logout", b.do(call{args: []string{"logout", front}, env: env}))
	}
	check("login by stdin", b.do(call{args: []string{"login", "-u", "kim", "--password-stdin", front}, stdin: stdin()}))
	use("by stdin")

	term := newTerminal(b)
	p := b.start(call{args: []string{"login", front}, tty: term})
	term.see("Username")
	term.write("kim\n")
	term.see("Password")
	if !eventually(callLimit, func() bool { return term.modes().Lflag&syscall.ECHO == 0 }) {
		t.Error("the terminal shows what is typed")
	}
	term.write(password + "\n")
	check("login by prompt", p.wait())
	use("by prompt")

	// Docker's own file, which was readable before.
	b.own(filepath.Join(b.home, ".docker"))
	b.file(".docker/config.json", `{"auths":{"`+front+`":{"auth":""}}}`, 0o644)
	check("login to an open file", b.do(call{args: []string{"login", "-u", "kim", "--password-stdin", front}, stdin: stdin()}))
	use("in an open file")

	b.file("helped.json", `{"credsStore":"test"}`, 0o644)
	env := []string{"REGISTRY_AUTH_FILE=" + b.home + "/helped.json", "PATH=" + filepath.Dir(helper) + ":" + os.Getenv("PATH")}
	check("login by a helper", b.do(call{args: []string{"login", "-u", "kim", "--password-stdin", front}, env: env, stdin: stdin()}))
	use("by a helper", env...)
	if seen := b.read("seen"); !strings.Contains(seen, "store") || strings.Contains(seen, password) {
		t.Errorf("the helper saw %s", seen)
	}
	got := b.do(call{args: []string{"login", "-u", "kim", "--password-stdin", front}, stdin: strings.NewReader(password + "x")})
	if got.status != 125 || strings.Contains(got.stdout+got.stderr, password) {
		t.Errorf("with a wrong one: %v", got)
	}
	mu.Lock()
	defer mu.Unlock()
	if asked == 0 || len(shown) > 0 {
		t.Errorf("of %d requests, command lines show it: %v", asked, shown)
	}
}

// What a container gets by a file or by the caller's environment is in no
// command line, and in no file that others can read.
func TestSecretsOfContainers(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	const one, two = "token-Zq7one", "token-Zq7two"
	secrets := []string{one, two}
	b.file("env", "ONE="+one+"\n", 0o600)
	got := b.do(call{args: []string{"run", "-d", "--name", "box", "--env-file", "env", "-e", "TWO", "--health-cmd", "true", "-p", "127.0.0.1::80",
		"alpine", "sh", "-c", `echo "$ONE $TWO"; exec sleep 1000`}, env: []string{"TWO=" + two}})
	if got.status != 0 {
		t.Fatal(got)
	}
	b.seeLog("box", one+" "+two)
	exec := b.start(call{args: []string{"exec", "--env-file", "env", "box", "sh", "-c", "echo up; exec sleep 1000"}})
	exec.see("up")
	if where := append(b.shown(secrets), b.readable(secrets)...); where != nil {
		t.Errorf("others can read it: %v", where)
	}
	for _, args := range [][]string{{"ps", "-a", "--no-trunc"}, {"events", "--since", "1h", "--until", "0s"}, {"top", "box"}} {
		if got := b.rbox(args...); got.status != 0 || strings.Contains(got.stdout+got.stderr, one) {
			t.Errorf("rbox %s: %v", args[0], got)
		}
	}
	b.must("rm", "-f", "box")
	exec.wait()
}

// Sockets are for the user alone, by their modes, and by who asks, whatever
// became of the modes.
func TestSocketsOfAnotherUser(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	if os.Geteuid() != 0 {
		t.Skip("needs another account to be")
	}
	probe := buildProbe(t, b)
	b.must("network", "create", "net")
	b.must("run", "-d", "--name", "box", "--network", "net", "alpine", "sleep", "1000")
	b.must("exec", "box", "true") // its monitor listens
	if err := os.Chmod(b.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	sockets := 0
	for _, top := range []string{b.root, b.runtime} {
		filepath.WalkDir(top, func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.Type()&fs.ModeSocket == 0 {
				return nil
			}
			sockets++
			closed := false
			for dir := filepath.Dir(path); strings.HasPrefix(dir, top); dir = filepath.Dir(dir) {
				info, err := os.Stat(dir)
				closed = closed || err == nil && info.Mode().Perm()&0o077 == 0
				if err := os.Chmod(dir, 0o755); err != nil { // as by mistake
					t.Error(err)
				}
			}
			if !closed {
				t.Errorf("%s: others get to it", path)
			}
			if err := os.Chmod(path, 0o777); err != nil {
				t.Error(err)
			}
			cmd := exec.Command(probe, "knock", path)
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
			if out, err := cmd.CombinedOutput(); err != nil || string(out) != "EPERM\n" {
				t.Errorf("%s answers another user: %s, %v", path, out, err)
			}
			return nil
		})
	}
	if sockets < 2 {
		t.Errorf("%d sockets", sockets)
	}
	if text, err := os.ReadFile("/proc/net/unix"); err != nil || bytes.Contains(text, []byte("@rbox")) {
		t.Errorf("a socket that has no file: %v", err)
	}
	want{stdout: "still\n"}.check(t, b.rbox("exec", "box", "echo", "still"))
}

// Nothing of rbox is in directories that all users share.
func TestNothingInSharedDirectories(t *testing.T) {
	t.Parallel()
	b := newBox(t, noImage)
	r := newBox(t, as(root(t)), noImage)
	r.env = append(append([]string{}, b.env...), "RBOX="+run.bin, "ALPINE="+run.alpine, "RBOX_ROOT="+b.root, "RBOX_RUNTIME="+b.runtime)
	script := `cd ` + b.home + `; set -e; "$RBOX" import "$ALPINE" alpine >/dev/null; "$RBOX" run --rm alpine true; "$RBOX" run -d --name box -t -v data:/data alpine sleep 1000 >/dev/null
		"$RBOX" exec box true; "$RBOX" cp box:/etc/motd -  >/dev/null; "$RBOX" cp box:/etc/motd motd; "$RBOX" commit box copy >/dev/null; "$RBOX" save -o save.tar copy; "$RBOX" load -q -i save.tar >/dev/null
		"$RBOX" run --rm copy true; "$RBOX" doctor >/dev/null || true; ls -A /tmp /var/tmp /dev/shm; "$RBOX" rm -f box >/dev/null; "$RBOX" volume rm data >/dev/null`
	// Both of the tests' own directory and of /tmp there is an empty one, with the former in the latter.
	become := fmt.Sprintf(`mount -t tmpfs none /var/tmp && mkdir /var/tmp/x && mount --bind %[1]s /var/tmp/x && mount -t tmpfs none /tmp && mkdir -p %[1]s &&
		mount --bind /var/tmp/x %[1]s && umount /var/tmp/x && rmdir /var/tmp/x && mount -t tmpfs none /dev/shm && chmod 1777 /tmp /var/tmp /dev/shm &&
		exec setpriv --reuid %[2]d --regid %[3]d --init-groups sh -c '%[4]s'`, run.dir, b.who.UID, b.who.GID, script)
	got := r.do(call{prog: "unshare", dir: "/", args: []string{"-m", "--propagation", "private", "sh", "-c", become}})
	want{stdout: "/dev/shm:\n\n/tmp:\n" + filepath.Base(run.dir) + "\n\n/var/tmp:\n"}.check(t, got)
}
