package idmap

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Write gives the maps to the new user namespace that process pid is in, a
// child namespace of ours. Where we have the capabilities, and for the own id
// alone, it writes the files itself; else newuidmap and newgidmap do, side by
// side. A refusal of theirs is a *HelperError: part of the maps may stand by
// then, and a map is written once: SingleMaps in another namespace is the way on.
func (m Maps) Write(pid int) error {
	if !m.Single && (Host{Caps: effectiveCaps()}).mayMapAll() != nil {
		return m.writeByHelpers(pid)
	}
	if m.Single {
		// Without CAP_SETGID the kernel demands this (user_namespaces(7));
		// where groups cannot be mapped it takes nothing from anyone.
		// ENOENT is a kernel before 3.19, which does not demand it.
		if err := writeFile(pid, "setgroups", []byte("deny")); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if err := writeFile(pid, "uid_map", text(m.UIDs)); err != nil {
		return err
	}
	return writeFile(pid, "gid_map", text(m.GIDs))
}

// WriteMap writes ms to file, the uid_map or gid_map of a process in a child
// namespace of ours that we have CAP_SETUID and CAP_SETGID over.
func WriteMap(file string, ms []Mapping) error {
	return writeWhole(file, text(ms))
}

// writeByHelpers runs newuidmap and newgidmap at the same time: each spends
// most of its milliseconds on exec and on the user database.
func (m Maps) writeByHelpers(pid int) error {
	uids, err := startHelper("newuidmap", pid, m.UIDs)
	if err != nil {
		return err
	}
	gids, err := startHelper("newgidmap", pid, m.GIDs)
	if err == nil {
		err = gids.wait()
	}
	if uidsErr := uids.wait(); uidsErr != nil {
		return uidsErr // most often the other fails for the same reason
	}
	return err
}

// writeFile writes a file of /proc/pid.
func writeFile(pid int, name string, data []byte) error {
	err := writeWhole(fmt.Sprintf("/proc/%d/%s", pid, name), data)
	if errors.Is(err, unix.EPERM) {
		return ExplainUserNS(err)
	}
	return err
}

// writeWhole writes data in the single write(2) that the kernel wants.
func writeWhole(file string, data []byte) error {
	fd, err := unix.Open(file, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: file, Err: err}
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, data); err != nil {
		return &os.PathError{Op: "write", Path: file, Err: err}
	}
	return nil
}
