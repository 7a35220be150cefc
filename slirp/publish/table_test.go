package publish

import (
	"net/netip"
	"syscall"
	"testing"
)

func TestPortErrorsSayTheWayOut(t *testing.T) {
	for _, tc := range []struct {
		err        *PortError
		text, hint string
	}{
		{&PortError{"tcp", netip.MustParseAddrPort("0.0.0.0:80"), syscall.EACCES},
			"port 0.0.0.0:80/tcp of the host is only for privileged programs",
			"publish port 8080 instead, or as root: sysctl net.ipv4.ip_unprivileged_port_start=80"},
		{&PortError{"udp", netip.MustParseAddrPort("127.0.0.1:5353"), syscall.EADDRINUSE},
			"port 127.0.0.1:5353/udp of the host is in use",
			"see who has it: ss -lpu 'sport = 5353'; or publish another one, or let rbox choose: -p 5353"},
	} {
		if got := tc.err.Error(); got != tc.text {
			t.Errorf("error %q, want %q", got, tc.text)
		}
		if got := tc.err.Hint(); got != tc.hint {
			t.Errorf("hint %q, want %q", got, tc.hint)
		}
	}
}

func TestTargetForClient(t *testing.T) {
	addr, prefix := netip.MustParseAddr, netip.MustParsePrefix
	gateway, gateway6 := prefix("10.0.2.2/24"), prefix("fd00::2/64")
	ip, ip6 := addr("10.0.2.100"), addr("fd00::100")
	both := Target{IP: ip, IP6: ip6, Port: 80, Gateway: gateway, Gateway6: gateway6}
	only4 := Target{IP: ip, Port: 80, Gateway: gateway}
	only6 := Target{IP6: ip6, Port: 80, Gateway6: gateway6}
	for name, tc := range map[string]struct {
		target          Target
		client, to, may netip.Addr
	}{
		"its own":              {both, addr("203.0.113.7"), ip, addr("203.0.113.7")},
		"its own, IPv6":        {both, addr("2001:db8::7"), ip6, addr("2001:db8::7")},
		"loopback":             {both, addr("127.0.0.1"), ip, gateway.Addr()},
		"loopback, IPv6":       {both, addr("::1"), ip6, gateway6.Addr()},
		"of the subnet":        {both, addr("10.0.2.100"), ip, gateway.Addr()},
		"of the subnet, IPv6":  {both, addr("fd00::9"), ip6, gateway6.Addr()},
		"link-local":           {both, addr("fe80::1"), ip6, gateway6.Addr()},
		"IPv6 to one of IPv4":  {only4, addr("2001:db8::7"), ip, gateway.Addr()},
		"IPv4 to one of IPv6":  {only6, addr("203.0.113.7"), ip6, gateway6.Addr()},
		"IPv6, the only one":   {only6, addr("2001:db8::7"), ip6, addr("2001:db8::7")},
		"no address to appear": {Target{IP: ip, Port: 80}, addr("127.0.0.1"), ip, netip.Addr{}},
	} {
		t.Run(name, func(t *testing.T) {
			to, appears := tc.target.For(tc.client)
			if to != netip.AddrPortFrom(tc.to, 80) || appears != tc.may {
				t.Errorf("%s is sent to %s as %s, want %s as %s", tc.client, to, appears, tc.to, tc.may)
			}
		})
	}
}
