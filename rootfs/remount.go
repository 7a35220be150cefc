package rootfs

import (
	"os"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// remount is restrict before Linux 5.12: mount by mount, keeping the flags
// that each has, since a user namespace may not clear one it did not set.
func remount(fd int, flags uintptr, deep bool) error {
	root, err := os.Readlink(fdPath(fd))
	if err != nil {
		return err
	}
	infos, err := mountinfo.GetMounts(func(i *mountinfo.Info) (skip, stop bool) {
		below := deep && strings.HasPrefix(i.Mountpoint, root+"/")
		return i.Mountpoint != root && !below, false
	})
	if err != nil {
		return err
	}
	for _, i := range infos {
		if err := unix.Mount("", i.Mountpoint, "", unix.MS_BIND|unix.MS_REMOUNT|flags|mountFlags(i.Options), ""); err != nil {
			return &os.PathError{Op: "remount", Path: i.Mountpoint, Err: err}
		}
	}
	return nil
}

// Covering names the mounts below the mount point dir, the first few.
func Covering(dir string) string {
	infos, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		return err.Error()
	}
	var names []string
	for _, i := range infos {
		if i.Mountpoint != dir {
			names = append(names, i.Mountpoint)
		}
	}
	if len(names) > 3 {
		names = append(names[:3], "…")
	}
	return strings.Join(names, ", ")
}

// mountFlags translates mountinfo's per-mount options (proc_pid_mountinfo(5)).
func mountFlags(options string) (flags uintptr) {
	for _, o := range strings.Split(options, ",") {
		switch o {
		case "ro":
			flags |= unix.MS_RDONLY
		case "nosuid":
			flags |= unix.MS_NOSUID
		case "nodev":
			flags |= unix.MS_NODEV
		case "noexec":
			flags |= unix.MS_NOEXEC
		case "noatime":
			flags |= unix.MS_NOATIME
		case "nodiratime":
			flags |= unix.MS_NODIRATIME
		case "relatime":
			flags |= unix.MS_RELATIME
		}
	}
	return flags
}
