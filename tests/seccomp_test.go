package tests

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// refusing is a profile that allows all but some system calls.
func refusing(action string, names ...string) string {
	return `{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["` + strings.Join(names, `", "`) + `"], ` + action + `}]}`
}

const eperm = `"action": "SCMP_ACT_ERRNO"`

// strict allows what a small program needs to start and end, and none of what
// rbox does before but its exec.
const strict = `{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"action": "SCMP_ACT_ALLOW", "names": ["execve", "exit_group", "write",
	"arch_prctl", "set_tid_address", "brk", "mmap", "munmap", "mprotect", "open", "openat", "read", "close", "fstat", "fcntl"]}]}`

// mode is a script that shows how a program is confined: 2 is by a filter, or 0.
const mode = `awk '/^(NoNewPrivs|Seccomp):/ {print $2}' /proc/self/status | tr '\n' ' '`

func TestSeccomp(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	profile := func(name, text string) string { return "seccomp=" + b.file(name, text, 0o644) }
	chmod := profile("chmod.json", refusing(eperm, "chmod", "fchmodat", "fchmod"))
	small := profile("strict.json", strict)
	for name, tc := range map[string]struct {
		flags  []string
		script string
		want   want
	}{
		"by default":                {nil, mode, want{stdout: "0 2 "}},
		"a user":                    {[]string{"-u", "1000"}, mode, want{stdout: "0 2 "}},
		"yourself":                  {[]string{"--userns", "keep-id"}, mode, want{stdout: "0 2 "}},
		"with init":                 {[]string{"--init"}, mode, want{stdout: "0 2 "}},
		"unconfined":                {[]string{"--security-opt", "seccomp=unconfined"}, mode, want{stdout: "0 0 "}},
		"with a colon":              {[]string{"--security-opt", "seccomp:unconfined"}, mode, want{stdout: "0 0 "}},
		"the last counts":           {[]string{"--security-opt", "seccomp=unconfined", "--security-opt", "seccomp=builtin"}, mode, want{stdout: "0 2 "}},
		"privileged":                {[]string{"--privileged"}, mode, want{stdout: "0 0 "}},
		"privileged, with a filter": {[]string{"--privileged", "--security-opt", "seccomp=builtin"}, mode, want{stdout: "0 2 "}},
		"no_new_privs":              {[]string{"--security-opt", "no-new-privileges"}, mode, want{stdout: "1 2 "}},
		"no_new_privs of a user":    {[]string{"--security-opt", "no-new-privileges:true", "-u", "1000"}, mode, want{stdout: "1 2 "}},
		"no_new_privs taken back":   {[]string{"--security-opt", "no-new-privileges", "--security-opt", "no-new-privileges=false"}, mode, want{stdout: "0 2 "}},
		"no_new_privs alone":        {[]string{"--security-opt", "no-new-privileges", "--security-opt", "seccomp=unconfined"}, mode, want{stdout: "1 0 "}},

		"no namespaces":              {nil, "unshare -U true", want{status: 1, stderr: "Operation not permitted"}},
		"namespaces":                 {[]string{"--security-opt", "seccomp=unconfined"}, "unshare -U true", want{}},
		"no mounts":                  {nil, "mount -t tmpfs none /mnt", want{status: 1, stderr: "permission denied"}},
		"mounts with the capability": {[]string{"--cap-add", "SYS_ADMIN"}, "mount -t tmpfs none /mnt && " + mode, want{stdout: "0 2 "}},
		"chroot":                     {nil, "chroot / true", want{}},
		"no chroot":                  {[]string{"--cap-drop", "ALL"}, "chroot / true 2>/dev/null || " + mode, want{stdout: "0 2 "}},
		"capabilities of two kinds":  {[]string{"--cap-drop", "ALL", "--cap-add", "SYS_ADMIN"}, "mount -t tmpfs none /mnt && { chroot / true 2>/dev/null || " + mode + "; }", want{stdout: "0 2 "}},
		"all capabilities":           {[]string{"--cap-add", "ALL"}, "mount -t tmpfs none /mnt && chroot / true && " + mode, want{stdout: "0 2 "}},
		"no log of the kernel":       {nil, "dmesg", want{status: 1, stderr: "Operation not permitted"}},

		"a profile":                 {[]string{"--security-opt", chmod}, "chmod 700 /tmp", want{status: 1, stderr: "Operation not permitted"}},
		"a profile of a user":       {[]string{"--security-opt", chmod, "-u", "1000"}, "touch /tmp/f && chmod 700 /tmp/f", want{status: 1, stderr: "Operation not permitted"}},
		"a profile and no new":      {[]string{"--security-opt", chmod, "--security-opt", "no-new-privileges"}, "chmod 700 /tmp", want{status: 1, stderr: "Operation not permitted"}},
		"an errno":                  {[]string{"--security-opt", profile("errno.json", refusing(eperm+`, "errnoRet": 38`, "chmod", "fchmodat"))}, "chmod 700 /tmp", want{status: 1, stderr: "not implemented"}},
		"a flag":                    {[]string{"--security-opt", profile("flag.json", `{"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"]}`)}, mode, want{stdout: "0 2 "}},
		"the end of a process":      {[]string{"--security-opt", profile("kill.json", refusing(`"action": "SCMP_ACT_KILL_PROCESS"`, "mkdir", "mkdirat"))}, "mkdir /x; echo $?", want{stdout: "159\n", stderr: "Bad system call"}},
		"an argument":               {[]string{"--security-opt", profile("args.json", refusing(eperm+`, "args": [{"index": 1, "value": 448, "op": "SCMP_CMP_EQ"}]`, "chmod"))}, "chmod 755 /tmp && chmod 700 /tmp", want{status: 1, stderr: "not permitted"}},
		"strict":                    {[]string{"--security-opt", small}, "exit 7", want{status: 7}},
		"strict of a user":          {[]string{"--security-opt", small, "-u", "1000"}, "exit 7", want{status: 7}},
		"not allowed to be run":     {[]string{"--security-opt", profile("exec.json", refusing(eperm, "execve"))}, "true", want{status: 126, stderr: `"sh": operation not permitted`}},
		"unknown system calls":      {[]string{"--security-opt", profile("unknown.json", refusing(eperm, "nosuch", "chmod"))}, "chmod 700 /tmp", want{status: 1, stderr: "not permitted"}},
		"by the capability":         {[]string{"--cap-drop", "CHOWN", "--security-opt", profile("caps.json", refusing(eperm+`, "excludes": {"caps": ["CAP_CHOWN"]}`, "chmod"))}, "chmod 700 /tmp", want{status: 1, stderr: "not permitted"}},
		"by the capability, it has": {[]string{"--security-opt", profile("caps.json", refusing(eperm+`, "excludes": {"caps": ["CAP_CHOWN"]}`, "chmod"))}, "chmod 700 /tmp", want{}},
	} {
		t.Run(name, func(t *testing.T) { tc.want.check(t, b.sh(tc.script, tc.flags...)) })
	}
	want{status: 159}.check(t, b.rbox("run", "--rm", "--security-opt", profile("kill.json", refusing(`"action": "SCMP_ACT_KILL_PROCESS"`, "mkdir", "mkdirat")), "alpine", "mkdir", "/x"))
	want{status: 127, stderr: `"nosuch": executable file not found`}.check(t, b.rbox("run", "--rm", "--security-opt", small, "alpine", "nosuch"))
}

// A program that does not start is told of, whatever the filter forbids, and
// ends even if it may not end itself.
func TestSeccompThatForbidsAll(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	const only = `{"defaultAction": "%s", "syscalls": [{"names": ["execve"], "action": "SCMP_ACT_ALLOW"}]}`
	told := want{status: 127, stderr: `"nosuch": executable file not found`}
	for name, text := range map[string]string{
		"writing":         refusing(eperm, "write", "sendto"),
		"all":             fmt.Sprintf(only, "SCMP_ACT_ERRNO"),
		"all, by killing": fmt.Sprintf(only, "SCMP_ACT_KILL_PROCESS"),
		"all, by a trap":  fmt.Sprintf(only, "SCMP_ACT_TRAP"),
	} {
		option := "seccomp=" + b.file("profile.json", text, 0o644)
		kinds := [][]string{nil, {"-u", "1000"}, {"-t"}, {"--time-offset", "monotonic=60"}}
		if name != "writing" {
			kinds = kinds[:1]
		}
		for _, flags := range kinds {
			t.Run(strings.Join(append([]string{name}, flags...), " "), func(t *testing.T) {
				told.check(t, b.rbox(slices.Concat([]string{"run", "--rm", "--security-opt", option}, flags, []string{"alpine", "nosuch"})...))
			})
		}
	}
	b.must("run", "-d", "--name", "box", "--security-opt", "seccomp="+b.file("write.json", refusing(eperm, "write", "sendto"), 0o644), "alpine", "sleep", "1000")
	told.check(t, b.rbox("exec", "box", "nosuch"))
	told.check(t, b.rbox("exec", "-t", "box", "nosuch"))
}

func TestSeccompErrors(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	for name, tc := range map[string]struct{ option, want string }{
		"no file":     {"seccomp=/no/such.json", `^rbox: seccomp profile /no/such.json: there is no such file\nrbox: hint: .*unconfined`},
		"a directory": {"seccomp=/tmp", `^rbox: seccomp profile.*/tmp`},
		"no JSON":     {"seccomp=" + b.file("bad.json", "{\n\"defaultAction\"", 0o644), `^rbox: seccomp profile \S+/bad.json: line 2: .*\nrbox: hint: `},
		"no profile":  {"seccomp=" + b.file("empty.json", "{}", 0o644), `^rbox: seccomp profile \S+/empty.json: it has no defaultAction\nrbox: hint: `},
		"an action":   {"seccomp=" + b.file("action.json", refusing(`"action": "DENY"`, "chmod"), 0o644), `^rbox: seccomp profile \S+/action.json: rule 1 \(chmod\): unknown action "DENY"\nrbox: hint: there are SCMP_ACT_ALLOW`},
		"an operator": {"seccomp=" + b.file("op.json", refusing(eperm+`, "args": [{"index": 0, "op": "<"}]`, "chmod"), 0o644), `unknown operator "<"\nrbox: hint: there are SCMP_CMP_EQ`},
		"notify":      {"seccomp=" + b.file("notify.json", refusing(`"action": "SCMP_ACT_NOTIFY"`, "chmod"), 0o644), `SCMP_ACT_NOTIFY is not supported.*\nrbox: hint: `},
		"nothing":     {"seccomp=", `the profile is missing\nrbox: hint: `},
		"no boolean":  {"no-new-privileges=maybe", `want true or false`},
		"no option":   {"nosuch=1", `unknown option "nosuch"\nrbox: hint: there are `},
	} {
		t.Run(name, func(t *testing.T) {
			want{status: 125, stderr: tc.want}.check(t, b.rbox("run", "--rm", "--security-opt", tc.option, "alpine", "true"))
			if got := b.must("ps", "-aq"); got != "" {
				t.Errorf("a container is there: %s", got)
			}
		})
	}
}

// Further programs, restarts and later starts have the container's filter,
// whatever became of the file.
func TestSeccompStays(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	file := b.file("profile.json", refusing(eperm, "chmod", "fchmodat"), 0o644)
	b.must("run", "-d", "--name", "box", "--security-opt", "seccomp="+file, "--security-opt", "no-new-privileges", "alpine", "sleep", "1000")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	refused := func() {
		t.Helper()
		want{status: 1, stderr: "not permitted"}.check(t, b.rbox("exec", "box", "chmod", "700", "/tmp"))
		want{status: 1, stderr: "not permitted"}.check(t, b.rbox("exec", "--privileged", "-u", "0", "box", "chmod", "700", "/tmp"))
		want{stdout: "1 2 "}.check(t, b.rbox("exec", "-u", "1000", "box", "sh", "-c", mode))
	}
	refused()
	b.must("restart", "-t", "0", "box")
	refused()
	want{stdout: "[seccomp=" + file + " no-new-privileges]\n"}.check(t, b.rbox("inspect", "-f", "{{.HostConfig.SecurityOpt}}", "box"))
}

// What a profile refuses stays refused with one id, where an earlier filter
// answers with success what could not be done.
func TestSeccompWithOneID(t *testing.T) {
	t.Parallel()
	b := newBox(t, as(single(t)))
	want{}.check(t, b.sh("touch /f && chown 7:8 /f && mknod /dev/null2 c 1 3"))
	want{status: 1, stderr: "not permitted"}.check(t, b.sh("touch /f; chown 7:8 /f", "--security-opt",
		"seccomp="+b.file("chown.json", refusing(eperm, "chown", "fchownat", "lchown", "fchown"), 0o644)))
}

// An rbox in a container says what the outer one must allow.
func TestSeccompOfAnOuterContainer(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	inner := func(flags ...string) result {
		script := "mkdir /tmp/run && RBOX_ROOT=/data RBOX_RUNTIME=/tmp/run RBOX_KEEPER_IDLE=1s /rbox run --rm --network none --rootfs / echo inner"
		return b.sh(script, append([]string{"--tmpfs", "/data:exec", "-v", run.bin + ":/rbox:ro"}, flags...)...)
	}
	want{status: 125, stderr: `(?m)^rbox: hint: .*--security-opt seccomp=unconfined`}.check(t, inner())
	want{stdout: "inner\n"}.check(t, inner("--security-opt", "seccomp=unconfined"))
}
