// Package landlock restricts threads to some files, for ever (landlock(7)). A thread that is
// restricted can neither mount nor unmount, and those that it starts, processes too, are as it is.
package landlock

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Rights to a file, or to all files below a directory.
const (
	Read    = unix.LANDLOCK_ACCESS_FS_READ_FILE
	Rewrite = Read | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE
	Control = unix.LANDLOCK_ACCESS_FS_IOCTL_DEV // of devices (ioctl(2))
	List    = unix.LANDLOCK_ACCESS_FS_READ_DIR
	Make    = unix.LANDLOCK_ACCESS_FS_MAKE_REG
	Remove  = unix.LANDLOCK_ACCESS_FS_REMOVE_FILE // but not directories
	Rmdir   = unix.LANDLOCK_ACCESS_FS_REMOVE_DIR

	ofFiles = Rewrite | Control // the others are of directories
)

// What versions of Landlock know. What is not known is not restricted.
const (
	rights1 = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | Read | List | Rmdir | Remove | Make |
		unix.LANDLOCK_ACCESS_FS_MAKE_CHAR | unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_SOCK |
		unix.LANDLOCK_ACCESS_FS_MAKE_FIFO | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK | unix.LANDLOCK_ACCESS_FS_MAKE_SYM
	rights2 = rights1 | unix.LANDLOCK_ACCESS_FS_REFER
	rights3 = rights2 | unix.LANDLOCK_ACCESS_FS_TRUNCATE
	rights5 = rights3 | Control
)

// A Rule grants rights to the file at Path or, if it is a directory, to all below it. It is for
// the file that is there now, not for another that may be later. None that is missing is an error.
type Rule struct {
	Path   string
	Rights uint64
}

// A Fence is what is left. TCP and UDP are not restricted.
type Fence struct {
	Rules []Rule

	// Scoped: no signals to processes outside, and no connections to their sockets with
	// abstract names, where the kernel can have it so.
	Scoped bool
}

// A Ring is a Fence that stands.
type Ring struct {
	Version int // of Landlock
	Scoped  bool
}

// AroundThread restricts the calling thread.
func (f Fence) AroundThread() (Ring, error) {
	return f.around(func(nr, a1, a2, a3 uintptr) unix.Errno {
		_, _, errno := unix.RawSyscall(nr, a1, a2, a3)
		return errno
	})
}

// AroundProcess restricts all threads.
func (f Fence) AroundProcess() (Ring, error) {
	return f.around(func(nr, a1, a2, a3 uintptr) unix.Errno {
		_, _, errno := syscall.AllThreadsSyscall(nr, a1, a2, a3)
		return errno
	})
}

// Missing tells of an error that is a kernel's without Landlock (ENOSYS), with Landlock turned
// off (EOPNOTSUPP), in which it has been done too often (E2BIG), or of a seccomp filter around
// us (EPERM).
func Missing(err error) bool {
	return errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.E2BIG) || errors.Is(err, unix.EPERM)
}

func (f Fence) around(call func(nr, a1, a2, a3 uintptr) unix.Errno) (r Ring, err error) {
	version, err := create(nil, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if err != nil {
		return r, err
	}
	r = Ring{Version: version, Scoped: f.Scoped && version >= 6 && threadsMaySignal()}
	attr := unix.LandlockRulesetAttr{Handled_access_fs: handled(version)}
	if r.Scoped {
		attr.Scoped = unix.LANDLOCK_SCOPE_SIGNAL | unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET
	}
	ruleset, err := create(&attr, 0)
	if err != nil {
		return Ring{}, err
	}
	defer unix.Close(ruleset)
	for _, rule := range f.Rules {
		if err := rule.add(ruleset, attr.Handled_access_fs); err != nil {
			return Ring{}, err
		}
	}
	var flags uintptr
	if version >= 7 { // what we try next is nothing for the audit log
		flags = unix.LANDLOCK_RESTRICT_SELF_LOG_SAME_EXEC_OFF
	}
	if errno := call(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(ruleset), flags, 0); errno != 0 {
		return Ring{}, os.NewSyscallError("landlock_restrict_self", errno)
	}
	if !stands() {
		return Ring{}, errors.New("landlock: it has no effect")
	}
	return r, nil
}

// create is landlock_create_ruleset(2).
func create(attr *unix.LandlockRulesetAttr, flags uintptr) (int, error) {
	size := unsafe.Sizeof(*attr)
	if attr == nil {
		size = 0
	}
	r, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(attr)), size, flags)
	if errno != 0 {
		return 0, os.NewSyscallError("landlock_create_ruleset", errno)
	}
	return int(r), nil
}

// handled are the rights that a version knows.
func handled(version int) uint64 {
	switch {
	case version >= 5:
		return rights5
	case version >= 3:
		return rights3
	case version == 2:
		return rights2
	}
	return rights1
}

// threadsMaySignal asks for erratum 2 (Documentation/userspace-api/landlock.rst, "Landlock
// errata"): that the threads of a process may signal each other, though each has restricted
// itself. Go's runtime does so.
func threadsMaySignal() bool {
	errata, err := create(nil, unix.LANDLOCK_CREATE_RULESET_ERRATA)
	return err == nil && errata&(1<<(2-1)) != 0
}

func (r Rule) add(ruleset int, handled uint64) error {
	fd, err := unix.Open(r.Path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil // what is not there needs no rule
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	rights := r.Rights & handled
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		rights &= ofFiles
	}
	below := unix.LandlockPathBeneathAttr{Allowed_access: rights, Parent_fd: int32(fd)}
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(ruleset), unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&below)), 0, 0, 0)
	if errno != 0 {
		return fmt.Errorf("%s: %w", r.Path, os.NewSyscallError("landlock_add_rule", errno))
	}
	return nil
}

// stands tries what no Fence of ours leaves.
func stands() bool {
	root, err := unix.Open("/", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		unix.Close(root)
	}
	return err == unix.EACCES
}
