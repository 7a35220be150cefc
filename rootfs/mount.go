package rootfs

import (
	"errors"
	"fmt"
	"os"
	"sort"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A Mount is one entry of a container's mount plan.
type Mount struct {
	Type     string // "bind", "tmpfs" or "volume"
	Source   string // of a bind or volume: an absolute path of the host
	Target   string // in the container
	ReadOnly bool
	Flat     bool   // a bind without the mounts below its source
	Size     int64  // of a tmpfs, bytes; 0 is the kernel's default, half of memory
	Mode     uint32 // of a tmpfs's root; 0 is 01777
	NoCopy   bool   // a volume gets nothing of the image, even if it is empty
	Data     string // further options of a tmpfs, as tmpfs(5) has them
	Flags    uintptr
}

// Sorted returns mounts ordered so that each comes after those it lies in.
func Sorted(mounts []Mount) []Mount {
	out := append([]Mount(nil), mounts...)
	sort.SliceStable(out, func(i, j int) bool {
		return strings.Count(out[i].Target, "/") < strings.Count(out[j].Target, "/")
	})
	return out
}

// Mount carries out m in the tree.
func (t *Tree) Mount(m Mount) error {
	var err error
	switch m.Type {
	case "bind", "volume":
		err = t.bind(m)
	case "tmpfs":
		err = t.tmpfs(m)
	default:
		err = fmt.Errorf("unknown type %q", m.Type)
	}
	if err != nil {
		return fmt.Errorf("mount %s on %s: %w", m.what(), m.Target, err)
	}
	return nil
}

func (m Mount) what() string {
	if m.Source != "" {
		return m.Source
	}
	return m.Type
}

// bind mounts a file or directory of the host. What it is decides what its
// mount point must be.
func (t *Tree) bind(m Mount) error {
	source, err := unix.Open(m.Source, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(source)
	var st unix.Stat_t
	if err := unix.Fstat(source, &st); err != nil {
		return err
	}
	target, err := t.Mountpoint(m.Target, st.Mode&unix.S_IFMT == unix.S_IFDIR)
	if err != nil {
		return err
	}
	defer target.Close()
	flags := uintptr(unix.MS_BIND | unix.MS_REC)
	if m.Flat {
		flags = unix.MS_BIND
	}
	if err := unix.Mount(fdPath(source), fdPath(int(target.Fd())), "", flags, ""); err != nil {
		return err
	}
	if !m.ReadOnly && m.Flags == 0 {
		return nil
	}
	// The descriptor still names what lies below: open the mount itself.
	mounted, err := t.Open(m.Target, unix.O_PATH, 0)
	if err != nil {
		return err
	}
	defer mounted.Close()
	if m.ReadOnly {
		m.Flags |= unix.MS_RDONLY
	}
	return restrict(int(mounted.Fd()), m.Flags, !m.Flat)
}

// Cover hides name: a directory by the one at empty, all else by the node at null.
func (t *Tree) Cover(name, null, empty string) error {
	target, err := t.Open(name, unix.O_PATH, 0)
	if err != nil {
		return err
	}
	defer target.Close()
	cover := null
	if st, err := target.Stat(); err == nil && st.IsDir() {
		cover = empty
	}
	if err := unix.Mount(cover, fdPath(int(target.Fd())), "", unix.MS_BIND, ""); err != nil {
		return &os.PathError{Op: "mask", Path: name, Err: err}
	}
	return nil
}

// MakeReadOnly makes the mount at path and all below it read-only.
func MakeReadOnly(path string) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	if err := restrict(fd, unix.MS_RDONLY, true); err != nil {
		return &os.PathError{Op: "make read-only", Path: path, Err: err}
	}
	return nil
}

// restrict adds flags (MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC) to the mount
// that fd is the root of and, if deep, to all below it. Before Linux 5.12 only
// to the mount itself and, one by one, to those that mountinfo shows below.
func restrict(fd int, flags uintptr, deep bool) error {
	attr := unix.MountAttr{}
	for flag, bit := range map[uintptr]uint64{
		unix.MS_RDONLY: unix.MOUNT_ATTR_RDONLY, unix.MS_NOSUID: unix.MOUNT_ATTR_NOSUID,
		unix.MS_NODEV: unix.MOUNT_ATTR_NODEV, unix.MS_NOEXEC: unix.MOUNT_ATTR_NOEXEC,
	} {
		if flags&flag != 0 {
			attr.Attr_set |= bit
		}
	}
	at := uint(unix.AT_EMPTY_PATH)
	if deep {
		at |= unix.AT_RECURSIVE
	}
	err := unix.MountSetattr(fd, "", at, &attr)
	if err != unix.ENOSYS {
		return err
	}
	return remount(fd, flags, deep)
}

// MountOverlay mounts lowers, lowest first, with the writable directory upper
// and its work directory on target, in the way that user namespaces may
// (overlayfs, "userxattr", Linux 5.11). Without upper it is read-only.
func MountOverlay(target string, lowers []string, upper, work string, extra ...string) error {
	if len(lowers) > maxLowers {
		return &TooManyLayersError{len(lowers)}
	}
	opts := overlayOptions(lowers, upper, work, extra)
	if len(opts) < os.Getpagesize() {
		return overlay(target, opts)
	}
	// The options must fit a page: give the directories short names.
	if err := unix.Mount("tmpfs", target, "tmpfs", 0, "mode=700"); err != nil {
		return fmt.Errorf("tmpfs for short names: %w", err)
	}
	back, err := os.Open(".")
	if err != nil {
		return err
	}
	defer back.Close()
	defer back.Chdir()
	if err := os.Chdir(target); err != nil {
		return err
	}
	short := make([]string, len(lowers))
	for i, dir := range lowers {
		short[i] = strconv.FormatInt(int64(i), 36)
		if err := os.Symlink(dir, short[i]); err != nil {
			return err
		}
	}
	return overlay(target, overlayOptions(short, upper, work, extra))
}

// maxLowers is OVL_MAX_STACK of fs/overlayfs, every version so far.
const maxLowers = 500

// TooManyLayersError reports an image that overlayfs cannot stack.
type TooManyLayersError struct{ N int }

func (e *TooManyLayersError) Error() string {
	return fmt.Sprintf("%d layers, and overlayfs stacks at most %d", e.N, maxLowers)
}

// Hint names the rung that can.
func (e *TooManyLayersError) Hint() string { return "export RBOX_STORAGE_DRIVER=copy" }

// MountOverlayToRead mounts lowers, lowest first, on target, read-only. Where
// overlayfs does not stack so many, because a writable layer comes on top of as
// many as there can be, the lowest are an overlay of their own below the others.
func MountOverlayToRead(target string, lowers []string) error {
	if len(lowers) <= maxLowers {
		return MountOverlay(target, lowers, "", "")
	}
	n := len(lowers) - maxLowers + 1
	if err := MountOverlay(target, lowers[:n], "", ""); err != nil {
		return err
	}
	base, err := os.OpenFile(target, unix.O_PATH, 0)
	if err != nil {
		return err
	}
	defer base.Close() // the mount that it is open for stays busy
	return MountOverlay(target, append([]string{fdPath(int(base.Fd()))}, lowers[n:]...), "", "")
}

func overlay(target, opts string) error {
	if err := unix.Mount("overlay", target, "overlay", 0, opts); err != nil {
		return fmt.Errorf("overlay: %w", err)
	}
	return nil
}

// overlayOptions builds the option string; the topmost layer comes first in it.
func overlayOptions(lowers []string, upper, work string, extra []string) string {
	var b strings.Builder
	b.WriteString("userxattr,lowerdir=")
	for i := len(lowers) - 1; i >= 0; i-- {
		b.WriteString(escapeOverlay(lowers[i]))
		if i > 0 {
			b.WriteByte(':')
		}
	}
	if upper != "" {
		b.WriteString(",upperdir=" + escapeOverlay(upper) + ",workdir=" + escapeOverlay(work))
	}
	for _, o := range extra {
		b.WriteString("," + o)
	}
	return b.String()
}

// escapeOverlay protects what separates directories and options.
func escapeOverlay(path string) string {
	if !strings.ContainsAny(path, `\:,`) {
		return path
	}
	return strings.NewReplacer(`\`, `\\`, `:`, `\:`, `,`, `\,`).Replace(path)
}

// tmpfs mounts an empty file system in memory, owned by the container's root.
func (t *Tree) tmpfs(m Mount) error {
	target, err := t.Mountpoint(m.Target, true)
	if err != nil {
		return err
	}
	defer target.Close()
	mode := m.Mode
	if mode == 0 {
		mode = 0o1777
	}
	data := fmt.Sprintf("mode=%o,uid=%d,gid=%d", mode, t.UID, t.GID)
	if m.Size > 0 {
		data += ",size=" + strconv.FormatInt(m.Size, 10)
	}
	if m.Data != "" {
		data += "," + m.Data
	}
	flags := uintptr(unix.MS_NOSUID|unix.MS_NODEV) | m.Flags
	if m.ReadOnly {
		flags |= unix.MS_RDONLY
	}
	err = unix.Mount("tmpfs", fdPath(int(target.Fd())), "tmpfs", flags, data)
	if errors.Is(err, unix.EINVAL) && m.Data != "" {
		return fmt.Errorf("options %q: %w", m.Data, err)
	}
	return err
}
