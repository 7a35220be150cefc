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

// writeFile writes a file of /proc/pid in the single write(2) that the kernel
// wants.
func writeFile(pid int, name string, data []byte) error {
	f, err := os.OpenFile(fmt.Sprintf("/proc/%d/%s", pid, name), os.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if errors.Is(err, unix.EPERM) {
		return ExplainUserNS(err)
	}
	return err
}
