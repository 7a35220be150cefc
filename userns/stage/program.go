package stage

import (
	"path"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"rbox/userns"
	"rbox/userns/confine"
)

// Ready is what only the monitor can add to a plan, once the tree is mounted.
type Ready struct {
	Root     string // where the container's root is mounted
	Kernel   string // a directory of the monitor's own: /proc and /sys are made in its proc and sys; empty is empty
	Account  Account
	Terminal string // the container's path of its terminal, "" for none
	Streams  []int  // descriptors 0, 1 and 2 where there is no terminal
	Kept     []int  // descriptors 3 and on
	InitFile int    // the executable that stays as process 1, or -1
	JoinUser int    // an open user namespace to join, or -1
	Joined   []Namespace
	// Networked makes the process wait, before it becomes the user's program, to
	// be released once more: its network is then there.
	Networked bool
	Sysctls   [][2]string // set before the plan's, where there are such settings
	InCgroup  bool        // it is cloned into a cgroup of its own, without a namespace of cgroups
}

// Registers of the program; 0 is package userns's.
const (
	regCwd userns.Reg = iota + 1
	regFile
)

// Flags returns what to clone the container's first process with.
func (p *Plan) Flags() uintptr {
	flags := uintptr(unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP)
	for kind, flag := range map[string]uintptr{
		"pid": unix.CLONE_NEWPID, "uts": unix.CLONE_NEWUTS, "ipc": unix.CLONE_NEWIPC, "net": unix.CLONE_NEWNET,
	} {
		if p.Namespaces.Own(kind) {
			flags |= flag
		}
	}
	return flags
}

// Program is the life of the container's first process until it becomes the
// user's program. It begins in the monitor's mount namespace, or a copy.
func (p *Plan) Program(r Ready) *userns.Program {
	c := p.program()
	if r.JoinUser >= 0 {
		c.Call("join the user namespace", unix.SYS_SETNS, r.JoinUser, unix.CLONE_NEWUSER)
		for _, ns := range r.Joined {
			c.Call("join the "+ns.Kind+" namespace", unix.SYS_SETNS, ns.File, 0)
		}
		c.Fork("make the namespaces", p.Flags()|unix.CLONE_PARENT)
	}
	c.AwaitRelease()
	if r.InCgroup && r.JoinUser < 0 { // who makes the namespaces later is in the cgroup by then
		c.Call("make a cgroup namespace", unix.SYS_UNSHARE, unix.CLONE_NEWCGROUP)
	}
	enterRoot(c, r.Root)
	p.mountKernel(c, r.Kernel)
	p.configure(c, r)
	p.hide(c, r.Kernel)
	placeKernel(c, r.Kernel)
	leaveHost(c)
	if p.ReadOnly {
		// mount(2) would have to name all flags of the mount that are locked.
		attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
		c.Call("make / read-only", unix.SYS_MOUNT_SETATTR, atFDCWD, c.Str("/"), 0, userns.Ref(c, attr), unix.MOUNT_ATTR_SIZE_VER0).Else(func() {
			c.Call("make / read-only", unix.SYS_MOUNT, 0, c.Str("/"), 0, unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, 0)
		})
	}
	p.attach(c, r)
	p.drop(c, r.Account)
	c.Call("prctl", unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, int(unix.SIGKILL))
	if r.Networked {
		c.AwaitRelease()
	}
	c.TellReady()
	c.Call(ChdirStep+p.Process.Cwd, unix.SYS_CHDIR, c.Str(p.Process.Cwd)).SkipIf0(regCwd)
	c.DefaultSignals()
	p.filter(c)
	p.exec(c, r)
	return c
}

// program is empty yet, but knows what memory its process needs.
func (p *Plan) program() *userns.Program {
	c := userns.NewProgram()
	if len(p.Namespaces.TimeOffsets) > 0 {
		c.OwnMemory()
	}
	return c
}

// enterRoot makes the mounted tree a mount of this namespace's own, which
// pivot_root(2) asks for, and stays in it.
func enterRoot(c *userns.Program, target string) {
	root := c.Str(target)
	c.Call("bind the root file system", unix.SYS_MOUNT, root, root, 0, unix.MS_BIND|unix.MS_REC, 0)
	c.Call("enter the root file system", unix.SYS_CHDIR, root)
}

// HostProc is the note of a container that got the host's /proc.
const HostProc = 1

// mountKernel mounts the message queues of the new namespaces, and in the
// monitor's own directory their /proc and /sys. There no path leads through what
// a container, or another one that shares its files, may change meanwhile:
// settings are written and paths hidden where they are meant to be, in procfs and
// sysfs (CVE-2025-31133, -52565, -52881). A fresh proc needs one in sight that
// nothing covers in part, a fresh sysfs a network namespace of our own; else the
// host's are bound, /sys read-only.
func (p *Plan) mountKernel(c *userns.Program, dir string) {
	const harmless = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	sysFlags := harmless | unix.MS_RDONLY
	if p.WriteSys {
		sysFlags = harmless
	}
	mount := func(kind, target string, flags int) userns.StepRef {
		return c.Call("mount "+kind, unix.SYS_MOUNT, c.Str(kind), c.Str(target), c.Str(kind), flags, 0)
	}
	bind := func(source, target string) userns.StepRef {
		return c.Call("bind "+source, unix.SYS_MOUNT, c.Str(source), c.Str(target), 0, unix.MS_BIND|unix.MS_REC, 0)
	}
	proc, sys := dir+"/proc", dir+"/sys"
	mount("proc", proc, harmless).Else(func() {
		if !p.Namespaces.HostPID { // then it is what was asked for
			c.Note(HostProc)
		}
		bind("/proc", proc)
	})
	mount("sysfs", sys, sysFlags).Else(func() {
		bind("/sys", sys)
		if p.WriteSys {
			return
		}
		attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC}
		c.Call("make /sys read-only", unix.SYS_MOUNT_SETATTR, atFDCWD, c.Str(sys), unix.AT_RECURSIVE, userns.Ref(c, attr), unix.MOUNT_ATTR_SIZE_VER0).Else(func() {
			c.Call("make /sys read-only", unix.SYS_MOUNT, 0, c.Str(sys), 0, unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|harmless, 0)
		})
	})
	mount("cgroup2", sys+"/fs/cgroup", sysFlags).Ignore()
	mount("mqueue", "dev/mqueue", harmless).Ignore()
}

// placeKernel moves what mountKernel made, as it is by now, into the tree. If a
// link in the tree leads it elsewhere, the container goes without.
func placeKernel(c *userns.Program, dir string) {
	for _, name := range [...]string{"proc", "sys"} {
		c.Call("move /"+name+" into place", unix.SYS_MOUNT, c.Str(dir+"/"+name), c.Str(name), 0, unix.MS_MOVE, 0)
	}
}

// atFDCWD is AT_FDCWD as a system call's argument.
const atFDCWD = ^uintptr(-unix.AT_FDCWD - 1)

// configure sets what belongs to the namespaces: name, loopback, sysctls.
func (p *Plan) configure(c *userns.Program, r Ready) {
	if p.Hostname != "" && p.Namespaces.Own("uts") {
		c.Call("set the host name", unix.SYS_SETHOSTNAME, c.Str(p.Hostname), len(p.Hostname))
	}
	if p.Domainname != "" && p.Namespaces.Own("uts") {
		c.Call("set the domain name", unix.SYS_SETDOMAINNAME, c.Str(p.Domainname), len(p.Domainname))
	}
	if p.Namespaces.Own("net") {
		c.Call("socket", unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0).Save(regFile)
		c.Call("bring the loopback interface up", unix.SYS_IOCTL, regFile, unix.SIOCSIFFLAGS, userns.Ref(c, loopbackUp()))
		c.Call("close", unix.SYS_CLOSE, regFile)
	}
	for _, kv := range r.Sysctls { // regFile is closed where there is no such file to open
		for _, step := range sysctl(c, r.Kernel, kv) {
			step.Ignore()
		}
	}
	for _, kv := range p.Sysctls {
		sysctl(c, r.Kernel, kv)
	}
}

// SysctlStep begins the names of the steps that set one.
const SysctlStep = "set sysctl "

// sysctl sets one in the procfs that is mounted in dir.
func sysctl(c *userns.Program, dir string, kv [2]string) []userns.StepRef {
	name := SysctlStep + kv[0]
	return []userns.StepRef{
		c.Call(name, unix.SYS_OPENAT, atFDCWD, c.Str(dir+confine.SysctlFile(kv[0])), unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0).Save(regFile),
		c.Call(name, unix.SYS_WRITE, regFile, c.Str(kv[1]), len(kv[1])),
		c.Call("close", unix.SYS_CLOSE, regFile),
	}
}

// ifreq is struct ifreq of netdevice(7), for flags.
type ifreq struct {
	name  [unix.IFNAMSIZ]byte
	flags uint16
	_     [22]byte
}

func loopbackUp() *ifreq {
	r := &ifreq{flags: unix.IFF_UP}
	copy(r.name[:], "lo")
	return r
}

// hide covers masked paths of /proc and /sys, which are mounted in dir: a file by
// /dev/null and a directory by an empty one. It makes others read-only. What the
// kernel lacks is passed over. Masked paths elsewhere are the monitor's to cover.
func (p *Plan) hide(c *userns.Program, dir string) {
	null, empty := c.Str("/dev/null"), c.Str(dir+"/empty") // the host's, and the monitor's
	for _, name := range p.Masked {
		if !OfKernel(name) {
			continue
		}
		target := c.Str(dir + name)
		c.Call("mask "+name, unix.SYS_MOUNT, null, target, 0, unix.MS_BIND, 0).Else(func() {
			c.Call("mask "+name, unix.SYS_MOUNT, empty, target, 0, unix.MS_BIND, 0).Pass(unix.ENOENT)
		})
	}
	for _, name := range p.ownSettings() { // before what they lie in is covered
		target := c.Str(dir + name)
		c.Call("bind "+name, unix.SYS_MOUNT, target, target, 0, unix.MS_BIND|unix.MS_REC, 0).Pass(unix.ENOENT)
	}
	const flags = unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	for _, name := range p.Locked {
		target := c.Str(dir + name)
		c.Call("bind "+name, unix.SYS_MOUNT, target, target, 0, unix.MS_BIND|unix.MS_REC, 0).Pass(unix.ENOENT)
		c.Call("make "+name+" read-only", unix.SYS_MOUNT, 0, target, 0, flags, 0).Pass(unix.ENOENT)
	}
}

// OfKernel tells whether the clean path name is the kernel's to show: of /proc or /sys.
func OfKernel(name string) bool {
	return strings.HasPrefix(name, "/proc/") || strings.HasPrefix(name, "/sys/")
}

// ownSettings are what stays writable of a read-only /proc/sys: settings of a
// namespace of the container's own, if it has the capability over them. Docker
// keeps these read-only too.
func (p *Plan) ownSettings() (names []string) {
	if !slices.Contains(p.Locked, "/proc/sys") {
		return nil
	}
	if p.Namespaces.Own("net") && p.Process.Capabilities&(1<<unix.CAP_NET_ADMIN) != 0 {
		names = append(names, "/proc/sys/net")
	}
	if p.Namespaces.Own("ipc") && p.Process.Capabilities&(1<<unix.CAP_SYS_ADMIN) != 0 {
		for _, name := range confine.IPCSettings {
			names = append(names, confine.SysctlFile(name))
		}
		names = append(names, "/proc/sys/fs/mqueue")
	}
	return names
}

// leaveHost makes the working directory the root and lets go of the old one,
// so that no path leads to the host. What is mounted or unmounted there comes to
// the container no more: nothing of it is a slave (mount_namespaces(7)).
func leaveHost(c *userns.Program) {
	dot := c.Str(".")
	c.Call("pivot_root", unix.SYS_PIVOT_ROOT, dot, dot)
	c.Call("unmount the host's root", unix.SYS_UMOUNT2, dot, unix.MNT_DETACH)
	root := c.Str("/")
	c.Call("chdir /", unix.SYS_CHDIR, root)
	c.Call("make all mounts private", unix.SYS_MOUNT, 0, root, 0, unix.MS_REC|unix.MS_PRIVATE, 0)
}

// attach gives the process its session, its descriptors and its limits. What
// the monitor has open is closed before the first path that the container can
// make lead to /proc/self/fd.
func (p *Plan) attach(c *userns.Program, r Ready) {
	c.Call("setsid", unix.SYS_SETSID)
	// Else it has the caller's keys (session-keyring(7)). A user may have some 200
	// keys in all, of which each takes one; beyond them, and without keys in the
	// kernel, containers do without.
	c.Call("join a new session keyring", unix.SYS_KEYCTL, unix.KEYCTL_JOIN_SESSION_KEYRING, 0).Ignore()
	first, files, last := 0, append(slices.Clone(r.Streams), r.Kept...), 2+len(r.Kept)
	if r.Terminal != "" {
		first, files = 3, slices.Clone(r.Kept)
	}
	if r.InitFile >= 0 {
		last++
		files = append(files, r.InitFile)
	}
	c.Files(first, files)
	if r.InitFile >= 0 {
		c.Call("close the init on exec", unix.SYS_FCNTL, last, unix.F_SETFD, unix.FD_CLOEXEC)
	}
	c.CloseOthers(last)
	if r.Terminal != "" {
		// Opened from inside, so that it has a name there (ttyname(3)).
		c.Call("open "+r.Terminal, unix.SYS_OPENAT, atFDCWD, c.Str(r.Terminal), unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0).Save(regFile)
		for fd := range 3 {
			c.Call("place the terminal", unix.SYS_DUP3, regFile, fd, 0)
		}
		c.Call("take the terminal", unix.SYS_IOCTL, 0, unix.TIOCSCTTY, 0)
	}
	c.Call("umask", unix.SYS_UMASK, 0o022)
	for _, l := range p.Process.Rlimits {
		lim := &unix.Rlimit{Cur: l.Soft, Max: l.Hard}
		c.Call(RlimitStep+RlimitName(l.Resource), unix.SYS_PRLIMIT64, 0, l.Resource, userns.Ref(c, lim), 0)
	}
	c.Call(ChdirStep+p.Process.Cwd, unix.SYS_CHDIR, c.Str(p.Process.Cwd)).Save(regCwd).Pass(unix.EACCES)
}

// drop gives up what the container may not have, ids last: they need privilege.
func (p *Plan) drop(c *userns.Program, a Account) {
	for n := range confine.LastCapability + 1 {
		if p.Process.Capabilities&(1<<n) == 0 {
			c.Call("drop a capability", unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, n, 0, 0, 0).Pass(unix.EINVAL)
		}
	}
	if p.Namespaces.Single {
		if filter := confine.Pretend(); filter != nil {
			prog := &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
			c.Call("pretend that there are other ids", unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, userns.Ref(c, prog))
		}
	} else if !p.Process.KeepGroups {
		groups := append([]uint32{a.GID}, slices.DeleteFunc(slices.Clone(a.Groups), func(g uint32) bool { return g == a.GID })...)
		c.Call("set the groups", unix.SYS_SETGROUPS, len(groups), userns.Ref(c, &groups[0]))
	}
	keep, ambient := p.keep(a)
	if keep != 0 {
		c.Call("keep capabilities", unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 1, 0, 0, 0)
	}
	c.Call("set the group id", unix.SYS_SETRESGID, int(a.GID), int(a.GID), int(a.GID))
	c.Call("set the user id", unix.SYS_SETRESUID, int(a.UID), int(a.UID), int(a.UID))
	if keep != 0 {
		raise(c, keep, ambient)
	}
}

// keep are the capabilities that a user other than root has until the exec, and
// those of them that the exec leaves. Without no_new_privs, seccomp(2) asks for
// CAP_SYS_ADMIN.
func (p *Plan) keep(a Account) (keep, ambient uint64) {
	if a.UID == 0 { // who gets all of the bounding set by exec
		return 0, 0
	}
	ambient = p.Process.Ambient & p.Process.Capabilities
	keep = ambient
	if code, _ := p.Process.Seccomp.filter(); code != "" && !p.Process.NoNewPrivileges {
		keep |= 1 << unix.CAP_SYS_ADMIN
	}
	return keep, ambient
}

// raise makes set the capabilities of a process that is not root, and ambient
// those after its exec, too (capabilities(7)).
func raise(c *userns.Program, set, ambient uint64) {
	header := &unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := new([2]unix.CapUserData)
	for i := range data {
		half := uint32(set >> (32 * i))
		data[i] = unix.CapUserData{Effective: half, Permitted: half, Inheritable: uint32(ambient >> (32 * i))}
	}
	c.Call("set the capabilities", unix.SYS_CAPSET, userns.Ref(c, header), userns.Ref(c, data))
	for n := range confine.LastCapability + 1 {
		if ambient&(1<<n) != 0 {
			c.Call("raise a capability", unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, n, 0, 0).Pass(unix.EINVAL)
		}
	}
}

// sockFprog is struct sock_fprog of seccomp(2).
type sockFprog struct {
	instructions uint16
	program      *byte
}

// filter installs the filter of system calls. It is the last step before the
// exec, so that a profile need not allow what rbox itself has to do. Where an
// earlier filter refuses with an errno what this one allows, the earlier one
// holds; of two errnos this one's does (seccomp(2)).
func (p *Plan) filter(c *userns.Program) {
	if p.Process.NoNewPrivileges {
		c.Call("set no_new_privs", unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	}
	code, flags := p.Process.Seccomp.filter()
	if code == "" {
		return
	}
	if len(p.Process.Seccomp.Filter) > 0 {
		c.MayBeSilenced()
	}
	prog := userns.Ref(c, &sockFprog{uint16(len(code) / 8), unsafe.StringData(code)})
	install := func(flags uint32) userns.StepRef {
		return c.Call(SeccompStep, unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, int(flags), prog)
	}
	const optional = unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW // Linux 4.17
	if flags&optional == 0 {
		install(flags)
		return
	}
	install(flags).Else(func() { install(flags &^ optional) })
}

// ExecStep begins the name of the step that runs the user's program, ChdirStep
// that of one that enters its directory, and RlimitStep of one that sets a limit.
// SeccompStep is that of the step that installs the filter of system calls.
const (
	ExecStep    = "exec "
	ChdirStep   = "chdir to "
	RlimitStep  = "set resource limit "
	SeccompStep = "install the seccomp filter"
)

// exec runs the program: a name with a slash as it is, another one where PATH
// has it, as execvp(3) looks. A file that may not be run does not end the search.
func (p *Plan) exec(c *userns.Program, r Ready) {
	argv, env := c.Strs(p.Process.Args), c.Strs(p.Process.Env)
	name := p.Process.Args[0]
	if r.InitFile >= 0 {
		// It closes the socket once it listens for signals, which are lost on
		// process 1 before: until then the container has not started.
		file := 3 + len(r.Kept) // where attach has put it, and the socket above
		c.KeepReport()
		argv = c.Strs(append([]string{"rbox-init", strconv.Itoa(file + 1)}, p.Process.Args...))
		c.Call(ExecStep+"rbox-init", unix.SYS_EXECVEAT, file, c.Str(""), argv, env, unix.AT_EMPTY_PATH)
		return
	}
	if strings.Contains(name, "/") {
		c.Call(ExecStep+name, unix.SYS_EXECVE, c.Str(name), argv, env)
		return
	}
	for _, dir := range strings.Split(SearchPath(p.Process.Env), ":") {
		c.Call(ExecStep+name, unix.SYS_EXECVE, c.Str(path.Join("/", dir, name)), argv, env).
			Pass(unix.ENOENT, unix.ENOTDIR).Remember(unix.EACCES)
	}
	c.Fail(ExecStep + name)
}

// DefaultPath is Docker's.
const DefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// SearchPath is the value of PATH in env, the last if there are several.
func SearchPath(env []string) string {
	found := DefaultPath
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			found = v
		}
	}
	return found
}
