package idmap

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestExplain(t *testing.T) {
	// A host where nothing stands in the way; each case adds what does.
	open := map[string]string{
		"/proc/self/uid_map":                 initialMap,
		"/proc/self/status":                  "Name:\trbox\nSeccomp:\t0\n",
		"/proc/self/mountinfo":               "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n",
		"/proc/sys/user/max_user_namespaces": "15000\n",
	}
	for name, tc := range map[string]struct {
		files map[string]string // "" removes the file
		err   error
		root  bool
		cause string
		hint  string
	}{
		"no reason": {err: unix.EPERM, cause: CauseUnknown, hint: "unshare -Ur true"},
		"kernel":    {err: unix.EINVAL, files: map[string]string{"/proc/self/uid_map": ""}, cause: CauseKernel, hint: "CONFIG_USER_NS=y"},
		"none allowed": {err: unix.ENOSPC, files: map[string]string{"/proc/sys/user/max_user_namespaces": "0\n"},
			cause: CauseCount, hint: "sysctl -w user.max_user_namespaces=28633"},
		"used up": {err: unix.ENOSPC, cause: CauseCount, hint: "sysctl -w user.max_user_namespaces=30000"},
		"Debian": {err: unix.EPERM, files: map[string]string{"/proc/sys/kernel/unprivileged_userns_clone": "0\n"},
			cause: CauseDebian, hint: "sysctl -w kernel.unprivileged_userns_clone=1"},
		"Debian's sysctl leaves root alone": {err: unix.EPERM, root: true,
			files: map[string]string{"/proc/sys/kernel/unprivileged_userns_clone": "0\n"}, cause: CauseUnknown, hint: "dmesg"},
		"Ubuntu": {err: unix.EACCES, files: map[string]string{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1\n"},
			cause: CauseAppArmor, hint: "rbox doctor --fix-script"},
		"Ubuntu, with the profile": {err: unix.EPERM, files: map[string]string{
			"/proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1\n", "/proc/self/attr/apparmor/current": "rbox (unconfined)\n"},
			cause: CauseUnknown, hint: "dmesg"},
		"chroot": {err: unix.EPERM, files: map[string]string{"/proc/self/mountinfo": "22 1 8:1 / /proc rw - proc proc rw\n"},
			cause: CauseChroot, hint: "pivot_root"},
		"outer container": {err: unix.EPERM, files: map[string]string{"/proc/self/status": "Seccomp:\t2\n"},
			cause: CauseSeccomp, hint: "--security-opt seccomp=unconfined"},
		"root of a poor container": {err: unix.EPERM, root: true, files: map[string]string{"/proc/self/status": "CapEff:\t0000000000000cff\n"},
			cause: CauseCaps, hint: "--cap-add SETFCAP"},
		"unmapped": {err: unix.EPERM, files: map[string]string{"/proc/self/uid_map": "4294967290 0 1\n"},
			cause: CauseUnmapped, hint: "map our uid"},
		"SELinux": {err: unix.EACCES, files: map[string]string{"/sys/fs/selinux/enforce": "1"},
			cause: CauseSELinux, hint: "ausearch -m avc"},
	} {
		t.Run(name, func(t *testing.T) {
			read := func(name string) ([]byte, error) {
				s, ok := tc.files[name]
				if !ok {
					s = open[name]
				}
				if s == "" {
					return nil, os.ErrNotExist
				}
				return []byte(s), nil
			}
			e := explain(tc.err, read, "/home/kim/bin/rbox", tc.root)
			if e.Cause != tc.cause || !strings.Contains(e.Hint(), tc.hint) {
				t.Errorf("cause %s, hint %q; want %s and %q", e.Cause, e.Hint(), tc.cause, tc.hint)
			}
			if !errors.Is(e, tc.err) {
				t.Errorf("%v does not wrap %v", e, tc.err)
			}
			if again := ExplainUserNS(e); again != error(e) {
				t.Errorf("explained again: %v", again)
			}
		})
	}
	for _, err := range []error{nil, os.ErrNotExist, errors.New("exit status 1")} {
		if got := ExplainUserNS(err); got != err {
			t.Errorf("%v is no refusal, and was explained: %v", err, got)
		}
	}
}

func TestAppArmorProfile(t *testing.T) {
	got := AppArmorProfile("/home/kim/bin/rbox")
	for _, want := range []string{`profile rbox "/home/kim/bin/rbox" flags=(unconfined) {`, "\n  userns,\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("%s\nlacks %q", got, want)
		}
	}
}
