package idmap

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Host is what Plan looks at. Tests give their own.
type Host struct {
	UID, GID uint32 // effective ids of this process
	Caps     uint64 // effective capabilities; bit n is capability n
	PageSize int    // bytes; the kernel takes less than a page as a map

	User     func() string                        // login name, "" if nobody knows it
	ReadFile func(name string) ([]byte, error)    // /etc/subuid, /proc/self/uid_map and their like
	Helper   func(name string) (string, error)    // where newuidmap or newgidmap is; why it cannot serve
	SubIDs   func(args ...string) ([]byte, error) // output of getsubids(1); exec.ErrNotFound if not installed
}

// CurrentHost is the host and the user of this process.
func CurrentHost() Host {
	uid := uint32(os.Geteuid())
	return Host{
		UID:      uid,
		GID:      uint32(os.Getegid()),
		Caps:     effectiveCaps(),
		PageSize: os.Getpagesize(),
		User:     func() string { return lookUpUser(uid) },
		ReadFile: os.ReadFile,
		Helper:   findHelper,
		SubIDs:   runGetSubIDs,
	}
}

// Plan walks the ladder of ids and returns the first rung that should hold:
// the range of the namespace we are root of, every subordinate range, the own
// id alone. It fails only where not even the own id can be mapped. Whether
// newuidmap agrees shows in Maps.Write; SingleMaps is the way down then.
func Plan(h Host) (Maps, error) {
	uids, err := h.available("/proc/self/uid_map", "uid", h.UID)
	if err != nil {
		return Maps{}, err
	}
	gids, err := h.available("/proc/self/gid_map", "gid", h.GID)
	if err != nil {
		return Maps{}, err
	}
	single := SingleMaps(h, nil)
	if h.UID == 0 {
		if err := h.mayMapAll(); err != nil {
			return SingleMaps(h, []error{err}), nil // newuidmap would lack the same
		}
		return asRoot(uids, gids, single), nil
	}
	m, err := h.subordinate(uids, gids)
	if err != nil {
		return SingleMaps(h, append(m.Skipped, err)), nil
	}
	return m, nil
}

// SingleMaps is the last rung of the ladder: the own id and no other. skipped
// tells why the better ones were not taken.
func SingleMaps(h Host, skipped []error) Maps {
	return Maps{
		UIDs:    []Mapping{{0, h.UID, 1}},
		GIDs:    []Mapping{{0, h.GID, 1}},
		Single:  true,
		Skipped: skipped,
	}
}

// UnmappedError reports that our own id has no place in the user namespace we
// are in, which the kernel punishes with EPERM for every namespace of ours.
type UnmappedError struct {
	Kind string // "uid" or "gid"
	ID   uint32
	Map  string // the file that lacks it
}

func (e *UnmappedError) Error() string {
	return fmt.Sprintf("our %s %d is not in %s: this user namespace does not know us", e.Kind, e.ID, e.Map)
}

// Hint names the cure, which lies with whoever made the outer namespace.
func (e *UnmappedError) Hint() string {
	return fmt.Sprintf("map %s %d in the outer container (user namespace) that rbox runs in", e.Kind, e.ID)
}

// available returns the ids that exist in the present user namespace.
func (h Host) available(file, kind string, own uint32) ([]Range, error) {
	data, err := h.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		// A kernel without user namespaces, or no /proc: the clone will tell.
		return []Range{{0, maxID + 1}}, nil
	}
	if err != nil {
		return nil, err
	}
	ms, err := parseMap(file, string(data))
	if err != nil {
		return nil, err
	}
	ranges := insides(ms)
	for _, r := range ranges {
		if own >= r.Start && uint64(own) < r.end() {
			return ranges, nil
		}
	}
	return nil, &UnmappedError{Kind: kind, ID: own, Map: file}
}

// insides lists the ids that ms gives a namespace.
func insides(ms []Mapping) []Range {
	rs := make([]Range, len(ms))
	for i, m := range ms {
		rs[i] = Range{m.Inside, m.Count}
	}
	return rs
}

// RootCapsError reports that we are root, but a root whom the outer container
// has left without the capabilities to map ids.
type RootCapsError struct{ Missing []string }

func (e *RootCapsError) Error() string {
	return "root here lacks " + strings.Join(e.Missing, ", ")
}

// Hint says how an outer Docker or Podman container grants them.
func (e *RootCapsError) Hint() string {
	var add []string
	for _, c := range e.Missing {
		add = append(add, "--cap-add "+strings.TrimPrefix(c, "CAP_"))
	}
	return "start the outer container with " + strings.Join(add, " ")
}

// mayMapAll tells whether we may map any id of the present namespace.
// CAP_SETFCAP is what mapping its root needs since Linux 5.12.
func (h Host) mayMapAll() error {
	var missing []string
	for _, c := range []struct {
		bit  uint
		name string
	}{{unix.CAP_SETUID, "CAP_SETUID"}, {unix.CAP_SETGID, "CAP_SETGID"}, {unix.CAP_SETFCAP, "CAP_SETFCAP"}} {
		if h.Caps&(1<<c.bit) == 0 {
			missing = append(missing, c.name)
		}
	}
	if missing != nil {
		return &RootCapsError{missing}
	}
	return nil
}

// asRoot maps every id of the present namespace to itself. Where that is one
// id, it is the single rung.
func asRoot(uids, gids []Range, single Maps) Maps {
	m := Maps{UIDs: identity(uids), GIDs: identity(gids)}
	if total(m.UIDs) == 1 || total(m.GIDs) == 1 {
		single.Skipped = []error{&OneIDError{}}
		return single
	}
	return m
}

// OneIDError reports that we are root of a user namespace that has no more
// than one id itself.
type OneIDError struct{}

func (*OneIDError) Error() string { return "the user namespace that we are root of has one id" }

// Hint is what who made that namespace can do.
func (*OneIDError) Hint() string {
	return "map more ids in the outer container (unshare: --map-users auto --map-groups auto)"
}

func identity(rs []Range) []Mapping {
	ms := make([]Mapping, len(rs))
	for i, r := range rs {
		ms[i] = Mapping{r.Start, r.Start, r.Count}
	}
	return ms
}

func total(ms []Mapping) uint64 {
	var n uint64
	for _, m := range ms {
		n += uint64(m.Count)
	}
	return n
}

// NoSubIDsError reports that File grants User no ids beyond their own.
type NoSubIDsError struct {
	User string // login name, or the uid where there is none
	File string // /etc/subuid, /etc/subgid, or the getsubids command that was asked
	Free uint32 // start of 65536 ids that neither file grants to anyone
}

func (e *NoSubIDsError) Error() string {
	if strings.HasPrefix(e.File, "getsubids") {
		return e.File + " knows no ids for " + e.User
	}
	return e.File + " has no line for " + e.User
}

// Hint is what an administrator can do.
func (e *NoSubIDsError) Hint() string {
	if strings.HasPrefix(e.File, "getsubids") {
		return "ask for subordinate ids for " + e.User + " in the directory that nsswitch.conf names after subid:"
	}
	ids := fmt.Sprintf("%d-%d", e.Free, e.Free+65535)
	return "as root: usermod --add-subuids " + ids + " --add-subgids " + ids + " " + e.User
}

// subordinate plans the rung of all subordinate ranges. With an error, the
// Maps hold nothing but what Skipped should tell besides.
func (h Host) subordinate(uids, gids []Range) (Maps, error) {
	var m Maps
	who := h.User()
	for _, db := range []struct {
		file, flag string
		own        uint32
		within     []Range
		maps       *[]Mapping
	}{
		{"/etc/subuid", "", h.UID, uids, &m.UIDs},
		{"/etc/subgid", "-g", h.GID, gids, &m.GIDs},
	} {
		ranges, bad, err := h.granted(who, db.file, db.flag)
		m.Skipped = append(m.Skipped, bad...)
		if err != nil {
			return m, err
		}
		maps, dropped := arrange(db.own, ranges, db.within, h.PageSize)
		if len(maps) < 2 && len(dropped) > 0 {
			return m, fmt.Errorf("%s: %w", db.file, dropped[0])
		}
		if len(maps) < 2 {
			return m, h.noSubIDs(who, db.file) // a line with the own id alone
		}
		for _, d := range dropped {
			m.Skipped = append(m.Skipped, fmt.Errorf("%s: %w", db.file, d))
		}
		*db.maps = maps
	}
	for _, name := range []string{"newuidmap", "newgidmap"} {
		if _, err := h.Helper(name); err != nil {
			return m, err
		}
	}
	return m, nil
}

// granted asks the database that newuidmap will ask, and the other one where
// it is silent: which ranges does the user have? flag is what getsubids
// wants for the kind of ids.
func (h Host) granted(who, file, flag string) (ranges []Range, bad []error, err error) {
	nsswitch, _ := h.ReadFile("/etc/nsswitch.conf") // none is as good as one that says "files"
	first, second := h.fromFile, h.fromGetSubIDs
	if subidSource(string(nsswitch)) != "files" {
		first, second = second, first
	}
	ranges, bad, err = first(who, file, flag)
	if err == nil {
		return ranges, bad, nil
	}
	if others, moreBad, otherErr := second(who, file, flag); otherErr == nil {
		return others, append(bad, moreBad...), nil
	}
	return nil, bad, err
}

func (h Host) fromFile(who, file, _ string) (ranges []Range, bad []error, err error) {
	data, err := h.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	ranges, bad = parseSubIDs(file, string(data), who, h.UID)
	if len(ranges) == 0 {
		return nil, bad, h.noSubIDs(who, file)
	}
	return ranges, bad, nil
}

func (h Host) fromGetSubIDs(who, _, flag string) (ranges []Range, bad []error, err error) {
	args := []string{h.orNumber(who)}
	if flag != "" {
		args = []string{flag, args[0]}
	}
	command := "getsubids " + strings.Join(args, " ")
	out, err := h.SubIDs(args...)
	if errors.Is(err, exec.ErrNotFound) {
		return nil, nil, fmt.Errorf("%s: %w", command, err)
	}
	ranges, bad = parseGetSubIDs(command, string(out))
	if err != nil || len(ranges) == 0 {
		return nil, bad, h.noSubIDs(who, command)
	}
	return ranges, bad, nil
}

func (h Host) noSubIDs(who, file string) *NoSubIDsError {
	uids, _ := h.ReadFile("/etc/subuid") // a file that is not there claims nothing
	gids, _ := h.ReadFile("/etc/subgid")
	return &NoSubIDsError{User: h.orNumber(who), File: file, Free: firstFree(string(uids) + "\n" + string(gids))}
}

func (h Host) orNumber(who string) string {
	if who != "" {
		return who
	}
	return strconv.FormatUint(uint64(h.UID), 10)
}

// runGetSubIDs runs getsubids(1). A directory that does not answer is given
// ten seconds.
func runGetSubIDs(args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return exec.CommandContext(ctx, "getsubids", args...).Output()
}

// lookUpUser returns the login name of uid: from /etc/passwd, from the
// directories that getent(1) asks, from $USER; "" if none knows it.
func lookUpUser(uid uint32) string {
	passwd, _ := os.ReadFile("/etc/passwd")
	if name := userName(string(passwd), uid); name != "" {
		return name
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, _ := exec.CommandContext(ctx, "getent", "passwd", strconv.FormatUint(uint64(uid), 10)).Output()
	if name := userName(string(out), uid); name != "" {
		return name
	}
	return os.Getenv("USER")
}

// effectiveCaps returns the capabilities of this thread, 0 if the kernel does
// not tell.
func effectiveCaps() uint64 {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return 0
	}
	return uint64(data[1].Effective)<<32 | uint64(data[0].Effective)
}
