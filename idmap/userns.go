package idmap

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// NoUserNSError reports that this host lets us have no user namespace, or none
// that is of use: Why names what forbids it, as far as we can see.
type NoUserNSError struct {
	Err   error  // of clone(2), unshare(2) or the first use of the namespace
	Cause string // one of the Cause constants
	Why   string
	Cure  string // what Hint gives
}

// Causes of a NoUserNSError.
const (
	CauseKernel   = "kernel"     // built or booted without user namespaces
	CauseDebian   = "sysctl"     // kernel.unprivileged_userns_clone=0 (Debian and its heirs)
	CauseCount    = "count"      // user.max_user_namespaces reached or 0
	CauseAppArmor = "apparmor"   // kernel.apparmor_restrict_unprivileged_userns=1 (Ubuntu)
	CauseChroot   = "chroot"     // our root is not that of a mount namespace
	CauseSeccomp  = "seccomp"    // a filter, most often an outer container's
	CauseUnmapped = "unmapped"   // our own id does not exist in the outer namespace
	CauseCaps     = "capability" // root, but the outer container's, without CAP_SETFCAP
	CauseSELinux  = "selinux"    // enforcing; the policy may say no
	CauseUnknown  = "unknown"
)

func (e *NoUserNSError) Error() string {
	if e.Err == nil {
		return "no user namespace: " + e.Why
	}
	return fmt.Sprintf("no user namespace: %s (%v)", e.Why, e.Err)
}

// Unwrap is the kernel's own error.
func (e *NoUserNSError) Unwrap() error { return e.Err }

// Hint is how to lift the ban.
func (e *NoUserNSError) Hint() string { return e.Cure }

// ExplainUserNS finds out why a clone(2) with CLONE_NEWUSER, or what was then
// done in the new namespace, failed with err, and returns a *NoUserNSError, or an
// *ExhaustedError if it was about a namespace of another kind. It returns err itself if
// that is the former already, or no refusal of the kernel's.
func ExplainUserNS(err error) error {
	var known *NoUserNSError
	if !refused(err) || errors.As(err, &known) {
		return err
	}
	if other := exhausted(err); other != nil {
		return other
	}
	exe, exeErr := Executable()
	if exeErr != nil {
		exe = "/usr/local/bin/rbox"
	}
	return explain(err, os.ReadFile, exe, os.Geteuid() == 0)
}

// Executable is the path of rbox as the user installed it: what runs may be
// a file that it has written out and become, which then says so in $RBOX_EXE.
func Executable() (string, error) {
	if exe := os.Getenv("RBOX_EXE"); exe != "" {
		return exe, nil
	}
	return os.Executable()
}

// refused tells whether err is an errno by which clone(2) refuses a user
// namespace, or by which security modules make it useless.
func refused(err error) bool {
	for _, errno := range []error{unix.EPERM, unix.EACCES, unix.ENOSPC, unix.EUSERS, unix.EINVAL, unix.ENOSYS} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// AppArmorProfile is the text of a profile that lets the program at exe, and
// what it starts, use user namespaces where AppArmor keeps them from others.
func AppArmorProfile(exe string) string {
	return `abi <abi/4.0>,
include <tunables/global>

profile rbox "` + exe + `" flags=(unconfined) {
  userns,
  include if exists <local/rbox>
}
`
}

// explain asks, most telling first, all that can forbid a user namespace.
func explain(err error, read func(string) ([]byte, error), exe string, root bool) *NoUserNSError {
	sys := func(name string) string {
		b, err := read("/proc/sys/" + strings.ReplaceAll(name, ".", "/"))
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(b))
	}
	status, _ := read("/proc/self/status")
	e := &NoUserNSError{Err: err}
	switch {
	case missing(read, "/proc/self/uid_map") && !missing(read, "/proc/self/status"):
		e.Cause, e.Why = CauseKernel, "this kernel was built without user namespaces"
		e.Cure = "boot a kernel with CONFIG_USER_NS=y"
	case sys("user.max_user_namespaces") == "0":
		e.Cause, e.Why = CauseCount, "user.max_user_namespaces is 0"
		e.Cure = "as root: sysctl -w user.max_user_namespaces=28633"
	case sys("kernel.unprivileged_userns_clone") == "0" && !root:
		e.Cause, e.Why = CauseDebian, "kernel.unprivileged_userns_clone is 0"
		e.Cure = "as root: sysctl -w kernel.unprivileged_userns_clone=1"
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EUSERS):
		e.Cause, e.Why = CauseCount, "user.max_user_namespaces ("+sys("user.max_user_namespaces")+") is used up, or namespaces nest more than 32 deep"
		e.Cure = "end other containers, or as root: sysctl -w user.max_user_namespaces=" + twice(sys("user.max_user_namespaces"))
	case sys("kernel.apparmor_restrict_unprivileged_userns") == "1" && !root && !confinedBy(read, "rbox"):
		e.Cause, e.Why = CauseAppArmor, "kernel.apparmor_restrict_unprivileged_userns is 1 and no AppArmor profile exempts "+exe
		e.Cure = "as root: install an AppArmor profile for " + exe + " (`rbox doctor --fix-script` prints it), or sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
	case unmapped(read):
		e.Cause, e.Why = CauseUnmapped, "our own uid has no place in the user namespace we are in"
		e.Cure = "map our uid in the outer container that rbox runs in"
	case chrooted(read):
		e.Cause, e.Why = CauseChroot, "we are in a chroot, where the kernel allows none"
		e.Cure = "enter the tree with pivot_root instead of chroot, for example by bwrap --bind TREE /"
	case root && lacksSetFCap(string(status)) && errors.Is(err, unix.EPERM):
		e.Cause, e.Why = CauseCaps, "root here lacks CAP_SETFCAP, without which root cannot be mapped"
		e.Cure = (&RootCapsError{[]string{"CAP_SETFCAP"}}).Hint()
	case field(string(status), "Seccomp") == "2":
		e.Cause, e.Why = CauseSeccomp, "a seccomp filter is on us, as outer containers set one"
		e.Cure = "start the outer container with --security-opt seccomp=unconfined --security-opt apparmor=unconfined"
	case selinuxEnforcing(read):
		e.Cause, e.Why = CauseSELinux, "SELinux is enforcing and may forbid it"
		e.Cure = "as root: ausearch -m avc -ts recent | audit2allow -M rbox && semodule -i rbox.pp"
	default:
		e.Cause, e.Why = CauseUnknown, "the kernel does not say why"
		e.Cure = "try `unshare -Ur true`, and look at dmesg for the security module that forbids it"
	}
	return e
}

func missing(read func(string) ([]byte, error), name string) bool {
	_, err := read(name)
	return errors.Is(err, os.ErrNotExist)
}

// confinedBy tells whether we run under the AppArmor profile of that name.
func confinedBy(read func(string) ([]byte, error), profile string) bool {
	b, _ := read("/proc/self/attr/apparmor/current")
	name, _, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
	return name == profile
}

// unmapped tells whether the kernel shows us under the overflow id because
// our own is not in the map. (In the initial namespace all ids are.)
func unmapped(read func(string) ([]byte, error)) bool {
	b, err := read("/proc/self/uid_map")
	if err != nil {
		return false
	}
	ms, err := parseMap("/proc/self/uid_map", string(b))
	return err == nil && len(intersect(Range{uint32(os.Geteuid()), 1}, insides(ms))) == 0
}

// chrooted tells whether our / is not a mount point, which a pivot_root or a
// container's start always makes it (proc_pid_mountinfo(5), field 5).
func chrooted(read func(string) ([]byte, error)) bool {
	b, err := read("/proc/self/mountinfo")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 4 && f[4] == "/" {
			return false
		}
	}
	return true
}

func selinuxEnforcing(read func(string) ([]byte, error)) bool {
	b, _ := read("/sys/fs/selinux/enforce")
	return strings.TrimSpace(string(b)) == "1"
}

// lacksSetFCap reads the effective capabilities in /proc/PID/status.
func lacksSetFCap(status string) bool {
	caps, err := strconv.ParseUint(field(status, "CapEff"), 16, 64)
	return err == nil && caps&(1<<unix.CAP_SETFCAP) == 0
}

// field returns a value of /proc/PID/status.
func field(status, key string) string {
	for line := range strings.Lines(status) {
		if k, v, ok := strings.Cut(line, ":"); ok && k == key {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// twice is double the number in s, or a usual default.
func twice(s string) string {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return "28633"
	}
	return strconv.FormatUint(2*n, 10)
}
