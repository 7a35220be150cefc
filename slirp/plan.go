// Package slirp says what a container's network is: plain data, handed from the
// command line to the network process, and kept in a container's state.
package slirp

import "net/netip"

// Plan is a network.
type Plan struct {
	Name   string // of a named network; "" for a private one
	Driver string // "embedded", "slirp4netns", "pasta"; "" the best that works
	Link   string // "tap", "veth"; "" the first that works
	MTU    int    // bytes; 0: the driver's own
	// Options of the driver, in its own words: pasta's.
	Options []string `json:",omitempty"`

	Subnet, Subnet6   netip.Prefix
	Gateway, Gateway6 netip.Addr
	DNS, DNS6         netip.Addr

	Range, Range6 netip.Prefix // where addresses are chosen; zero: the subnet

	IPv4Only     bool
	Internal     bool // no way out
	HostLoopback bool // the gateway's address means the host's loopback

	// HostInstead lets the container have the host's network, with a warning, where
	// none of its own can be made: it asked for none, and for no ports.
	HostInstead bool `json:",omitempty"`

	Resolver Resolver
}

// Resolver is what --dns, --dns-search and --dns-option ask for. Empty: the host's, followed.
type Resolver struct {
	Servers, Search, Options []string
}

// Endpoint is one container on a network.
type Endpoint struct {
	Container string
	Names     []string   // for the DNS server: the container's name, short id, aliases
	Interface string     // "eth0"
	IP, IP6   netip.Addr // zero: chosen
	MAC       string     // "": chosen
	Ports     []Port
}

// Port is a port of the host that leads to one of the container.
type Port struct {
	HostIP        netip.Addr // zero: all addresses, of both families
	HostPort      uint16     // 0: chosen
	HostLast      uint16     `json:",omitempty"` // one from HostPort to this is chosen; 0: none but HostPort
	ContainerPort uint16
	Protocol      string // "tcp", "udp"
}

// Request asks the network process for an endpoint. The descriptor of the container's
// network namespace comes with it.
type Request struct {
	Plan     Plan `json:"Network"`
	Endpoint Endpoint
}

// Reply answers a Request: Ready, with all that was chosen, or Failed.
type Reply struct {
	Ready        *Endpoint
	Driver, Link string // that serve it
	Notices      []string
	Sandbox      *Sandbox `json:",omitempty"`
	Failed       *Failure
	Answer       []byte `json:",omitempty"` // to Call.Ask; nil: nothing is known
}

// A Sandbox is the network process, and what it has given up that the kernel does not tell
// others of. Its capabilities and its seccomp filter are in /proc/PID/status.
type Sandbox struct {
	Pid      int
	Landlock int  `json:",omitempty"` // the version that restricts it to some files; 0: none does
	Scoped   bool `json:",omitempty"` // so that it can signal no other process either
}

// Failure is an error across processes.
type Failure struct {
	Text, Hint string
	NoWay      bool `json:",omitempty"` // no network of the container's own works on this host
}
