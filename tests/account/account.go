// Package account gives tests an unprivileged user to be.
//
// rbox is for people without root, so its tests are run as one of them. Where
// the tests run as root they make the accounts they need and keep them for the
// next time; where an ordinary user runs the tests, that user is the account.
package account

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// The accounts that tests use, made by Ensure where it is root.
const (
	Plain  = "rbox-test"  // has 65536 subordinate ids of each kind
	Single = "rbox-test1" // has none: the single-id rung
	Ranged = "rbox-test2" // has two ranges, one by its name and one by its uid
)

// lockPath keeps test processes from changing the account files at one time.
const lockPath = "/run/rbox-test-accounts.lock"

// Account is a user to run a command as.
type Account struct {
	Name     string
	UID, GID uint32
	Groups   []uint32 // supplementary groups
	SubUIDs  []Range
	SubGIDs  []Range
	switches bool // whether the caller has to become this user first
}

// Range is Count ids from Start on: a line of /etc/subuid.
type Range struct{ Start, Count uint32 }

// Ensure returns the account called name, making it if the caller is root. For
// any other caller Plain is the caller's own account, and each other name an error.
func Ensure(name string) (Account, error) {
	if os.Geteuid() != 0 {
		if name != Plain {
			return Account{}, fmt.Errorf("the account %s can be used by root only", name)
		}
		u, err := user.Current()
		if err != nil {
			return Account{}, err
		}
		return read(u)
	}
	lock, err := os.OpenFile(lockPath, os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return Account{}, err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return Account{}, err
	}
	if _, err := user.Lookup(name); errors.As(err, new(user.UnknownUserError)) {
		if err := run("useradd", "--create-home", "--shell", "/bin/sh", name); err != nil {
			return Account{}, err
		}
	}
	u, err := user.Lookup(name)
	if err != nil {
		return Account{}, err
	}
	if err := setRanges(u); err != nil {
		return Account{}, err
	}
	// udev gives these nodes mode 0666; a machine without it may not.
	for _, dev := range []string{"/dev/fuse", "/dev/net/tun"} {
		if err := os.Chmod(dev, 0o666); err != nil && !errors.Is(err, os.ErrNotExist) {
			return Account{}, err
		}
	}
	a, err := read(u)
	a.switches = true
	return a, err
}

// setRanges gives an account the subordinate ids that its name promises.
// (useradd hands some out or none, as the machine's login.defs says.)
func setRanges(u *user.User) error {
	named, err := Ranges("/etc/subuid", u.Username)
	if err != nil {
		return err
	}
	if u.Username == Single {
		for _, r := range named {
			span := fmt.Sprintf("%d-%d", r.Start, r.Start+r.Count-1)
			if err := run("usermod", "--del-subuids", span, "--del-subgids", span, u.Username); err != nil {
				return err
			}
		}
		return nil
	}
	if len(named) == 0 {
		start, err := freeStart()
		if err != nil {
			return err
		}
		span := fmt.Sprintf("%d-%d", start, start+65535)
		if err := run("usermod", "--add-subuids", span, "--add-subgids", span, u.Username); err != nil {
			return err
		}
	}
	if u.Username != Ranged {
		return nil
	}
	numbered, err := Ranges("/etc/subuid", u.Uid)
	if err != nil || len(numbered) > 0 {
		return err
	}
	return addNumbered(u.Uid)
}

// addNumbered gives uid 1000 ids of each kind by its number, which usermod cannot.
func addNumbered(uid string) error {
	start, err := freeStart()
	if err != nil {
		return err
	}
	for _, file := range []string{"/etc/subuid", "/etc/subgid"} {
		f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(f, "%s:%d:1000\n", uid, start)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// freeStart returns the start of 65536 ids that no line of the files claims.
func freeStart() (uint32, error) {
	start := uint32(100000)
	for _, file := range []string{"/etc/subuid", "/etc/subgid"} {
		all, err := Ranges(file)
		if err != nil {
			return 0, err
		}
		for _, r := range all {
			start = max(start, r.Start+r.Count)
		}
	}
	return start, nil
}

// Ranges reads the lines of file (subuid(5)) that belong to one of owners, user
// names or numbers, or all lines if it names none. A file that does not exist
// has no lines.
func Ranges(file string, owners ...string) ([]Range, error) {
	data, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var out []Range
	for line := range strings.Lines(string(data)) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) != 3 || len(owners) > 0 && !slices.Contains(owners, f[0]) {
			continue
		}
		start, err1 := strconv.ParseUint(f[1], 10, 32)
		count, err2 := strconv.ParseUint(f[2], 10, 32)
		if err1 == nil && err2 == nil {
			out = append(out, Range{uint32(start), uint32(count)})
		}
	}
	return out, nil
}

func read(u *user.User) (a Account, err error) {
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	ids, err3 := u.GroupIds()
	if err := errors.Join(err1, err2, err3); err != nil {
		return a, err
	}
	a = Account{Name: u.Username, UID: uint32(uid), GID: uint32(gid)}
	for _, id := range ids {
		if n, err := strconv.ParseUint(id, 10, 32); err == nil {
			a.Groups = append(a.Groups, uint32(n))
		}
	}
	if a.SubUIDs, err = Ranges("/etc/subuid", u.Username, u.Uid); err != nil {
		return a, err
	}
	a.SubGIDs, err = Ranges("/etc/subgid", u.Username, u.Uid)
	return a, err
}

// Become makes attr start a process as a. attr may be nil.
func (a Account) Become(attr *syscall.SysProcAttr) *syscall.SysProcAttr {
	if attr == nil {
		attr = new(syscall.SysProcAttr)
	}
	if a.switches {
		attr.Credential = &syscall.Credential{Uid: a.UID, Gid: a.GID, Groups: a.Groups}
	}
	return attr
}

// Owns reports whether the host's uid is a's own or one of its subordinate ids.
func (a Account) Owns(uid uint32) bool {
	return uid == a.UID || slices.ContainsFunc(a.SubUIDs, func(r Range) bool {
		return uid >= r.Start && uid-r.Start < r.Count
	})
}

func run(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}
