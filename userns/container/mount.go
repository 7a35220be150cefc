package container

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"rbox/idmap"
	"rbox/rootfs"
	"rbox/userns"
	"rbox/userns/stage"
)

// maxAccountFile bounds the image's passwd and group files, bytes.
const maxAccountFile = 16 << 20

// mount makes the container's tree and finds who runs in it.
func (m *monitor) mount() (stage.Account, error) {
	p := &m.Plan
	none := stage.Account{}
	if err := m.mountRoot(); err != nil {
		return none, err
	}
	n := &p.Namespaces
	uid, gid := outside(n.UIDs, 0), outside(n.GIDs, 0)
	tree, err := rootfs.OpenTree(m.target(), max(uid, 0), max(gid, 0))
	if err != nil {
		return none, err
	}
	m.tree = tree
	account, err := stage.Lookup(p.Process.User, p.Process.Groups, func(name string) ([]byte, error) {
		return tree.ReadFile(name, maxAccountFile)
	})
	if err != nil {
		return none, err
	}
	if n.Single {
		m.becomeAccount(account)
	}
	if err := m.fill(account); err != nil {
		return none, err
	}
	if err := m.introduce(&account); err != nil {
		return none, err
	}
	p.Process.Env = completeEnv(p.Process.Env, account, p.Process.Terminal)
	return account, nil
}

// prepare mounts at scratch what every container needs: a tmpfs of the
// monitor's own, with a place for the container's root, a /dev, places for its
// /proc and /sys, and an empty directory to hide others by.
func prepare(scratch string) error {
	if err := unix.Mount("tmpfs", scratch, "tmpfs", unix.MS_NOSUID, "mode=0755,size=16m"); err != nil {
		return &os.PathError{Op: "mount tmpfs", Path: scratch, Err: err}
	}
	for _, dir := range []string{"/root", "/dev", "/proc", "/sys", "/empty"} {
		if err := os.Mkdir(scratch+dir, 0o755); err != nil {
			return err
		}
	}
	// Mounted out here, it is beyond what the container's root may make writable.
	if err := unix.Mount("tmpfs", scratch+"/empty", "tmpfs", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "size=0,nr_inodes=1,mode=0555"); err != nil {
		return fmt.Errorf("mount an empty directory: %w", err)
	}
	return rootfs.PrepareDev(scratch + "/dev")
}

// introduce gives the plan's login a line in the container's passwd, and its
// group one, if the account is its and the image has none for the number.
func (m *monitor) introduce(a *stage.Account) error {
	l := m.Plan.Process.Login
	if l == nil || l.UID != a.UID || l.GID != a.GID {
		return nil
	}
	if home, err := m.tree.Open(l.Home, unix.O_PATH|unix.O_DIRECTORY, 0); err == nil {
		home.Close()
	} else {
		l.Home = "/"
	}
	for file, line := range map[string]string{"/etc/passwd": l.PasswdLine(), "/etc/group": l.GroupLine()} {
		text, err := m.tree.ReadFile(file, maxAccountFile)
		if err != nil || stage.HasID(string(text), l.Number(file)) {
			continue // there is no such file to add to, or nothing to add
		}
		if n := len(text); n > 0 && text[n-1] != '\n' {
			text = append(text, '\n')
		}
		if err := m.addFile(stage.File{Target: file, Text: append(text, line...)}); err != nil {
			return err
		}
		if file == "/etc/passwd" {
			a.Home = l.Home
		}
	}
	return nil
}

// mountRoot mounts what will be the container's /.
func (m *monitor) mountRoot() error {
	r, target := &m.Plan.Root, m.target()
	switch r.Driver {
	case "overlay":
		var extra []string
		if r.Volatile {
			extra = []string{"volatile"} // Linux 5.10, older than overlay for us
		}
		return rootfs.MountOverlay(target, r.Lowers, r.Upper, r.Work, extra...)
	case "fuse-overlayfs":
		fuse, err := rootfs.MountFuse(target, r.Lowers, r.Upper, r.Work)
		m.fuse = fuse
		return err
	case "dir":
		if err := unix.Mount(r.Dir, target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return &os.PathError{Op: "mount root file system", Path: r.Dir, Err: err}
		}
		if err := unix.Access(target, unix.R_OK|unix.X_OK); err != nil {
			return &os.PathError{Op: "use as root file system", Path: r.Dir, Err: err}
		}
		if r.ReadOnly {
			return rootfs.MakeReadOnly(target)
		}
		return nil
	}
	return fmt.Errorf("no such storage driver: %q", r.Driver)
}

// fill mounts everything below / and makes what the program finds there.
func (m *monitor) fill(account stage.Account) error {
	p := &m.Plan
	if err := m.fillVolumes(m.tree, m.Dir, func(text string) { m.first.send(message{Notice: text}) }); err != nil { // while nothing covers the image
		return err
	}
	if err := m.tree.MountDev(m.scratch+"/dev", p.ShmSize, outside(p.Namespaces.GIDs, 5)); err != nil {
		return err
	}
	for _, dir := range []string{"/proc", "/sys"} {
		if err := m.tree.MkdirAll(dir); err != nil {
			return err
		}
	}
	for _, f := range p.Files {
		if err := m.addFile(f); err != nil {
			return err
		}
	}
	for _, mount := range p.Mounts {
		if err := m.tree.Mount(mount); err != nil {
			return err
		}
	}
	for _, d := range p.Devices {
		if err := m.tree.Mount(rootfs.Mount{Type: "bind", Source: d.Source, Target: d.Target}); err != nil {
			return err
		}
	}
	if p.AllDevices {
		if err := m.mountAllDevices(); err != nil {
			return err
		}
	}
	if err := m.mask(); err != nil {
		return err
	}
	if err := m.tree.MkdirAll(p.Process.Cwd); err != nil {
		return err
	}
	var err error
	if p.Process.Terminal {
		err = m.openTerminal(account)
	}
	if err == nil && p.Process.Init && m.initFile == nil {
		m.initFile, err = initCopy()
	}
	return err
}

// mask hides the plan's masked paths that are not the kernel's. Links are
// followed in the container's tree; what is not there is passed over.
func (m *monitor) mask() error {
	for _, name := range m.Plan.Masked {
		if stage.OfKernel(name) {
			continue
		}
		err := m.tree.Cover(name, "/dev/null", m.scratch+"/empty")
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// mountAllDevices binds what the container lacks of the nodes that the user may
// open. Terminals stay away: the container has its own.
func (m *monitor) mountAllDevices() error {
	return filepath.WalkDir("/dev", func(name string, e fs.DirEntry, err error) error {
		if err != nil { // it is not ours to look into, or has just gone
			return nil
		}
		if e.IsDir() {
			if slices.Contains([]string{"/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/hugepages"}, name) {
				return fs.SkipDir
			}
			return nil
		}
		if e.Type()&fs.ModeDevice == 0 || strings.HasPrefix(name, "/dev/tty") || name == "/dev/ptmx" || name == "/dev/console" ||
			unix.Access(name, unix.R_OK) != nil && unix.Access(name, unix.W_OK) != nil {
			return nil
		}
		if f, err := m.tree.Open(name, unix.O_PATH, 0); err == nil {
			f.Close()
			return nil
		}
		return m.tree.Mount(rootfs.Mount{Type: "bind", Source: name, Target: name})
	})
}

// addFile makes a file that is not the image's and mounts it.
func (m *monitor) addFile(f stage.File) error {
	source := filepath.Join(m.scratch, filepath.Base(f.Target))
	if err := os.WriteFile(source, f.Text, 0o644); err != nil {
		return err
	}
	if err := os.Chown(source, m.tree.UID, m.tree.GID); err != nil {
		return err
	}
	return m.tree.Mount(rootfs.Mount{Type: "bind", Source: source, Target: f.Target, Flat: true})
}

func (m *monitor) openTerminal(account stage.Account) (err error) {
	p := &m.Plan.Process
	m.terminal, err = m.newTerminal(account, p.Rows, p.Cols)
	if err == nil {
		err = m.tree.BindConsole(m.terminal.name)
	}
	if err != nil {
		return fmt.Errorf("make a terminal: %w", err)
	}
	return nil
}

// A terminal is one of the container's.
type terminal struct {
	name   string   // the container's path of it
	master *os.File // does not block a thread
	// slave stays open until the program has ended: while no process has it, a
	// terminal reads as ended (EIO), though the program may open it again. nil
	// before Linux 4.13.
	slave *os.File
}

// newTerminal makes a terminal of the container's; its size is 0 if unknown.
func (m *monitor) newTerminal(account stage.Account, rows, cols uint16) (t terminal, err error) {
	blocking, name, err := m.tree.OpenTerminal(max(outside(m.Plan.Namespaces.UIDs, account.UID), 0))
	if err != nil {
		return t, err
	}
	defer blocking.Close()
	fd, err := unix.FcntlInt(blocking.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return t, err
	}
	err = unix.SetNonblock(fd, true)
	t = terminal{name: name, master: os.NewFile(uintptr(fd), name)}
	if slave, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC); errno == 0 {
		t.slave = os.NewFile(slave, name)
	}
	if err == nil && rows != 0 {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
	}
	return t, err
}

// deafen has the terminal take nothing more: whoever types waits, and can do so
// at the next run's instead. What is typed at a terminal that no process has
// open does not fail but is lost. On a master, TCXONC (ioctl_tty(2)) suspends
// what it writes, which is what is typed.
func (t terminal) deafen() { unix.IoctlSetInt(int(t.master.Fd()), unix.TCXONC, unix.TCOOFF) }

// over lets the terminal end once no process has it.
func (t terminal) over() { t.slave.Close() }

// initCopy is our executable in memory that nobody can change: the container
// can reach that of its first process.
func initCopy() (*os.File, error) {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	defer self.Close()
	return userns.SealedFile("rbox-init", self)
}

// becomeAccount maps the one id there is to the account's, so that a USER of
// the image runs as itself and owns what it sees.
func (m *monitor) becomeAccount(a stage.Account) {
	n := &m.Plan.Namespaces
	if n.JoinUser == 0 {
		n.UIDs = []idmap.Mapping{{Inside: a.UID, Outside: 0, Count: 1}}
		n.GIDs = []idmap.Mapping{{Inside: a.GID, Outside: 0, Count: 1}}
	}
}

// UnmappedUserError reports an account whose id the host did not grant.
type UnmappedUserError struct {
	Kind  string // uid or gid
	ID    uint32
	Count uint64 // ids there are
}

func (e *UnmappedUserError) Error() string {
	return fmt.Sprintf("%s %d is not among the %d ids of the container", e.Kind, e.ID, e.Count)
}

// Hint says how to get more.
func (e *UnmappedUserError) Hint() string {
	return "ask for a larger range in /etc/subuid and /etc/subgid: rbox doctor"
}

// checkMapped returns *UnmappedUserError if the account cannot exist.
func (m *monitor) checkMapped(a stage.Account) error {
	n := m.Plan.Namespaces
	if outside(n.UIDs, a.UID) < 0 {
		return &UnmappedUserError{"uid", a.UID, total(n.UIDs)}
	}
	if outside(n.GIDs, a.GID) < 0 {
		return &UnmappedUserError{"gid", a.GID, total(n.GIDs)}
	}
	return nil
}

// outside translates an id of the container into the outer namespace's, -1 if
// it has none.
func outside(maps []idmap.Mapping, id uint32) int {
	for _, m := range maps {
		if id >= m.Inside && id-m.Inside < m.Count {
			return int(m.Outside + (id - m.Inside))
		}
	}
	return -1
}

func total(maps []idmap.Mapping) (n uint64) {
	for _, m := range maps {
		n += uint64(m.Count)
	}
	return n
}

// completeEnv adds what Docker sets and the plan does not.
func completeEnv(env []string, a stage.Account, terminal bool) []string {
	has := func(name string) bool {
		return slices.ContainsFunc(env, func(kv string) bool { return strings.HasPrefix(kv, name+"=") })
	}
	out := slices.Clone(env)
	if !has("PATH") {
		out = append(out, "PATH="+stage.DefaultPath)
	}
	if !has("HOME") {
		out = append(out, "HOME="+a.Home)
	}
	if terminal && !has("TERM") {
		out = append(out, "TERM=xterm")
	}
	return out
}
