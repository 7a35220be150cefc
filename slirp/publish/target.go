package publish

import "net/netip"

// A Target is where a published port leads.
type Target struct {
	IP, IP6 netip.Addr // of the container; either may be the zero Addr
	Port    uint16

	// The gateway's addresses with the length of their subnet's prefix.
	Gateway, Gateway6 netip.Prefix
}

// For returns the container's address for a client, that of its family if there is one,
// and the address that the client has inside. That is its own, or the gateway's if the
// container could not answer it: that of a client on the host's loopback, or of the
// container's own network.
func (t Target) For(client netip.Addr) (to netip.AddrPort, appears netip.Addr) {
	ip, gateway := t.IP, t.Gateway.Addr()
	if client.Is6() && t.IP6.IsValid() || !ip.IsValid() {
		ip, gateway = t.IP6, t.Gateway6.Addr()
	}
	to = netip.AddrPortFrom(ip, t.Port)
	if ip.Is4() != client.Is4() || StaysInside(client) || t.Gateway.Masked().Contains(client) || t.Gateway6.Masked().Contains(client) {
		return to, gateway
	}
	return to, client
}

// Addresses that mean something else in the container than on the host.
var (
	thisNetwork = netip.MustParsePrefix("0.0.0.0/8")   // RFC 1122: connect(2) takes 0.0.0.0 for 127.0.0.1
	reserved    = netip.MustParsePrefix("240.0.0.0/4") // RFC 1112, with the broadcast address
	embedded    = netip.MustParsePrefix("::/96")       // RFC 4291: unspecified, loopback, IPv4-compatible
)

// StaysInside reports whether a means something else on the host than in the
// container, or many.
func StaysInside(a netip.Addr) bool {
	return a.IsLoopback() || a.IsUnspecified() || a.IsMulticast() || a.IsLinkLocalUnicast() || a.Is4In6() ||
		thisNetwork.Contains(a) || reserved.Contains(a) || embedded.Contains(a)
}
