package slirp

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// ParsePublish reads a value of -p: [IP:][HOSTPORT]:CONTAINERPORT[/PROTOCOL] or
// CONTAINERPORT alone, where ports may be ranges of one length, or a range of the host's
// for one of the container's. An IPv6 address stands in brackets.
func ParsePublish(text string) (ports []Port, err error) {
	defer func() {
		if err != nil {
			err = inFlag("-p "+text, err)
		}
	}()
	rest, protocol, err := cutProtocol(text)
	if err != nil {
		return nil, err
	}
	var ip netip.Addr
	if ip, rest, err = cutAddress(rest); err != nil {
		return nil, err
	}
	hostText, insideText, has := strings.Cut(rest, ":")
	if !has {
		hostText, insideText = "", rest
	}
	first, last, err := parseRange(insideText)
	if err != nil {
		return nil, err
	}
	host, hostLast := uint16(0), uint16(0)
	if hostText != "" && hostText != "0" {
		if host, hostLast, err = parseRange(hostText); err != nil {
			return nil, err
		}
		if first == last && hostLast != host {
			return []Port{{HostIP: ip.Unmap(), HostPort: host, HostLast: hostLast, ContainerPort: first, Protocol: protocol}}, nil
		}
		if hostLast-host != last-first {
			why := fmt.Sprintf("%d ports of the host for %d of the container", int(hostLast)-int(host)+1, int(last)-int(first)+1)
			return nil, &InputError{"", why, "as many of each: -p 8000-8002:80-82"}
		}
	}
	for i := 0; i <= int(last-first); i++ {
		p := Port{HostIP: ip.Unmap(), ContainerPort: first + uint16(i), Protocol: protocol}
		if host != 0 {
			p.HostPort = host + uint16(i)
		}
		ports = append(ports, p)
	}
	return ports, nil
}

// cutAddress cuts the address of the host, if there is one, from before its port.
func cutAddress(text string) (ip netip.Addr, after string, err error) {
	address, after := "", text
	if strings.HasPrefix(text, "[") {
		address, after, _ = strings.Cut(text[1:], "]:")
	} else if strings.Count(text, ":") >= 2 {
		address, after, _ = strings.Cut(text, ":")
	} else {
		return ip, text, nil
	}
	if ip, err = netip.ParseAddr(address); err != nil || ip.Zone() != "" {
		return ip, "", &InputError{"", strconv.Quote(address) + " is not an IP address", "an IPv6 address stands in brackets: -p [::1]:8080:80"}
	}
	return ip, after, nil
}

func cutProtocol(text string) (rest, protocol string, err error) {
	rest, protocol, has := strings.Cut(text, "/")
	if !has {
		return rest, "tcp", nil
	}
	switch protocol = strings.ToLower(protocol); protocol {
	case "tcp", "udp":
		return rest, protocol, nil
	case "sctp":
		return "", "", &InputError{"", "a user-mode network has no SCTP: there are tcp and udp", "for SCTP, share this host's network: --network host"}
	}
	return "", "", &InputError{"", strconv.Quote(protocol) + " is not a protocol: there are tcp and udp", ""}
}

// parseRange reads PORT or FIRST-LAST.
func parseRange(text string) (first, last uint16, err error) {
	from, to, isRange := strings.Cut(text, "-")
	if !isRange {
		to = from
	}
	a, errA := strconv.ParseUint(from, 10, 16)
	b, errB := strconv.ParseUint(to, 10, 16)
	if errA != nil || errB != nil || a == 0 {
		return 0, 0, &InputError{"", strconv.Quote(text) + " is not a port: they are 1 to 65535", ""}
	}
	if b < a {
		return 0, 0, &InputError{"", "the range " + text + " ends before it begins", ""}
	}
	return uint16(a), uint16(b), nil
}

// ParseExposed reads PORT[-LAST][/PROTOCOL], of --expose and of images, and
// returns each port as PORT/PROTOCOL. SCTP's are listed, but cannot be published.
func ParseExposed(text string) (list []string, err error) {
	rest, protocol := text, "tcp"
	if before, after, ok := strings.Cut(text, "/"); ok && strings.EqualFold(after, "sctp") {
		rest, protocol = before, "sctp"
	} else if rest, protocol, err = cutProtocol(text); err != nil {
		return nil, inFlag("--expose "+text, err)
	}
	first, last, err := parseRange(rest)
	if err != nil {
		return nil, inFlag("--expose "+text, err)
	}
	for i := int(first); i <= int(last); i++ {
		list = append(list, strconv.Itoa(i)+"/"+protocol)
	}
	return list, nil
}

// publish gathers the ports that -p and -P ask for.
func publish(specs []string, all bool, exposed []string) (ports []Port, err error) {
	for _, spec := range specs {
		more, err := ParsePublish(spec)
		if err != nil {
			return nil, err
		}
		for _, p := range more {
			if slices.Contains(ports, p) {
				continue
			}
			if i := slices.IndexFunc(ports, p.collides); i >= 0 {
				return nil, &InputError{"-p " + spec, fmt.Sprintf("port %d/%s of the host leads to %s already", p.HostPort, p.Protocol, ports[i].Inside()), ""}
			}
			ports = append(ports, p)
		}
	}
	if !all {
		return ports, nil
	}
	for _, text := range exposed {
		number, protocol, _ := strings.Cut(text, "/")
		n, err := strconv.ParseUint(number, 10, 16)
		if err != nil || protocol == "sctp" {
			continue // an image may expose what cannot be published
		}
		p := Port{ContainerPort: uint16(n), Protocol: protocol}
		if !slices.ContainsFunc(ports, func(o Port) bool { return o.Inside() == p.Inside() }) {
			ports = append(ports, p)
		}
	}
	return ports, nil
}

// collides tells whether both take the same port of the host. What has a choice does not.
func (p Port) collides(o Port) bool {
	if p.HostPort == 0 || p.HostPort != o.HostPort || p.HostLast+o.HostLast != 0 || p.Protocol != o.Protocol {
		return false
	}
	if !p.HostIP.IsValid() || !o.HostIP.IsValid() || p.HostIP == o.HostIP {
		return true
	}
	return p.HostIP.Is4() == o.HostIP.Is4() && (p.HostIP.IsUnspecified() || o.HostIP.IsUnspecified())
}

// Inside is the container's port, as 80/tcp.
func (p Port) Inside() string { return strconv.Itoa(int(p.ContainerPort)) + "/" + p.Protocol }

// A Binding is an address and port of the host, in Docker's words (Engine API, PortBinding).
type Binding struct {
	HostIP   string `json:"HostIp"`
	HostPort string
}

// Bindings are the host's sides of p: a port of all addresses has one of each family.
func (p Port) Bindings() []Binding {
	port := span(int(p.HostPort), int(max(p.HostPort, p.HostLast)))
	if p.HostIP.IsValid() {
		return []Binding{{p.HostIP.String(), port}}
	}
	return []Binding{{"0.0.0.0", port}, {"::", port}}
}

// String is the address and port, as 0.0.0.0:80 or [::]:80.
func (b Binding) String() string {
	if strings.Contains(b.HostIP, ":") {
		return "[" + b.HostIP + "]:" + b.HostPort
	}
	return b.HostIP + ":" + b.HostPort
}

// PortMap is what leads to each of the container's ports, as 80/tcp; nil to
// one that is only exposed.
func PortMap(published []Port, exposed []string) map[string][]Binding {
	m := map[string][]Binding{}
	for _, e := range exposed {
		m[e] = nil
	}
	for _, p := range published {
		m[p.Inside()] = append(m[p.Inside()], p.Bindings()...)
	}
	return m
}

// A mapping is one end of a line of ports in a listing.
type mapping struct {
	host               Binding // "" for what is only exposed
	hostPort, port     int
	protocol           string
	hostLast, portLast int
}

// PortsText lists ports as Docker's ps does, consecutive ones as a range.
func PortsText(published []Port, exposed []string) string {
	if len(published)+len(exposed) == 0 {
		return ""
	}
	var texts []string
	for _, m := range fold(mappings(published, exposed)) {
		text := span(m.port, m.portLast) + "/" + m.protocol
		if m.host.HostIP != "" {
			m.host.HostPort = span(m.hostPort, m.hostLast)
			text = m.host.String() + "->" + text
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, ", ")
}

// mappings are all, in the order of a listing: by address, protocol and port,
// but what is only exposed last.
func mappings(published []Port, exposed []string) (list []mapping) {
	known := map[string]bool{}
	for _, p := range published {
		known[p.Inside()] = true
		for _, b := range p.Bindings() {
			list = append(list, mapping{b, int(p.HostPort), int(p.ContainerPort), p.Protocol, int(p.HostPort), int(p.ContainerPort)})
		}
	}
	for _, e := range exposed {
		if !known[e] {
			number, protocol, _ := strings.Cut(e, "/")
			n, _ := strconv.Atoi(number)
			list = append(list, mapping{port: n, portLast: n, protocol: protocol})
		}
	}
	slices.SortStableFunc(list, func(a, b mapping) int {
		if c := cmp.Compare(b.hostPort, a.hostPort); c != 0 && (a.hostPort == 0 || b.hostPort == 0) {
			return c
		}
		return cmp.Or(cmp.Compare(a.protocol, b.protocol), cmp.Compare(a.host.HostIP, b.host.HostIP),
			cmp.Compare(a.port, b.port), cmp.Compare(a.hostPort, b.hostPort))
	})
	return list
}

// fold joins mappings that go on where the one before ends.
func fold(list []mapping) (folded []mapping) {
	for _, m := range list {
		if n := len(folded) - 1; n >= 0 {
			f := &folded[n]
			onward := m.port == f.portLast+1 && (m.hostPort == f.hostLast+1 || m.hostPort == 0 && f.hostLast == 0)
			if onward && m.host.HostIP == f.host.HostIP && m.protocol == f.protocol {
				f.portLast, f.hostLast = m.port, m.hostPort
				continue
			}
		}
		folded = append(folded, m)
	}
	return folded
}

func span(first, last int) string {
	if first == last {
		return strconv.Itoa(first)
	}
	return strconv.Itoa(first) + "-" + strconv.Itoa(last)
}
