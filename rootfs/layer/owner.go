//go:build !front

package layer

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// OwnerXattr keeps what the file system could not: the true owner of a file
// whose owner has no id here, or of any file where there is only one id. Its
// value is Owner.String. Symbolic links cannot carry it (xattr(7): user
// attributes are for files and directories), so theirs is lost.
const OwnerXattr = "user.rbox.owner"

// noID is no id but "leave it as it is" (chown(2)).
const noID = 1<<32 - 1

// An Owner is what OwnerXattr holds.
type Owner struct {
	UID, GID uint32
	// Mode is the file type and permissions, as in st_mode, of a device that
	// an empty file stands for; otherwise 0.
	Mode         uint32
	Major, Minor uint32 // of such a device
}

// String returns uid:gid, and for a device uid:gid:mode:major:minor, all
// decimal but for the octal mode.
func (o Owner) String() string {
	s := strconv.FormatUint(uint64(o.UID), 10) + ":" + strconv.FormatUint(uint64(o.GID), 10)
	if o.Mode == 0 {
		return s
	}
	return fmt.Sprintf("%s:%o:%d:%d", s, o.Mode, o.Major, o.Minor)
}

// ParseOwner reads what Owner.String wrote.
func ParseOwner(s string) (Owner, error) {
	fields := strings.Split(s, ":")
	var o Owner
	to := [...]*uint32{&o.UID, &o.GID, &o.Mode, &o.Major, &o.Minor}
	if len(fields) != 2 && len(fields) != len(to) {
		return Owner{}, fmt.Errorf("%s: %q is not uid:gid or uid:gid:mode:major:minor", OwnerXattr, s)
	}
	for i, field := range fields {
		base := 10
		if i == 2 {
			base = 8
		}
		n, err := strconv.ParseUint(field, base, 32)
		if err != nil {
			return Owner{}, fmt.Errorf("%s: %q: %w", OwnerXattr, s, err)
		}
		*to[i] = uint32(n)
	}
	return o, nil
}

// shift returns what id becomes in ranges, of which none at all leaves it as it is.
func shift(ranges []IDRange, id uint32) (to uint32, mapped bool) {
	if len(ranges) == 0 {
		return id, id != noID
	}
	for _, r := range ranges {
		if id >= r.From && id-r.From < r.Count {
			return r.To + (id - r.From), true
		}
	}
	return 0, false
}

// A node is a new file that wants its attributes: the file fd or, where fd is
// -1, name in the directory dir.
type node struct {
	fd   int
	dir  *openDir
	name string
	kind uint32 // S_IFREG and so on

	existed bool // it is not new: its owner may be any
}

func (n node) chown(uid, gid int) error {
	if n.fd >= 0 {
		return unix.Fchown(n.fd, uid, gid)
	}
	return unix.Fchownat(n.dir.fd, n.name, uid, gid, unix.AT_SYMLINK_NOFOLLOW)
}

// setOwner gives n the owner that the image says, or the nearest that can be.
func (u *unpacker) setOwner(n node, o Owner) error {
	keep := o.Mode != 0
	if u.Single {
		keep = keep || o.UID != 0 || o.GID != 0
	} else {
		mapped, err := u.chown(n, o)
		if err != nil {
			return err
		}
		if !mapped {
			u.res.Unmapped++
			keep = true
		}
	}
	if keep && (n.kind == unix.S_IFREG || n.kind == unix.S_IFDIR) {
		return u.setXattr(n, OwnerXattr, o.String())
	}
	return nil
}

// chown reports whether both ids have a place here. What has none becomes root's.
func (u *unpacker) chown(n node, o Owner) (mapped bool, err error) {
	uid, uidMapped := shift(u.UIDs, o.UID)
	gid, gidMapped := shift(u.GIDs, o.GID)
	if !uidMapped {
		uid = u.rootUID
	}
	if !gidMapped {
		gid = u.rootGID
	}
	mapped = uidMapped && gidMapped
	born := u.egid
	if n.dir != nil && n.dir.gid >= 0 {
		born = n.dir.gid
	}
	if !n.existed && int(uid) == u.euid && int(gid) == born {
		return mapped, nil
	}
	err = n.chown(int(uid), int(gid))
	if err != unix.EINVAL { // what an id gives that is not in uid_map or gid_map
		return mapped, err
	}
	if err := n.chown(int(uid), -1); err != nil {
		if err = n.chown(int(u.rootUID), -1); err != nil {
			return false, err
		}
	}
	if err := n.chown(-1, int(gid)); err != nil {
		if err = n.chown(-1, int(u.rootGID)); err != nil {
			return false, err
		}
	}
	return false, nil
}
