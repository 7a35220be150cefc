package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Rights to files, by the first version of Landlock that knows them. It restricts those that
// a ruleset is said to handle.
const (
	rights1 = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR |
		unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE | unix.LANDLOCK_ACCESS_FS_MAKE_CHAR | unix.LANDLOCK_ACCESS_FS_MAKE_DIR |
		unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_SOCK | unix.LANDLOCK_ACCESS_FS_MAKE_FIFO | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK |
		unix.LANDLOCK_ACCESS_FS_MAKE_SYM
	rights2 = rights1 | unix.LANDLOCK_ACCESS_FS_REFER
	rights3 = rights2 | unix.LANDLOCK_ACCESS_FS_TRUNCATE
	rights5 = rights3 | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
)

const (
	read    = unix.LANDLOCK_ACCESS_FS_READ_FILE
	rewrite = read | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE
)

// A rule grants rights to a file, or to all that is below a directory.
type rule struct {
	path   string
	rights uint64
}

// rules are what n takes.
func (n *Need) rules() (list []rule) {
	for _, file := range n.Follow {
		for _, dir := range placesOf(file) {
			list = append(list, rule{dir, read})
		}
	}
	if n.Named {
		list = append(list,
			// Those of network namespaces it may write (link.setting). What is below /proc/sys/net
			// differs by namespace, but /proc/sys is one.
			rule{"/proc/sys", rewrite},
			rule{"/dev/net/tun", rewrite | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV},
			rule{n.Dir, rewrite | unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE},
			rule{filepath.Dir(n.Dir), unix.LANDLOCK_ACCESS_FS_REMOVE_DIR})
	}
	return list
}

// resolvers are where those that manage resolv.conf keep it, for a link in /etc to lead to.
var resolvers = [...]string{
	"/run/systemd", "/run/NetworkManager", "/run/resolvconf", "/run/connman", "/run/netconfig", "/run/dhcpcd",
}

// placesOf are directories where file is and may be later: its own, that which it leads to now,
// and those of resolvers. They are directories since a rule is for one inode: a file that is
// replaced has another.
func placesOf(file string) []string {
	dirs := slices.Concat(resolvers[:], []string{filepath.Dir(file)})
	if target, err := filepath.EvalSymlinks(file); err == nil {
		dir := filepath.Dir(target)
		if slices.ContainsFunc(dirs, func(d string) bool { return dir == d || strings.HasPrefix(dir, d+"/") }) {
			return dirs
		}
		if dir == "/" { // all is below it
			dir = target
		}
		dirs = append(dirs, dir)
	}
	return dirs
}

// fence restricts all threads to the files that n speaks of, and returns the version of
// Landlock that does it, once it has been seen to. It does so for TCP ports in no way: a
// container may connect to any. scoped: neither can the process signal others, nor connect to
// sockets with abstract names.
func fence(n Need) (version int, scoped bool, err error) {
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0, false, os.NewSyscallError("landlock_create_ruleset", errno)
	}
	attr := unix.LandlockRulesetAttr{Handled_access_fs: handled(int(abi))}
	// Each thread has a domain of its own, which its signals were not to leave before an error
	// was mended: Go's runtime sends signals from thread to thread.
	if scoped = !n.Child && abi >= 6 && threadsMaySignal(); scoped {
		attr.Scoped = unix.LANDLOCK_SCOPE_SIGNAL | unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET
	}
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0)
	if errno != 0 {
		return 0, false, os.NewSyscallError("landlock_create_ruleset", errno)
	}
	defer unix.Close(int(fd))
	for _, r := range n.rules() {
		if err := r.add(int(fd), attr.Handled_access_fs); err != nil {
			return 0, false, err
		}
	}
	if err := onAllThreads("landlock_restrict_self", unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0); err != nil {
		return 0, false, err
	}
	if root, err := unix.Open("/", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err == nil {
		unix.Close(root)
		return 0, false, errors.New("it has no effect")
	}
	return int(abi), scoped, nil
}

// handled are the rights that a version of Landlock knows.
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
// errata"): signals between the threads of a process are always allowed.
func threadsMaySignal() bool {
	errata, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_ERRATA)
	return errno == 0 && errata&(1<<(2-1)) != 0
}

// add puts r into the ruleset, with those rights that are handled. What is not there needs none.
func (r rule) add(ruleset int, handled uint64) error {
	fd, err := unix.Open(r.path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	rights := r.rights & handled
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR { // what is for directories is an error for others
		rights &= rewrite | unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	}
	below := unix.LandlockPathBeneathAttr{Allowed_access: rights, Parent_fd: int32(fd)}
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(ruleset), unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&below)), 0, 0, 0)
	if errno != 0 {
		return fmt.Errorf("%s: %w", r.path, os.NewSyscallError("landlock_add_rule", errno))
	}
	return nil
}
