package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Driver is how layers become one root file system.
type Driver string

// The drivers, fastest first. Copy works everywhere.
const (
	Overlay Driver = "overlay"
	Fuse    Driver = "fuse-overlayfs"
	Copy    Driver = "copy"
)

// ParseDriver reads the name of a driver, as $RBOX_STORAGE_DRIVER gives it.
func ParseDriver(s string) (Driver, error) {
	for _, d := range []Driver{Overlay, Fuse, Copy} {
		if s == string(d) {
			return d, nil
		}
	}
	return "", fmt.Errorf("unknown storage driver %q: there are overlay, fuse-overlayfs and copy", s)
}

// A DriverError tells why a driver does not serve here.
type DriverError struct {
	Driver Driver
	Since  string // first mainline kernel where it can
	Err    error
	Cure   string // what Hint gives; "" if nothing is known to help
}

func (e *DriverError) Error() string {
	return fmt.Sprintf("%s (Linux %s): %v", e.Driver, e.Since, e.Err)
}

// Unwrap is the failure of the step that did not work.
func (e *DriverError) Unwrap() error { return e.Err }

// Hint is what would make the driver serve.
func (e *DriverError) Hint() string { return e.Cure }

// rung is a driver and how to try it.
type rung struct {
	driver Driver
	since  string                     // user namespaces may mount FUSE from 4.18, overlay from 5.11
	try    func(scratch string) error // mounts for real, then unmounts
	cure   func(scratch string, err error) string
}

// ladder lists the drivers as PickDriver tries them.
func ladder() []rung {
	return []rung{
		{Overlay, "5.11", tryOverlay, cureOverlay},
		{Fuse, "4.18", tryFuse, cureFuse},
		{Copy, "any", func(string) error { return nil }, nil},
	}
}

// PickDriver returns the first driver that works in the directory scratch, on
// the file system where containers keep what they write, and a *DriverError
// for each faster one. It tries rather than read the kernel's version, since
// distributions backport features and security modules forbid them. It must
// run as root of a user namespace and in a mount namespace of its own.
func PickDriver(scratch string) (d Driver, skipped []error) {
	return pick(ladder(), scratch)
}

func pick(rungs []rung, scratch string) (d Driver, skipped []error) {
	for _, r := range rungs {
		err := r.try(scratch)
		if err == nil {
			return r.driver, skipped
		}
		skipped = append(skipped, &DriverError{r.driver, r.since, err, r.cure(scratch, err)})
	}
	panic("rootfs: copy always works")
}

// TryDriver tries one driver in scratch, as PickDriver does.
func TryDriver(d Driver, scratch string) error {
	for _, r := range ladder() {
		if r.driver != d {
			continue
		}
		if err := r.try(scratch); err != nil {
			return &DriverError{d, r.since, err, r.cure(scratch, err)}
		}
		return nil
	}
	_, err := ParseDriver(string(d))
	return err
}

// stack is a directory with what a mount of layers needs.
type stack struct {
	dir, lower, upper, work, merged string

	// hider is a layer over lower that hides its hidden/file and the file
	// whiteout, in overlay's own marks as the store's layers have them.
	hider string
}

// newStack makes a stack in scratch, its lower layer filled for exercise.
func newStack(scratch string) (*stack, error) {
	dir, err := os.MkdirTemp(scratch, ".probe-")
	if err != nil {
		return nil, err
	}
	s := &stack{dir: dir, lower: dir + "/lower", hider: dir + "/hider", upper: dir + "/upper", work: dir + "/work", merged: dir + "/merged"}
	if err := s.fill(); err != nil {
		s.remove()
		return nil, err
	}
	return s, nil
}

func (s *stack) fill() error {
	for _, d := range []string{s.lower, s.hider, s.upper, s.work, s.merged, s.lower + "/full", s.lower + "/hidden", s.hider + "/hidden"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	for _, f := range []string{"gone", "moved", "given", "full/old", "hidden/file", "whiteout"} {
		if err := os.WriteFile(s.lower+"/"+f, []byte(f), 0o644); err != nil {
			return err
		}
	}
	if err := unix.Mknod(s.hider+"/whiteout", unix.S_IFCHR, 0); err != nil {
		return fmt.Errorf("%s takes no whiteouts (Linux 5.8): %w", fileSystem(s.dir), err)
	}
	if err := unix.Setxattr(s.hider+"/hidden", "user.overlay.opaque", []byte("y"), 0); err != nil {
		return fmt.Errorf("%s keeps no user xattrs: %w", fileSystem(s.dir), err)
	}
	return nil
}

// lowers are the layers below upper, lowest first.
func (s *stack) lowers() []string { return []string{s.lower, s.hider} }

// remove deletes the stack. The work directory's own may have mode 0, which
// does not stop root; on a file system that knows no root, we still own it.
func (s *stack) remove() {
	os.Chmod(s.work+"/work", 0o700)
	os.RemoveAll(s.dir)
}

func tryOverlay(scratch string) error {
	s, err := newStack(scratch)
	if err != nil {
		return err
	}
	defer s.remove()
	// Volatile, or unmounting would wait for all that the file system has to write.
	if err := MountOverlay(s.merged, s.lowers(), s.upper, s.work, "volatile"); err != nil {
		return fmt.Errorf("%s: %w", fileSystem(scratch), err)
	}
	defer unix.Unmount(s.merged, unix.MNT_DETACH)
	return exercise(s.merged)
}

func tryFuse(scratch string) error {
	s, err := newStack(scratch)
	if err != nil {
		return err
	}
	defer s.remove()
	f, err := MountFuse(s.merged, s.lowers(), s.upper, s.work)
	if err != nil {
		return err
	}
	defer f.Unmount()
	return exercise(s.merged)
}

// exercise does to the mounted stack what package managers do to theirs, and
// tells what does not work.
func exercise(merged string) error {
	for _, step := range []struct {
		what string
		do   func(dir string) error
	}{
		{"hide what a layer marks as deleted", hideMarked},
		{"create a file", createFile},
		{"change an owner", changeOwner},
		{"delete a file of a lower layer", deleteLower},
		{"replace a directory of a lower layer", replaceLower},
		{"rename a file of a lower layer", renameLower},
		{"link a file", func(dir string) error { return os.Link(dir+"/new", dir+"/link") }},
		{"set a user xattr", func(dir string) error {
			return unix.Setxattr(dir+"/new", "user.rbox.probe", []byte("1"), 0)
		}},
	} {
		if err := step.do(merged); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	return nil
}

func hideMarked(dir string) error {
	for _, name := range []string{"/whiteout", "/hidden/file"} {
		if _, err := os.Lstat(dir + name); !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("%s is there (%v)", name, err)
		}
	}
	return nil
}

func createFile(dir string) error {
	if err := os.WriteFile(dir+"/new", []byte("new"), 0o644); err != nil {
		return err
	}
	b, err := os.ReadFile(dir + "/new")
	if err == nil && string(b) != "new" {
		err = fmt.Errorf("read %q where \"new\" was written", b)
	}
	return err
}

// changeOwner gives away a file of each layer, if there is anyone to give to.
func changeOwner(dir string) error {
	if !OtherIDs() {
		return nil
	}
	for _, f := range []string{"/new", "/given"} {
		if err := os.Chown(dir+f, 1, 1); err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Stat(dir+f, &st); err != nil {
			return err
		}
		if st.Uid != 1 || st.Gid != 1 {
			return fmt.Errorf("owner is %d:%d where 1:1 was set", st.Uid, st.Gid)
		}
	}
	return nil
}

func deleteLower(dir string) error {
	if err := os.Remove(dir + "/gone"); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == "gone" {
			return errors.New("it is still listed")
		}
	}
	return nil
}

// replaceLower needs opaque directories: the new one must not show the files
// of the old.
func replaceLower(dir string) error {
	if err := os.RemoveAll(dir + "/full"); err != nil {
		return err
	}
	if err := os.Mkdir(dir+"/full", 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir + "/full")
	if err == nil && len(entries) > 0 {
		err = errors.New("the new directory shows the old one's files")
	}
	return err
}

func renameLower(dir string) error {
	if err := os.Rename(dir+"/moved", dir+"/full/moved"); err != nil {
		return err
	}
	if _, err := os.Lstat(dir + "/moved"); !errors.Is(err, os.ErrNotExist) {
		return errors.New("the old name is still there")
	}
	_, err := os.Lstat(dir + "/full/moved")
	return err
}

// OwnsOthers tries whether a file in scratch can belong to another id of our
// user namespace than root. NFS and other shared file systems, whose servers
// judge ids, refuse it; layers must lie elsewhere then.
func OwnsOthers(scratch string) error {
	if !OtherIDs() {
		return nil
	}
	f, err := os.CreateTemp(scratch, ".probe-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := f.Chown(1, 1); err != nil {
		return fmt.Errorf("%s takes no files of subordinate ids: %w", fileSystem(scratch), reason(err))
	}
	// Some servers say yes and do otherwise.
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err == nil && (st.Uid != 1 || st.Gid != 1) {
		return fmt.Errorf("%s gives files of subordinate ids to others", fileSystem(scratch))
	}
	return nil
}

// reason is err without the path that package os adds, of a file that nobody knows.
func reason(err error) error {
	var path *os.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// OtherIDs tells whether our user namespace has an id 1, as uid and as gid.
func OtherIDs() bool {
	for _, file := range []string{"/proc/self/uid_map", "/proc/self/gid_map"} {
		b, err := os.ReadFile(file)
		if err != nil || !mapsOne(string(b)) {
			return false
		}
	}
	return true
}

func mapsOne(idMap string) bool {
	for line := range strings.Lines(idMap) {
		var inside, outside, count uint64
		if n, _ := fmt.Sscan(line, &inside, &outside, &count); n == 3 && inside <= 1 && inside+count > 1 {
			return true
		}
	}
	return false
}

// Reflink tries whether files in scratch can share their blocks (FICLONE), so
// that the copy driver costs no space.
func Reflink(scratch string) error {
	a, err := os.CreateTemp(scratch, ".probe-")
	if err != nil {
		return err
	}
	defer os.Remove(a.Name())
	defer a.Close()
	if _, err := a.WriteString("shared"); err != nil {
		return err
	}
	b, err := os.CreateTemp(scratch, ".probe-")
	if err != nil {
		return err
	}
	defer os.Remove(b.Name())
	defer b.Close()
	return unix.IoctlFileClone(int(b.Fd()), int(a.Fd()))
}

// FileSystem names the kind of file system that dir lies on: "ext4", "NFS",
// or its magic number.
func FileSystem(dir string) string {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return "unknown"
	}
	return fsName(int64(st.Type))
}

// fileSystem names dir's file system and where it lies, for errors.
func fileSystem(dir string) string { return FileSystem(dir) + " at " + filepath.Clean(dir) }

// fsName names the magic numbers of statfs(2) that are likely under a home.
func fsName(magic int64) string {
	switch magic {
	case unix.EXT4_SUPER_MAGIC:
		return "ext4"
	case unix.XFS_SUPER_MAGIC:
		return "XFS"
	case unix.BTRFS_SUPER_MAGIC:
		return "btrfs"
	case unix.TMPFS_MAGIC:
		return "tmpfs"
	case unix.NFS_SUPER_MAGIC:
		return "NFS"
	case unix.FUSE_SUPER_MAGIC:
		return "FUSE"
	case unix.OVERLAYFS_SUPER_MAGIC:
		return "overlay"
	case unix.ECRYPTFS_SUPER_MAGIC:
		return "eCryptfs"
	case unix.F2FS_SUPER_MAGIC:
		return "F2FS"
	case unix.CEPH_SUPER_MAGIC:
		return "Ceph"
	case unix.AFS_FS_MAGIC, unix.AFS_SUPER_MAGIC:
		return "AFS"
	case unix.V9FS_MAGIC:
		return "9p"
	case unix.SMB2_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC, unix.SMB_SUPER_MAGIC:
		return "SMB"
	case unix.RAMFS_MAGIC:
		return "ramfs"
	case 0x0bd00bd0:
		return "Lustre"
	case 0x47504653:
		return "GPFS"
	case 0x19830326:
		return "BeeGFS"
	case 0x2fc12fc1:
		return "ZFS"
	case unix.MSDOS_SUPER_MAGIC:
		return "FAT"
	case unix.EXFAT_SUPER_MAGIC:
		return "exFAT"
	case 0x6a656a63:
		return "virtiofs" // what some hosts show for FUSE in a guest
	}
	return fmt.Sprintf("file system %#x", uint32(magic))
}

// cureOverlay tells what would let overlay work in scratch.
func cureOverlay(scratch string, err error) string {
	const elsewhere = "set RBOX_ROOT to a directory on a local disk (ext4, XFS or btrfs)"
	switch FileSystem(scratch) {
	case "NFS", "Lustre", "GPFS", "BeeGFS", "AFS", "SMB", "9p", "Ceph", "FUSE", "eCryptfs", "ramfs", "virtiofs":
		return elsewhere
	case "overlay":
		return "give the outer container a volume for rbox's data: set RBOX_ROOT to a directory that is not on overlay"
	case "tmpfs":
		if errors.Is(err, unix.EOPNOTSUPP) {
			return elsewhere + ": tmpfs keeps user xattrs from Linux 6.6 on"
		}
	}
	switch {
	case errors.Is(err, unix.ENODEV):
		return "as root: modprobe overlay"
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EROFS):
		return elsewhere
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return "boot Linux 5.11 or later; where that is so already, a security module or an outer container forbids it (dmesg tells)"
	}
	return ""
}
