package dns

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Names are the names of a network's containers. One may belong to several containers,
// as a shared alias does.
type Names struct {
	domain string         // the names' own: WEB.domain is WEB
	zones  []netip.Prefix // no one else knows names of addresses in these

	mu     sync.RWMutex
	byName map[string][]netip.Addr // lower case, without the domain
	byAddr map[netip.Addr][]string // as they were given, the first one first
}

// NewNames returns an empty table, which is the authority for domain (no final dot; ""
// for none) and the addresses in zones.
func NewNames(domain string, zones ...netip.Prefix) *Names {
	return &Names{
		domain: strings.ToLower(domain), zones: zones,
		byName: map[string][]netip.Addr{}, byAddr: map[netip.Addr][]string{},
	}
}

// Add gives names to addrs, until remove is called. The first name is what an address
// is translated back to. Invalid addrs are passed over.
func (n *Names) Add(names []string, addrs ...netip.Addr) (remove func()) {
	addrs = slices.DeleteFunc(slices.Clone(addrs), func(a netip.Addr) bool { return !a.IsValid() })
	keys := map[string]bool{} // the same name twice is one
	for _, name := range names {
		keys[n.key(name)] = true
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for key := range keys {
		n.byName[key] = append(n.byName[key], addrs...)
	}
	for _, a := range addrs {
		n.byAddr[a] = append(n.byAddr[a], names...)
	}
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		for key := range keys {
			take(n.byName, key, addrs)
		}
		for _, a := range addrs {
			take(n.byAddr, a, names)
		}
	}
}

// take removes one of each of gone from the list at key.
func take[K, V comparable](table map[K][]V, key K, gone []V) {
	list := slices.Clone(table[key])
	for _, v := range gone {
		if i := slices.Index(list, v); i >= 0 {
			list = slices.Delete(list, i, i+1)
		}
	}
	if len(list) == 0 {
		delete(table, key)
		return
	}
	table[key] = list
}

// key is the form in which a name is looked up.
func (n *Names) key(name string) string {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if short, ok := strings.CutSuffix(name, "."+n.domain); ok && n.domain != "" {
		return short
	}
	return name
}

// find returns the addresses of name, beginning at any of them, so that the containers
// that share a name share the work.
func (n *Names) find(name string) []netip.Addr {
	n.mu.RLock()
	defer n.mu.RUnlock()
	list := n.byName[n.key(name)]
	if len(list) == 0 {
		return nil
	}
	first := rand.IntN(len(list))
	return slices.Concat(list[first:], list[:first])
}

// reverse returns the first name, with the domain, of the address that name stands for,
// which is a reversed one as in 2.0.0.10.in-addr.arpa; "": none.
func (n *Names) reverse(name string) string {
	addr, ok := reversed(name)
	if !ok {
		return ""
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	names := n.byAddr[addr]
	if len(names) == 0 {
		return ""
	}
	if n.domain == "" || strings.Contains(names[0], ".") {
		return names[0]
	}
	return names[0] + "." + n.domain
}

// owns tells whether no other server can know name.
func (n *Names) owns(name string) bool {
	if addr, ok := reversed(name); ok {
		return slices.ContainsFunc(n.zones, func(p netip.Prefix) bool { return p.Contains(addr) })
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	return n.domain != "" && (name == n.domain || strings.HasSuffix(name, "."+n.domain))
}

// reversed is the address that a name below in-addr.arpa or ip6.arpa stands for (RFC
// 1035, 3.5; RFC 3596, 2.5).
func reversed(name string) (netip.Addr, bool) {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if four, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		labels := strings.Split(four, ".")
		slices.Reverse(labels)
		addr, err := netip.ParseAddr(strings.Join(labels, "."))
		return addr, err == nil && addr.Is4()
	}
	six, ok := strings.CutSuffix(name, ".ip6.arpa")
	labels := strings.Split(six, ".")
	if !ok || len(labels) != 32 {
		return netip.Addr{}, false
	}
	var b [16]byte
	for i, label := range labels {
		digit, err := strconv.ParseUint(label, 16, 4)
		if err != nil || len(label) != 1 {
			return netip.Addr{}, false
		}
		b[15-i/2] |= byte(digit) << (4 * (i % 2))
	}
	return netip.AddrFrom16(b), true
}
