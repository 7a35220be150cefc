package tests

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestDoctor(t *testing.T) {
	t.Parallel()
	b := newBox(t, noImage)
	got := b.rbox("doctor")
	if got.status != 0 {
		t.Fatal(got)
	}
	for _, need := range []string{"ids", "overlay", "fuse-overlayfs", "network", "cgroup", "runtime", "/dev/net/tun", "/dev/fuse"} {
		if !strings.Contains(strings.ToLower(got.stdout), need) {
			t.Errorf("says nothing of %s:\n%s", need, got.stdout)
		}
	}
	var any any
	if err := json.Unmarshal([]byte(b.must("doctor", "--format", "json")), &any); err != nil {
		t.Errorf("--format json: %v", err)
	}
	fix := b.must("doctor", "--fix-script")
	want{}.check(t, b.do(call{prog: "sh", args: []string{"-n"}, stdin: strings.NewReader(fix)}))
	want{status: 125, stderr: `xml`}.check(t, b.rbox("doctor", "--format", "xml"))
}

// Without subordinate ids the cure is a line for the administrator.
func TestDoctorWithoutSubordinateIDs(t *testing.T) {
	t.Parallel()
	b := newBox(t, as(single(t)), noImage)
	want{match: `usermod --add-subuids \d+-\d+ --add-subgids \d+-\d+ ` + b.who.Name}.check(t, b.rbox("doctor"))
	want{match: `(?m)^[^#\n]*` + b.who.Name + `.*/etc/subuid`}.check(t, b.rbox("doctor", "--fix-script"))
}

func TestDoctorWithoutUserNamespaces(t *testing.T) {
	t.Parallel()
	b := newBox(t, noImage)
	for _, args := range []string{"doctor", "doctor --fix-script"} {
		got := b.do(call{prog: "unshare", args: []string{"-Ur", "sh", "-c",
			`echo 0 >/proc/sys/user/max_user_namespaces && "$RBOX" ` + args}, env: []string{"RBOX=" + run.bin}})
		if !strings.Contains(got.stdout, "user.max_user_namespaces") {
			t.Errorf("%s: %v", args, got)
		}
	}
}
