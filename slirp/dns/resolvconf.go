// Package dns answers the DNS queries of containers: names of containers itself,
// all others by asking the host's resolvers.
package dns

import (
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"rbox/slirp"
)

// Config is what resolv.conf(5) says.
type Config struct {
	Servers []netip.Addr // an IPv6 one may have a zone: fe80::1%eth0
	Search  []string     // domains, without a final dot
	Options []string     // "ndots:2", "rotate"
}

// Parse reads the text of a resolv.conf as slirp.ParseResolvConf does.
func Parse(text []byte) Config {
	r := slirp.ParseResolvConf(text)
	c := Config{Search: r.Search, Options: r.Options}
	for _, s := range r.Servers {
		c.Servers = append(c.Servers, netip.MustParseAddr(s)) // which it has tried
	}
	return c
}

// servers returns whom to ask. None in the file means the one of this host (resolv.conf(5)).
func (c Config) servers() []netip.AddrPort {
	if len(c.Servers) == 0 {
		return []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")}
	}
	var list []netip.AddrPort
	for _, s := range c.Servers {
		list = append(list, netip.AddrPortFrom(s, 53))
	}
	return list
}

// has tells whether an option without a value is set.
func (c Config) has(option string) bool {
	for _, o := range c.Options {
		if o == option {
			return true
		}
	}
	return false
}

// timeout is how long to wait for one server: the option in seconds, by default and at
// most what resolv.conf(5) says.
func (c Config) timeout() time.Duration {
	n := 5
	for _, o := range c.Options {
		if value, ok := strings.CutPrefix(o, "timeout:"); ok {
			if v, err := strconv.Atoi(value); err == nil {
				n = min(max(v, 1), 30)
			}
		}
	}
	return time.Duration(n) * time.Second
}

// A Host is the resolv.conf of the host, which changes while containers run: a laptop
// moves, a VPN comes up.
type Host struct {
	path string

	mu    sync.Mutex
	stamp stamp
	last  Config
}

// stamp is what differs between two versions of a file.
type stamp struct {
	dev, ino     uint64
	size         int64
	mtime, ctime unix.Timespec
}

// Follow returns the file at path as a Host. The file is looked at whenever it is asked
// for: one stat(2), which costs less than the packet that asks, sees all the ways in
// which it changes (rewritten, renamed over, a link that leads elsewhere or into a
// directory that is new), for which inotify(7) would need a watch on every directory
// on the way.
func Follow(path string) *Host { return &Host{path: path} }

// Config returns what the file says now. While it is missing, as in the middle of a
// change, it is what it was.
func (h *Host) Config() Config {
	h.mu.Lock()
	defer h.mu.Unlock()
	var st unix.Stat_t
	if err := unix.Stat(h.path, &st); err != nil {
		return h.last
	}
	now := stamp{uint64(st.Dev), st.Ino, st.Size, st.Mtim, st.Ctim}
	if now == h.stamp {
		return h.last
	}
	text, err := os.ReadFile(h.path)
	if err != nil {
		return h.last
	}
	h.last, h.stamp = Parse(text), now
	return h.last
}
