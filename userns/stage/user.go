package stage

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
)

// An Account is whom a container's program runs as, in the container's ids.
type Account struct {
	UID, GID uint32
	Groups   []uint32 // supplementary
	Home     string   // "/" if the image does not say
}

// NoUserError reports a user or group that the image does not know.
type NoUserError struct{ Kind, Name, File string }

func (e *NoUserError) Error() string {
	return fmt.Sprintf("unable to find %s %s: no matching entries in %s of the image", e.Kind, e.Name, e.File)
}

// Hint shows the form that needs no entry.
func (e *NoUserError) Hint() string { return "a number always works: --user 1000:1000" }

// Lookup finds the account that spec ("", "name", "uid", "user:group") names
// in the container's passwd and group files; extra are more groups. A number
// needs no entry. With numbers alone for user and group the files need not be
// readable: whoever looks into a container that has spoilt them can do so as 0:0.
// read returns an error matching fs.ErrNotExist for a file
// that is not there.
func Lookup(spec string, extra []string, read func(name string) ([]byte, error)) (Account, error) {
	name, groupName, hasGroup := strings.Cut(spec, ":")
	if name == "" {
		name = "0"
	}
	said := numbers(append([]string{name, groupName}, extra...)) // the files add only a home
	passwd, err := optional(read, "/etc/passwd")
	if err != nil && !said {
		return Account{}, err
	}
	group, err := optional(read, "/etc/group")
	if err != nil && !said {
		return Account{}, err
	}
	a, login, err := findUser(passwd, name)
	if err != nil {
		return Account{}, err
	}
	if hasGroup && groupName != "" {
		if a.GID, err = findGroup(group, groupName); err != nil {
			return Account{}, err
		}
	} else if login != "" {
		a.Groups = memberships(group, login)
	}
	for _, g := range extra {
		gid, err := findGroup(group, g)
		if err != nil {
			return Account{}, err
		}
		a.Groups = append(a.Groups, gid)
	}
	return a, nil
}

// numbers tells whether all names are numbers.
func numbers(names []string) bool {
	return !slices.ContainsFunc(names, func(name string) bool {
		_, numeric := number(name)
		return !numeric
	})
}

func optional(read func(string) ([]byte, error), name string) (string, error) {
	b, err := read(name)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return string(b), err
}

// findUser looks name up, a login name or a number, in passwd(5) text. A name
// made of digits that is some account's login name means that account.
func findUser(passwd, name string) (a Account, login string, err error) {
	id, numeric := number(name)
	found := false
	for line := range strings.Lines(passwd) {
		f := strings.Split(strings.TrimRight(line, "\n"), ":")
		if len(f) < 4 {
			continue
		}
		uid, ok1 := number(f[2])
		gid, ok2 := number(f[3])
		byName := f[0] == name
		if !ok1 || !ok2 || !byName && (found || !numeric || uid != id) {
			continue
		}
		a, login, found = Account{UID: uid, GID: gid}, f[0], true
		if len(f) > 5 {
			a.Home = f[5]
		}
		if byName {
			break
		}
	}
	switch {
	case !found && !numeric:
		return a, "", &NoUserError{"user", name, "/etc/passwd"}
	case !found:
		a.UID = id
	}
	if a.Home == "" {
		a.Home = "/"
	}
	return a, login, nil
}

// findGroup looks name up, a group's name or a number, in group(5) text.
func findGroup(group, name string) (uint32, error) {
	for line := range strings.Lines(group) {
		f := strings.Split(strings.TrimRight(line, "\n"), ":")
		if len(f) >= 3 && f[0] == name {
			if gid, ok := number(f[2]); ok {
				return gid, nil
			}
		}
	}
	if gid, ok := number(name); ok {
		return gid, nil
	}
	return 0, &NoUserError{"group", name, "/etc/group"}
}

// HasID tells whether passwd(5) or group(5) text has a line for id: in both it
// is the third field.
func HasID(text string, id uint32) bool {
	for line := range strings.Lines(text) {
		if f := strings.Split(line, ":"); len(f) > 3 {
			if n, ok := number(f[2]); ok && n == id {
				return true
			}
		}
	}
	return false
}

// memberships lists the groups that name login as a member.
func memberships(group, login string) (gids []uint32) {
	for line := range strings.Lines(group) {
		f := strings.Split(strings.TrimRight(line, "\n"), ":")
		if len(f) < 4 {
			continue
		}
		for _, member := range strings.Split(f[3], ",") {
			if gid, ok := number(f[2]); ok && member == login {
				gids = append(gids, gid)
				break
			}
		}
	}
	return gids
}

// number reads an id. The highest, 4294967295, stands for none.
func number(s string) (uint32, bool) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err == nil && n != 1<<32-1
}
