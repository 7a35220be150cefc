package idmap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// HelperError reports that newuidmap or newgidmap cannot serve, or did not.
type HelperError struct {
	Name string // "newuidmap" or "newgidmap"
	Path string // where it is, if anywhere
	Why  string
	Cure string // what can be done, as Hint gives it
	Err  error  // of the helper's process, or nil if it was not run
}

func (e *HelperError) Error() string {
	if e.Path == "" {
		return e.Name + ": " + e.Why
	}
	return e.Path + ": " + e.Why
}

// Unwrap is the error of the helper's process or of looking for it.
func (e *HelperError) Unwrap() error { return e.Err }

// Hint is how to make the helper serve.
func (e *HelperError) Hint() string { return e.Cure }

// helperCap is the one capability that each helper lives by.
func helperCap(name string) (bit uint, capability string) {
	if name == "newgidmap" {
		return unix.CAP_SETGID, "cap_setgid"
	}
	return unix.CAP_SETUID, "cap_setuid"
}

// findHelper returns the path of newuidmap or newgidmap: the first in $PATH,
// which is where some systems keep setuid wrappers, or in the usual folders.
// A helper that is there but cannot have its privilege is a *HelperError.
func findHelper(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		for _, dir := range []string{"/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin", "/sbin"} {
			if path, err = exec.LookPath(filepath.Join(dir, name)); err == nil {
				break
			}
		}
	}
	if err != nil {
		return "", &HelperError{Name: name, Why: "not installed", Cure: "as root: " + installUIDMap(), Err: err}
	}
	if err := checkHelper(name, path); err != nil {
		return "", err
	}
	return path, nil
}

// checkHelper tells why the program at path will not have the privilege to
// write maps, or nil.
func checkHelper(name, path string) error {
	bit, capability := helperCap(name)
	bad := &HelperError{Name: name, Path: path}
	if n, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0); err == nil && n == 1 {
		bad.Why = "this process has no_new_privs, under which no program gains privilege"
		bad.Cure = "start rbox where no_new_privs is not set (systemd: NoNewPrivileges=no; an outer container: without --security-opt no-new-privileges)"
		return bad
	}
	if n, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(bit), 0, 0, 0); err == nil && n == 0 {
		bad.Why = capability + " is not in the bounding set of this process"
		bad.Cure = "start the outer container with --cap-add " + strings.TrimPrefix(strings.ToUpper(capability), "CAP_")
		return bad
	}
	var sfs unix.Statfs_t
	if err := unix.Statfs(path, &sfs); err == nil && sfs.Flags&unix.ST_NOSUID != 0 {
		bad.Why = "its file system is mounted nosuid"
		bad.Cure = "as root: mount -o remount,suid " + mountPoint(path)
		return bad
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		bad.Why, bad.Err = err.Error(), err
		return bad
	}
	if st.Mode&unix.S_ISUID != 0 && st.Uid == 0 || fileCap(path, bit) {
		return nil
	}
	bad.Why = "neither setuid root nor with the file capability " + capability
	bad.Cure = "as root: chown root " + path + " && chmod u+s " + path
	return bad
}

// fileCap tells whether the file gives its process the capability
// (struct vfs_cap_data in linux/capability.h).
func fileCap(path string, bit uint) bool {
	var b [24]byte
	n, err := unix.Getxattr(path, "security.capability", b[:])
	return err == nil && n >= 8 && binary.LittleEndian.Uint32(b[4:])&(1<<bit) != 0
}

// mountPoint is the nearest folder above path on which something is mounted.
func mountPoint(path string) string {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return "/"
	}
	dev := st.Dev
	for dir := filepath.Dir(path); dir != "/"; dir = filepath.Dir(dir) {
		if up := filepath.Dir(dir); unix.Stat(up, &st) != nil || st.Dev != dev {
			return dir
		}
	}
	return "/"
}

// installUIDMap is the command that installs newuidmap on this distribution.
func installUIDMap() string {
	release, _ := os.ReadFile("/etc/os-release")
	return uidmapPackage(string(release))
}

// uidmapPackage reads os-release(5).
func uidmapPackage(release string) string {
	var ids []string
	for line := range strings.Lines(release) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		if key == "ID" || key == "ID_LIKE" {
			ids = append(ids, strings.Fields(strings.Trim(value, `"'`))...)
		}
	}
	for _, id := range ids {
		switch id {
		case "debian", "ubuntu":
			return "apt-get install uidmap"
		case "fedora", "rhel", "centos":
			return "dnf install shadow-utils"
		case "alpine":
			return "apk add shadow-uidmap"
		case "arch":
			return "pacman -S shadow"
		case "suse", "opensuse":
			return "zypper install shadow"
		}
	}
	return "install newuidmap and newgidmap (package uidmap or shadow-utils)"
}

// helperRun is a helper at work.
type helperRun struct {
	name   string
	cmd    *exec.Cmd
	stderr bytes.Buffer
}

// startHelper starts newuidmap or newgidmap, as name says, on a map of pid.
func startHelper(name string, pid int, maps []Mapping) (*helperRun, error) {
	path, err := findHelper(name)
	if err != nil {
		return nil, err
	}
	args := strings.Fields(string(text(maps)))
	r := &helperRun{name: name, cmd: exec.Command(path, append([]string{fmt.Sprint(pid)}, args...)...)}
	r.cmd.Env = append(os.Environ(), "LC_ALL=C") // refusal reads its words
	r.cmd.Stderr = &r.stderr
	if err := r.cmd.Start(); err != nil {
		return nil, &HelperError{Name: name, Path: path, Why: err.Error(), Err: err}
	}
	return r, nil
}

// wait returns nil, or what the helper said as a *HelperError.
func (r *helperRun) wait() error {
	err := r.cmd.Wait()
	if err == nil {
		return nil
	}
	e := &HelperError{Name: r.name, Path: r.cmd.Path, Err: err}
	e.Why, e.Cure = refusal(r.name, r.stderr.String(), err)
	return e
}

// refusal turns the last words of a helper into a reason and a cure.
func refusal(name, words string, err error) (why, cure string) {
	why = strings.TrimSpace(words)
	if i := strings.LastIndexByte(why, '\n'); i >= 0 {
		why = why[i+1:]
	}
	why = strings.TrimSpace(strings.TrimPrefix(why, name+":"))
	file := "/etc/sub" + strings.TrimSuffix(strings.TrimPrefix(name, "new"), "map")
	switch {
	case strings.Contains(why, "is owned by a different user"):
		cure = "newuidmap serves only under your primary group: leave the shell that newgrp or sg started"
	case strings.Contains(why, "not allowed"):
		cure = "compare the range with your lines in " + file + " (rbox doctor shows what was read)"
	case strings.Contains(why, "Operation not permitted"):
		cure = "the kernel refused " + name + " (rbox doctor tells why); in an outer container, give it more ids or correct " + file
	}
	if why == "" {
		why = err.Error()
		if errors.Is(err, os.ErrPermission) {
			cure = "as root: chmod u+sx " + name
		}
	}
	return why, cure
}
