package sandbox

import (
	"path/filepath"
	"slices"
	"strings"

	"rbox/slirp/landlock"
)

// fence is what n takes of files. It says nothing of TCP: a container may connect to any port.
func (n *Need) fence() landlock.Fence {
	f := landlock.Fence{Scoped: !n.Child} // a child that there is already is outside
	for _, file := range n.Follow {
		for _, dir := range placesOf(file) {
			f.Rules = append(f.Rules, landlock.Rule{Path: dir, Rights: landlock.Read})
		}
	}
	if n.Named {
		f.Rules = append(f.Rules,
			// Those of network namespaces it may write (link.setting). What is below /proc/sys/net
			// differs by namespace, but /proc/sys is one.
			landlock.Rule{Path: "/proc/sys", Rights: landlock.Rewrite},
			landlock.Rule{Path: "/dev/net/tun", Rights: landlock.Rewrite | landlock.Control},
			// slirp.LockControl, slirp.RemoveControl
			landlock.Rule{Path: n.Dir, Rights: landlock.Rewrite | landlock.Make | landlock.Remove},
			landlock.Rule{Path: filepath.Dir(n.Dir), Rights: landlock.Rmdir})
	}
	return f
}

// resolvers are where those that manage resolv.conf keep it, for a link in /etc to lead to.
var resolvers = [...]string{
	"/run/systemd", "/run/NetworkManager", "/run/resolvconf", "/run/connman", "/run/netconfig", "/run/dhcpcd",
}

// placesOf are directories where file is and may be later: its own, that which it leads to now,
// and those of resolvers. A rule for the file itself would not be for what replaces that.
func placesOf(file string) []string {
	dirs := slices.Concat(resolvers[:], []string{filepath.Dir(file)})
	target, err := filepath.EvalSymlinks(file)
	if err != nil {
		return dirs
	}
	dir := filepath.Dir(target)
	switch {
	case slices.ContainsFunc(dirs, func(d string) bool { return dir == d || strings.HasPrefix(dir, d+"/") }):
		return dirs
	case dir == "/": // all is below it
		dir = target
	}
	return append(dirs, dir)
}
