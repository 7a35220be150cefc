package slirp

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Kind is a kind of network that a container can have.
type Kind string

// The kinds.
const (
	None      Kind = "none"      // a loopback interface alone
	Host      Kind = "host"      // this host's
	Private   Kind = "private"   // its own, with a way out
	Container Kind = "container" // another container's
	Path      Kind = "ns"        // of a network namespace that there is
	Named     Kind = "named"     // made by `rbox network create`
)

// A Mode is one value of --network.
type Mode struct {
	Kind    Kind
	Of      string  // the container, or the namespace's file
	Request Request // of Private and Named: what the value asks for
}

// An InputError reports what the user wrote and why it cannot be.
type InputError struct{ Input, Why, Advice string }

func (e *InputError) Error() string { return e.Input + ": " + e.Why }

// Hint is what to write instead, "" if there is nothing better to say.
func (e *InputError) Hint() string { return e.Advice }

// reserved are the names by which Docker and Podman call networks that every
// user has: none made by a user can be called so.
var reserved = []string{"none", "host", "private", "bridge", "default", "slirp4netns", "pasta", "container", "ns", "name"}

// CheckName returns *InputError unless a network can be called name: Docker's form.
func CheckName(name string) error {
	if slices.Contains(reserved, name) {
		return &InputError{name, "the name is a mode of --network, no network can have it", ""}
	}
	for i, r := range name {
		alnum := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !alnum && (i == 0 || !strings.ContainsRune("_.-", r)) {
			return &InputError{strconv.Quote(name), "a network's name has letters, digits, and after the first _ . and -", ""}
		}
	}
	if name == "" || len(name) > 63 {
		return &InputError{strconv.Quote(name), "a network's name has 1 to 63 characters", ""}
	}
	return nil
}

// ParseMode reads one value of --network as Docker and Podman write it.
func ParseMode(text string) (m Mode, err error) {
	defer func() {
		if err != nil {
			err = inFlag("--network "+text, err)
		}
	}()
	if strings.HasPrefix(text, "name=") { // Docker's long form
		return parseLong(text)
	}
	name, options, has := strings.Cut(text, ":")
	switch name {
	case "none", "host":
		if has {
			return m, &InputError{"", name + " takes no options", ""}
		}
		m.Kind = Kind(name)
		return m, nil
	case "container":
		if options == "" {
			return m, &InputError{"", "the other container is missing", "--network container:NAME"}
		}
		return Mode{Kind: Container, Of: options}, nil
	case "ns":
		if !strings.HasPrefix(options, "/") {
			return m, &InputError{"", "the file of a network namespace is missing", "--network ns:/proc/PID/ns/net"}
		}
		return Mode{Kind: Path, Of: options}, nil
	case "private", "bridge", "default":
		m.Kind = Private
	case "slirp4netns", "pasta":
		m.Kind, m.Request.Plan.Driver = Private, name
	default:
		if err := CheckName(name); err != nil {
			return m, &InputError{"", "that is no network", "there are none, host, private, container:ID, ns:PATH and what rbox network ls shows"}
		}
		m.Kind, m.Request.Plan.Name = Named, name
	}
	if name == "pasta" {
		return m, m.Request.pastaOptions(options)
	}
	if has {
		err = m.options(strings.Split(options, ","))
	}
	return m, err
}

// parseLong reads name=NETWORK and what follows it.
func parseLong(text string) (m Mode, err error) {
	fields := strings.Split(text, ",")
	if strings.HasPrefix(fields[0], "name=name=") {
		return m, &InputError{"", "that is no network", ""}
	}
	if m, err = ParseMode(strings.TrimPrefix(fields[0], "name=")); err != nil {
		return m, err
	}
	if m.Kind != Private && m.Kind != Named {
		if len(fields) > 1 {
			err = &InputError{"", string(m.Kind) + " takes no options", ""}
		}
		return m, err
	}
	return m, m.options(fields[1:])
}

// inFlag makes err one about the flag.
func inFlag(flag string, err error) error {
	why, advice := err.Error(), ""
	if e, ok := err.(*InputError); ok {
		why, advice = strings.TrimPrefix(why, ": "), e.Advice
	}
	return &InputError{flag, why, advice}
}

// options reads the options of a private or a named network.
func (m *Mode) options(words []string) error {
	for _, word := range words {
		name, value, has := strings.Cut(word, "=")
		set := m.Request.endpointOption
		if m.Kind == Private && !endpointOptions[name] {
			set = m.Request.privateOption
		}
		if err := set(name, value, has); err != nil {
			return inFlag(word, err)
		}
	}
	return nil
}

// endpointOptions are those that say how a container is on a network.
var endpointOptions = map[string]bool{
	"ip": true, "ip6": true, "mac": true, "mac-address": true, "mac_address": true, "alias": true,
	"interface_name": true, "interface-name": true, "interface": true, "driver-opt": true,
}

// endpointOption takes one of Podman's or, where it has another name, of Docker's.
func (r *Request) endpointOption(name, value string, _ bool) (err error) {
	e := &r.Endpoint
	if name == "driver-opt" { // Docker's way to name the interface
		name, value, _ = strings.Cut(value, "=")
		name = strings.Replace(name, "com.docker.network.endpoint.ifname", "interface_name", 1)
	}
	switch name {
	case "ip":
		e.IP, err = ParseIP(value)
	case "ip6":
		e.IP6, err = ParseIP6(value)
	case "mac", "mac-address", "mac_address":
		e.MAC, err = ParseMAC(value)
	case "alias":
		if err = CheckAlias(value); err == nil {
			e.Names = append(e.Names, value)
		}
	case "interface_name", "interface-name", "interface":
		e.Interface, err = value, checkInterface(value)
	default:
		return &InputError{"", "there is no such option", "options of a named network are ip, ip6, mac, alias and interface_name"}
	}
	if err == nil && r.Plan.Name == "" && (name == "ip" || name == "ip6" || name == "alias") {
		return &InputError{"", "a private network has one container, with an address of its own choice", "rbox network create NAME, then --network NAME:" + name + "=" + value}
	}
	return err
}

// privateOption takes one of rbox's own, or of slirp4netns as Podman has them.
func (r *Request) privateOption(name, value string, has bool) (err error) {
	p := &r.Plan
	on, boolErr := parseBool(value, has)
	switch name {
	case "host-loopback", "allow_host_loopback":
		p.HostLoopback, err = on, boolErr
	case "ipv6", "enable_ipv6":
		p.IPv4Only, err = !on, boolErr
	case "mtu":
		p.MTU, err = ParseMTU(value)
	case "driver":
		if p.Driver = value; !slices.Contains([]string{"embedded", "slirp4netns", "pasta"}, value) {
			err = &InputError{"", "there is no such driver", "drivers are embedded, slirp4netns and pasta"}
		}
	case "link":
		if p.Link = value; value != "tap" && value != "veth" {
			err = &InputError{"", "there is no such link", "links are tap and veth"}
		}
	case "cidr", "subnet":
		p.Subnet, err = parsePrivateSubnet(value)
	case "port_handler": // rbox's always keeps the client's address
	default:
		err = &InputError{"", "there is no such option", "options are host-loopback, mtu=BYTES, driver=NAME, link=tap|veth, subnet=CIDR, ipv6=false, mac=ADDRESS and interface_name=NAME"}
	}
	return err
}

// pastaOptions takes arguments of pasta(1), with commas between. Those that
// speak of what rbox decides itself go into the plan, the others to pasta as
// they are.
func (r *Request) pastaOptions(text string) (err error) {
	if text == "" {
		return nil
	}
	words := strings.Split(text, ",")
	for i := 0; i < len(words) && err == nil; i++ {
		value := ""
		if i+1 < len(words) {
			value = words[i+1]
		}
		switch word := words[i]; word {
		case "--map-gw":
			r.Plan.HostLoopback = true
		case "--no-map-gw":
			r.Plan.HostLoopback = false
		case "-4", "--ipv4-only":
			r.Plan.IPv4Only = true
		case "-m", "--mtu":
			r.Plan.MTU, err = ParseMTU(value)
			i++
		case "-I", "--ns-ifname":
			r.Endpoint.Interface, err = value, checkInterface(value)
			i++
		default:
			r.Plan.Options = append(r.Plan.Options, word)
		}
		if err != nil {
			err = inFlag(words[i-1], err)
		}
	}
	return err
}

func parseBool(value string, has bool) (bool, error) {
	if !has {
		return true, nil
	}
	on, err := strconv.ParseBool(value)
	if err != nil {
		return false, &InputError{"", "that is neither true nor false", ""}
	}
	return on, nil
}

// Bounds of an MTU, bytes: what IPv6 asks for (RFC 8200, section 5), and the
// most that fits a frame of 64 KiB.
const (
	minMTU = 1280
	maxMTU = 65520
)

// ParseMTU reads an MTU in bytes.
func ParseMTU(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < minMTU || n > maxMTU {
		return 0, &InputError{"", fmt.Sprintf("an MTU is %d to %d bytes", minMTU, maxMTU), ""}
	}
	return n, nil
}

// parsePrivateSubnet reads the subnet of a private network, which has its
// gateway, its DNS server and its container at fixed places.
func parsePrivateSubnet(text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	if err != nil || !p.Addr().Is4() || p.Bits() > 25 || p.Bits() < 8 {
		return p, &InputError{"", "want an IPv4 subnet of 8 to 25 bits", "subnet=10.0.2.0/24"}
	}
	return p.Masked(), nil
}

// ParseIP reads an IPv4 address that a container can have.
func ParseIP(text string) (netip.Addr, error) {
	a, err := netip.ParseAddr(text)
	if err != nil || !a.Is4() || !unicast(a) {
		return netip.Addr{}, &InputError{"", strconv.Quote(text) + " is not an IPv4 address of a container", ""}
	}
	return a, nil
}

// ParseIP6 is ParseIP for IPv6.
func ParseIP6(text string) (netip.Addr, error) {
	a, err := netip.ParseAddr(text)
	if err != nil || !a.Is6() || a.Is4In6() || a.Zone() != "" || !unicast(a) {
		return netip.Addr{}, &InputError{"", strconv.Quote(text) + " is not an IPv6 address of a container", ""}
	}
	return a, nil
}

func unicast(a netip.Addr) bool {
	return !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast() && !a.IsLinkLocalUnicast()
}

// ParseMAC reads a unicast Ethernet address, and returns it in its usual form.
func ParseMAC(text string) (string, error) {
	fields := strings.FieldsFunc(text, func(r rune) bool { return r == ':' || r == '-' })
	bad := &InputError{"", strconv.Quote(text) + " is not an Ethernet address of an interface, as 02:42:ac:11:00:02 is", ""}
	if len(fields) != 6 || len(text) != 17 {
		return "", bad
	}
	var mac, any uint64
	for _, f := range fields {
		n, err := strconv.ParseUint(f, 16, 8)
		if err != nil || len(f) != 2 {
			return "", bad
		}
		mac, any = mac<<8|n, any|n
	}
	if any == 0 || mac>>40&1 != 0 { // a group's address
		return "", bad
	}
	return strings.ToLower(strings.Join(fields, ":")), nil
}

// CheckAlias checks a name for the DNS server (RFC 1123, with the underscore
// that Docker allows).
func CheckAlias(name string) error {
	bad := len(name) == 0 || len(name) > 253
	for label := range strings.SplitSeq(name, ".") {
		bad = bad || label == "" || len(label) > 63 || label[0] == '-' || strings.ContainsFunc(label, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
		})
	}
	if bad {
		return &InputError{"", strconv.Quote(name) + " is not a name for DNS", ""}
	}
	return nil
}

// checkInterface checks the name of an interface (IFNAMSIZ is 16 with the NUL;
// dev_valid_name of the kernel says what it is made of).
func checkInterface(name string) error {
	if name == "" || len(name) > 15 || name == "." || name == ".." || name == "lo" || strings.ContainsFunc(name, func(r rune) bool {
		return r <= ' ' || r > '~' || r == '/' || r == ':' || r == '%'
	}) {
		return &InputError{"", strconv.Quote(name) + " is not a name for an interface", ""}
	}
	return nil
}
