package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rbox/tests/account"
)

func TestAllSubordinateIDsAreMapped(t *testing.T) {
	t.Parallel()
	if len(run.plain.SubUIDs) == 0 {
		t.Skipf("%s has no subordinate ids", run.plain.Name)
	}
	b := newBox(t)
	total := uint32(1)
	for _, r := range run.plain.SubUIDs {
		total += r.Count
	}
	for _, kind := range []string{"uid", "gid"} {
		want{stdout: fmt.Sprintln(total)}.check(t, b.sh("awk '{n += $3} END {print n}' /proc/self/"+kind+"_map"))
	}
	last := fmt.Sprint(total - 1)
	want{stdout: last + ":" + last + "\n"}.check(t, b.sh("touch /f && chown "+last+":"+last+" /f && stat -c %u:%g /f"))
	want{match: `Invalid argument`}.check(t, b.sh("touch /f && chown "+fmt.Sprint(total)+" /f 2>&1 || true"))
}

func TestOwnersInTheImage(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	want{stdout: "0:42 640\n0:0 1777\n"}.check(t, b.sh("stat -c '%u:%g %a' /etc/shadow /tmp"))
}

func TestPackageManagersNeeds(t *testing.T) {
	t.Parallel()
	scripts := map[string]struct {
		script string
		want   string // "": only that it succeeds
	}{
		"chown":           {"touch /f && chown 1000:1000 /f && chown -h 5 /f && chgrp 42 /f", ""},
		"adduser":         {"adduser -D -u 1234 kim && id -u kim && test -d /home/kim", "1234\n"},
		"addgroup":        {"addgroup -g 555 crew && grep crew: /etc/group", "crew:x:555:\n"},
		"su":              {"adduser -D -u 1234 kim && su kim -c 'echo $HOME'", "/home/kim\n"},
		"setuid files":    {"cp /bin/busybox /bin/sb && chmod 4755 /bin/sb && stat -c %a /bin/sb", "4755\n"},
		"FIFO":            {"mknod /p p && test -p /p", ""},
		"tar with owners": {"mkdir /s && touch /s/a && chown 3:4 /s/a && tar -C /s -cf /t.tar a && mkdir /x && tar -C /x -xpf /t.tar && test -f /x/a", ""},
	}
	for rung, options := range map[string]func(*testing.T) []boxOption{
		"all ids": func(*testing.T) []boxOption { return nil },
		"one id":  func(t *testing.T) []boxOption { return []boxOption{as(single(t))} },
	} {
		t.Run(rung, func(t *testing.T) {
			b := newBox(t, options(t)...)
			for name, tc := range scripts {
				t.Run(name, func(t *testing.T) {
					if rung == "one id" && name == "su" {
						return // there is no second id to become
					}
					if !run.real && strings.Contains(tc.script, "add") {
						return // Debian's busybox has no adduser
					}
					got := b.sh(tc.script)
					if got.status != 0 || tc.want != "" && got.stdout != tc.want {
						t.Errorf("want %q, got %v", tc.want, got)
					}
				})
			}
		})
	}
}

func TestSingleID(t *testing.T) {
	t.Parallel()
	b := newBox(t, as(single(t)), noImage)
	first := b.rbox("import", run.alpine, "alpine")
	got := b.sh("id -u; awk '{print $3}' /proc/self/uid_map; stat -c %u:%g /etc/shadow")
	if got.status != 0 || got.stdout != "0\n1\n0:0\n" {
		t.Errorf("got %v", got)
	}
	// The user is told once, with what would help.
	if notice := first.stderr + got.stderr; strings.Count(notice, "/etc/subuid") != 1 || strings.Count(notice, "\n") > 2 {
		t.Errorf("want one notice that names the file, got %q", notice)
	}
	want{stdout: "ok\n"}.check(t, b.sh("touch /etc/x && mkdir /opt/y && rm -r /opt/y /etc/passwd && echo ok"))
	// mknod and chown succeed in name only.
	want{stdout: "ok\n"}.check(t, b.sh("chown 12:34 /etc/group && mknod /dev/x c 1 3 && echo ok"))
	want{stdout: "hi\n"}.check(t, b.sh("echo hi", "-u", "0"))
	if got := b.sh("id -u", "-u", "1000"); got.stdout != "1000\n" && (got.status != 125 || !strings.Contains(got.stderr, "1000")) {
		t.Errorf("neither runs as 1000 nor says why not: %v", got)
	}
}

func TestSingleIDOfAnImageWithManyOwners(t *testing.T) {
	t.Parallel()
	b := newBox(t, as(single(t)), noImage)
	img := manyOwners(t)
	b.load("owners:latest", img)
	want{stdout: "ok\n"}.check(t, b.rbox("run", "--rm", "owners", "sh", "-c", "cat /owned/file-65534 >/dev/null && echo ok"))
	// The true owner is kept for those who can use it.
	out := b.do(call{prog: "/bin/sh", args: []string{"-c", "find root -name file-1000 | head -n 1 | xargs getfattr -d -m user.rbox --only-values"}, dir: b.dir})
	if out.status == 0 && !strings.Contains(out.stdout, "1000") {
		t.Errorf("the owner is not kept: %v", out)
	}
}

func TestImageWithManyOwners(t *testing.T) {
	t.Parallel()
	b := newBox(t, noImage)
	b.load("owners:latest", manyOwners(t))
	want{stdout: "1000:1000\n65534:65534\n0:0\n"}.check(t,
		b.rbox("run", "--rm", "owners", "stat", "-c", "%u:%g", "/owned/file-1000", "/owned/file-65534", "/owned/file-0"))
}

func TestKeepID(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	uid, gid := run.plain.UID, run.plain.GID
	b.file("mine/file", "mine\n", 0o600)
	for name, tc := range map[string]struct {
		flags  []string
		script string
		want   want
	}{
		"the same ids":            {nil, "id -u; id -g", want{stdout: fmt.Sprintf("%d\n%d\n", uid, gid)}},
		"private files":           {[]string{"-v", "./mine:/mine"}, "cat /mine/file; echo x >/mine/made", want{stdout: "mine\n"}},
		"root is there too":       {[]string{"-u", "root"}, "id -u; stat -c %u /etc/shadow; touch /root/x", want{stdout: "0\n0\n"}},
		"a home":                  {nil, "echo ${HOME:+set}", want{stdout: "set\n"}},
		"other ids are there too": {[]string{"-u", "4"}, "id -u", want{stdout: "4\n"}},
	} {
		t.Run(name, func(t *testing.T) {
			tc.want.check(t, b.sh(tc.script, append([]string{"--userns", "keep-id"}, tc.flags...)...))
		})
	}
	if info, err := os.Stat(filepath.Join(b.home, "mine/made")); err != nil || owner(info) != uid {
		t.Errorf("a file made with keep-id: %v %v", info, err)
	}
}

func TestVolumeFilesBelongToTheCaller(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.own(filepath.Join(b.home, "out"))
	want{}.check(t, b.sh("touch /out/root; touch /out/other; chown 1000 /out/other", "-v", "./out:/out"))
	info, err := os.Stat(filepath.Join(b.home, "out/root"))
	if err != nil || owner(info) != run.plain.UID {
		t.Errorf("root's file in a volume: %v, %v", info, err)
	}
	if info, err := os.Stat(filepath.Join(b.home, "out/other")); err != nil || !run.plain.Owns(owner(info)) {
		t.Errorf("another's file in a volume: %v, %v", info, err)
	}
}

func TestUsernsContainer(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	p := b.start(call{args: []string{"run", "--rm", "--init", "-i", "--name", "first", "alpine", "sh", "-c", "readlink /proc/self/ns/user; cat"}, stdin: blockedReader(t)})
	p.see("]\n")
	want{stdout: p.stdout.String()}.check(t, b.sh("readlink /proc/self/ns/user", "--userns", "container:first"))
	want{status: 125, stderr: `no-such`}.check(t, b.sh("true", "--userns", "container:no-such"))
	p.signal(15)
	p.wait()
}

func TestRunByRoot(t *testing.T) {
	t.Parallel()
	b := newBox(t, as(root(t)))
	want{stdout: "0\n"}.check(t, b.sh("id -u"))
	want{stdout: "ok\n"}.check(t, b.sh("touch /f && chown 1000:1000 /f && echo ok"))
}

// rbox in a container of rbox: the inner one has what ids the outer one has,
// or says what that must allow.
func TestNested(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	flags := []string{"-v", run.bin + ":/usr/bin/rbox:ro", "-v", run.alpine + ":/alpine.tar.gz:ro", "--tmpfs", "/var/tmp:exec"}
	inner := "export RBOX_ROOT=/var/tmp/r RBOX_RUNTIME=/var/tmp/rt; mkdir -p $RBOX_RUNTIME && rbox import /alpine.tar.gz alpine >/dev/null && rbox run --rm alpine sh -c 'echo inner $(id -u) $$'"
	want{status: 125, stderr: "rbox: hint: .*--security-opt seccomp=unconfined"}.check(t, b.sh(inner, flags...))
	want{stdout: "inner 0 1\n"}.check(t, b.sh(inner, append(flags, "--security-opt", "seccomp=unconfined", "--device", "/dev/fuse")...))
}

// Several ranges, by name and by uid: all that the files say is mapped.
func TestSeveralRanges(t *testing.T) {
	t.Parallel()
	root(t)
	who, err := account.Ensure(account.Ranged)
	if err != nil {
		t.Fatal(err)
	}
	b := newBox(t, as(who))
	const sum = "awk '{n += $3} END {print n}' /proc/self/uid_map /proc/self/gid_map"
	total := fmt.Sprintln(2 * (1 + 65536 + 1000))
	want{stdout: total}.check(t, b.rbox("unshare", "sh", "-c", sum))
	want{stdout: total}.check(t, b.sh(sum))
	want{stdout: "66536\n"}.check(t, b.sh("touch /f && chown 66536 /f && stat -c %u /f"))
}
