package tests

import (
	"os"
	"strings"
	"testing"
)

// The image host is this machine's own files.
func TestRunHost(t *testing.T) {
	t.Parallel()
	b := newBox(t, noImage)
	osRelease, err := os.ReadFile("/etc/os-release")
	if err != nil {
		t.Fatal(err)
	}
	b.file("mine", "my file\n", 0o600)
	for name, tc := range map[string]struct {
		script string
		want   want
	}{
		"this machine's files":   {"cat /etc/os-release", want{stdout: string(osRelease)}},
		"its programs":           {"awk 'BEGIN {print 6*7}'", want{stdout: "42\n"}},
		"read-only":              {"touch /usr/x 2>&1; touch /etc/x 2>&1; touch /x 2>&1; true", want{match: `(?s)/usr/x.*Read-only.*/etc/x.*Read-only.*/x.*Read-only`}},
		"but for /tmp and so on": {"for d in /tmp /var/tmp /run; do touch $d/x || exit 1; done; echo ok", want{stdout: "ok\n"}},
		"a home that is mine":    {"cat " + b.home + "/mine; echo new >" + b.home + "/new; cat " + b.home + "/new", want{stdout: "my file\nnew\n"}},
		"a /tmp of its own":      {"ls " + run.dir + "/rbox 2>/dev/null | wc -l", want{match: `^[01]\n$`}},
		"its own processes":      {"ls /proc | grep -cE '^[0-9]+$'", want{match: `^[1-5]\n$`}},
		"exit status":            {"exit 7", want{status: 7}},
	} {
		t.Run(name, func(t *testing.T) {
			tc.want.check(t, b.rbox("run", "--rm", "host", "sh", "-c", tc.script))
		})
	}
	if data, err := os.ReadFile("/tmp/x"); err == nil {
		t.Errorf("/tmp of the container is the host's: %q", data)
	}
	want{status: 127}.check(t, b.rbox("run", "--rm", "host", "no-such-command"))
	got := b.rbox("run", "--rm", "host")
	if got.status != 0 || strings.Contains(got.stderr, "panic") {
		t.Errorf("without a command: %v", got)
	}
}
