package slirp

import (
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

func port(host, inside uint16, protocol string) Port {
	return Port{HostPort: host, ContainerPort: inside, Protocol: protocol}
}

func portAt(ip string, host, inside uint16, protocol string) Port {
	return Port{HostIP: netip.MustParseAddr(ip), HostPort: host, ContainerPort: inside, Protocol: protocol}
}

func TestParseMode(t *testing.T) {
	named := func(name string, e Endpoint) Mode {
		return Mode{Kind: Named, Request: Request{Plan: Plan{Name: name}, Endpoint: e}}
	}
	private := func(p Plan) Mode { return Mode{Kind: Private, Request: Request{Plan: p}} }
	for text, want := range map[string]Mode{
		"none": {Kind: None}, "host": {Kind: Host}, "container:web": {Kind: Container, Of: "web"},
		"ns:/proc/1/ns/net": {Kind: Path, Of: "/proc/1/ns/net"},
		"private":           private(Plan{}), "bridge": private(Plan{}), "default": private(Plan{}),
		"private:host-loopback,mtu=1500,driver=embedded,link=veth": private(Plan{HostLoopback: true, MTU: 1500, Driver: "embedded", Link: "veth"}),
		"slirp4netns": private(Plan{Driver: "slirp4netns"}), "pasta": private(Plan{Driver: "pasta"}),
		"slirp4netns:allow_host_loopback=true,cidr=10.9.0.0/24,enable_ipv6=false,port_handler=rootlesskit": private(Plan{
			Driver: "slirp4netns", HostLoopback: true, Subnet: netip.MustParsePrefix("10.9.0.0/24"), IPv4Only: true,
		}),
		"pasta:--mtu,1400,--map-gw,-4,-T,53":                private(Plan{Driver: "pasta", MTU: 1400, HostLoopback: true, IPv4Only: true, Options: []string{"-T", "53"}}),
		"private:mac=02:42:AC:11:00:02,interface_name=net0": {Kind: Private, Request: Request{Endpoint: Endpoint{MAC: "02:42:ac:11:00:02", Interface: "net0"}}},
		"web": named("web", Endpoint{}),
		"web:ip=10.89.0.9,ip6=fd12::9,mac=02-42-ac-11-00-02,alias=a,alias=b,interface_name=x": named("web", Endpoint{
			IP: netip.MustParseAddr("10.89.0.9"), IP6: netip.MustParseAddr("fd12::9"), MAC: "02:42:ac:11:00:02", Names: []string{"a", "b"}, Interface: "x",
		}),
		"name=web,alias=a,mac-address=02:42:ac:11:00:02,driver-opt=com.docker.network.endpoint.ifname=y": named("web", Endpoint{Names: []string{"a"}, MAC: "02:42:ac:11:00:02", Interface: "y"}),
	} {
		if got, err := ParseMode(text); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v; want %+v", text, got, err, want)
		}
	}
	for text, why := range map[string]string{
		"": "no network", "a b": "no network", "-x": "no network", "none:x": "no options", "container:": "missing", "container": "missing", "ns:net": "missing",
		"private:speed=9": "speed=9: there is no such option", "private:mtu=9": "mtu=9: an MTU is 1280 to 65520 bytes", "private:ip=10.0.2.5": "address of its own choice",
		"private:driver=vde": "driver=vde: there is no such driver", "private:link=wire": "no such link", "private:host-loopback=maybe": "neither true nor false",
		"private:subnet=10.0.2.0/30": "8 to 25 bits", "web:ip=fd00::1": "not an IPv4 address", "web:ip6=10.0.0.1": "not an IPv6", "web:ip=127.0.0.1": "not an IPv4",
		"web:mac=01:00:5e:00:00:01": "not an Ethernet address", "web:mac=2:4:ac:11:00:02": "not an Ethernet", "web:alias=a_b..c": "not a name", "web:interface_name=lo": "not a name for an interface",
		"web:mtu=1500": "no such option", "pasta:--mtu": "an MTU is", "name=host,ip=1.2.3.4": "no options", "name=name=a": "no network",
		"web:interface_name=averylonginterfacename": "not a name for an interface", strings.Repeat("a", 64): "no network",
	} {
		_, err := ParseMode(text)
		if err == nil || !strings.Contains(err.Error(), why) || !strings.HasPrefix(err.Error(), "--network "+text+": ") && !strings.HasPrefix(text, "name=") {
			t.Errorf("%s: %v; want %q", text, err, why)
		}
	}
}

func TestParsePublish(t *testing.T) {
	for text, want := range map[string][]Port{
		"80": {port(0, 80, "tcp")}, "8080:80": {port(8080, 80, "tcp")}, "8080:80/udp": {port(8080, 80, "udp")}, "53:53/UDP": {port(53, 53, "udp")},
		":80": {port(0, 80, "tcp")}, "0:80": {port(0, 80, "tcp")}, "127.0.0.1:8080:80": {portAt("127.0.0.1", 8080, 80, "tcp")}, "127.0.0.1::80": {portAt("127.0.0.1", 0, 80, "tcp")},
		"[::1]:8080:80": {portAt("::1", 8080, 80, "tcp")}, "[::]::80/udp": {portAt("::", 0, 80, "udp")}, "0.0.0.0:1:1": {portAt("0.0.0.0", 1, 1, "tcp")},
		"8000-8002:80-82": {port(8000, 80, "tcp"), port(8001, 81, "tcp"), port(8002, 82, "tcp")},
		"8000-8001:80":    {{HostPort: 8000, HostLast: 8001, ContainerPort: 80, Protocol: "tcp"}},
		"80-81":           {port(0, 80, "tcp"), port(0, 81, "tcp")}, "127.0.0.1:65534-65535:1-2/udp": {portAt("127.0.0.1", 65534, 1, "udp"), portAt("127.0.0.1", 65535, 2, "udp")},
		"[::ffff:127.0.0.1]:1:1": {portAt("127.0.0.1", 1, 1, "tcp")},
	} {
		if got, err := ParsePublish(text); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v; want %+v", text, got, err, want)
		}
	}
	for text, why := range map[string]string{
		"": `"" is not a port`, "0": "not a port", "80:0": "not a port", "65536:80": "not a port", "a:80": `"a" is not a port`, "8080:": "not a port",
		"80/sctp": "no SCTP", "80/icmp": "not a protocol", "80-81:80-90": "2 ports of the host for 11",
		"81-80": "ends before it begins", "::1:80:80": `"" is not an IP address`, "host:80:80": `"host" is not an IP address`, "[::1]80:80": "not an IP address", "1:2:3:4": "not an IP", "[]:80:80": "not an IP", "1.2.3.4:80:80:80": "not a port",
		"[fe80::1%eth0]:80:80": "not an IP", "-1:80": "not a port", "+80": "not a port", "80-": "not a port",
	} {
		_, err := ParsePublish(text)
		if err == nil || !strings.Contains(err.Error(), why) || !strings.HasPrefix(err.Error(), "-p "+text+": ") {
			t.Errorf("%s: %v; want %q", text, err, why)
		}
	}
}

func TestParseExposed(t *testing.T) {
	for text, want := range map[string]string{"80": "80/tcp", "80-82/udp": "80/udp 81/udp 82/udp", "9/sctp": "9/sctp"} {
		if got, err := ParseExposed(text); err != nil || strings.Join(got, " ") != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "x", "80/", "8080:80", "0"} {
		if got, err := ParseExposed(text); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func TestChoose(t *testing.T) {
	for name, tc := range map[string]struct {
		flags   Flags
		want    string // text, then of each request its names, address, MAC address, interface and ports
		wantErr string
	}{
		"private":   {flags: Flags{Network: []string{"bridge"}, MAC: "02:00:00:00:00:01"}, want: "private;   02:00:00:00:00:01 eth0"},
		"container": {flags: Flags{Network: []string{"container:x"}}, want: "container:x"},
		"ports": {
			flags: Flags{Network: []string{"private"}, Publish: []string{"8080:80", "8080:80", "8080:80/udp", "127.0.0.1:90:90", "127.0.0.2:90:90", "80", "80"}},
			want:  "private;    eth0 8080>80/tcp 8080>80/udp 127.0.0.1:90>90/tcp 127.0.0.2:90>90/tcp 0>80/tcp",
		},
		"all ports": {
			flags: Flags{Network: []string{"private"}, Publish: []string{"8080:80"}, PublishAll: true, Exposed: []string{"80/tcp", "53/udp", "9/sctp"}},
			want:  "private;    eth0 8080>80/tcp 0>53/udp",
		},
		"named": {
			flags: Flags{Network: []string{"web:alias=z,ip=10.0.0.9", "db:interface_name=eth0"}, Alias: []string{"a", "z"}, Publish: []string{"1:1"}},
			want:  "web,db; a,z 10.0.0.9  eth1 1>1/tcp; a,z   eth0",
		},
		"an address": {flags: Flags{Network: []string{"web"}, IP: "10.0.0.7"}, want: "web;  10.0.0.7  eth0"},

		"two modes":          {flags: Flags{Network: []string{"host", "web"}}, wantErr: "--network web: conflicts with --network host"},
		"two modes, named":   {flags: Flags{Network: []string{"web", "none"}}, wantErr: "--network none: conflicts with --network web"},
		"twice":              {flags: Flags{Network: []string{"web", "web:ip=1.2.3.4"}}, wantErr: "--network web:ip=1.2.3.4: the network is given twice"},
		"port of the host":   {flags: Flags{Network: []string{"host"}, Publish: []string{"80:80"}}, wantErr: "-p: conflicts with --network host: the container's ports are the host's"},
		"port of none":       {flags: Flags{Network: []string{"none"}, PublishAll: true}, wantErr: "-P: conflicts with --network none"},
		"port of another":    {flags: Flags{Network: []string{"container:x"}, Publish: []string{"80"}}, wantErr: "-p: conflicts with --network container:x"},
		"private address":    {flags: Flags{Network: []string{"private"}, IP: "10.0.2.9"}, wantErr: "--ip 10.0.2.9: a private network has one container, with an address of its own choice"},
		"private alias":      {flags: Flags{Network: []string{"private"}, Alias: []string{"x"}}, wantErr: "--network-alias x: a private network"},
		"host's address":     {flags: Flags{Network: []string{"host"}, IP6: "fd00::1"}, wantErr: "--ip6: conflicts with --network host"},
		"whose address":      {flags: Flags{Network: []string{"a", "b"}, MAC: "02:00:00:00:00:01"}, wantErr: "--mac-address 02:00:00:00:00:01: which of 2 networks"},
		"a wrong address":    {flags: Flags{Network: []string{"a"}, IP: "fd00::1"}, wantErr: `--ip fd00::1: "fd00::1" is not an IPv4 address`},
		"one port for two":   {flags: Flags{Network: []string{"a"}, Publish: []string{"8080:80", "8080:81"}}, wantErr: "-p 8080:81: port 8080/tcp of the host leads to 80/tcp already"},
		"one port, any host": {flags: Flags{Network: []string{"a"}, Publish: []string{"127.0.0.1:8080:80", "0.0.0.0:8080:81"}}, wantErr: "leads to 80/tcp already"},
		"one interface":      {flags: Flags{Network: []string{"a:interface_name=x", "b:interface_name=x"}}, wantErr: "another network's interface has that name"},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := tc.flags.Choose()
			if tc.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tc.wantErr) || !errors.As(err, new(*InputError)) {
					t.Errorf("%v; want %q", err, tc.wantErr)
				}
				return
			}
			if got := describe(c); err != nil || got != tc.want {
				t.Errorf("%q, %v; want %q", got, err, tc.want)
			}
		})
	}
}

func describe(c Choice) string {
	text := c.Text()
	for _, r := range c.Requests {
		e, ip := r.Endpoint, ""
		if e.IP.IsValid() {
			ip = e.IP.String()
		}
		text += "; " + strings.Join([]string{strings.Join(e.Names, ","), ip, e.MAC, e.Interface}, " ")
		for _, p := range e.Ports {
			b := p.Bindings()[0]
			host := b.HostPort
			if p.HostIP.IsValid() {
				host = b.String()
			}
			text += " " + host + ">" + p.Inside()
		}
	}
	return text
}

func TestPortsText(t *testing.T) {
	local := "127.0.0.1"
	for name, tc := range map[string]struct {
		ports   []Port
		exposed []string
		want    string
	}{
		"none":           {want: ""},
		"all addresses":  {[]Port{port(8080, 80, "tcp")}, nil, "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"},
		"one address":    {[]Port{portAt(local, 8080, 80, "tcp")}, []string{"80/tcp"}, "127.0.0.1:8080->80/tcp"},
		"IPv6":           {[]Port{portAt("::1", 53, 53, "udp")}, nil, "[::1]:53->53/udp"},
		"a range":        {[]Port{portAt(local, 8001, 81, "tcp"), portAt(local, 8000, 80, "tcp"), portAt(local, 8002, 82, "tcp")}, nil, "127.0.0.1:8000-8002->80-82/tcp"},
		"not a range":    {[]Port{portAt(local, 8000, 80, "tcp"), portAt(local, 8005, 81, "tcp")}, nil, "127.0.0.1:8000->80/tcp, 127.0.0.1:8005->81/tcp"},
		"two to one":     {[]Port{portAt(local, 81, 80, "tcp"), portAt(local, 80, 80, "tcp")}, nil, "127.0.0.1:80->80/tcp, 127.0.0.1:81->80/tcp"},
		"exposed":        {[]Port{portAt(local, 80, 80, "tcp")}, []string{"80/tcp", "443/tcp", "444/tcp", "9/udp"}, "127.0.0.1:80->80/tcp, 443-444/tcp, 9/udp"},
		"both protocols": {[]Port{portAt(local, 53, 53, "udp"), portAt(local, 53, 53, "tcp")}, nil, "127.0.0.1:53->53/tcp, 127.0.0.1:53->53/udp"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := PortsText(tc.ports, tc.exposed); got != tc.want {
				t.Errorf("%q; want %q", got, tc.want)
			}
		})
	}
}

func TestPortMap(t *testing.T) {
	got := PortMap([]Port{port(8080, 80, "tcp"), portAt("127.0.0.1", 81, 80, "tcp")}, []string{"80/tcp", "9/udp"})
	want := map[string][]Binding{"80/tcp": {{"0.0.0.0", "8080"}, {"::", "8080"}, {"127.0.0.1", "81"}}, "9/udp": nil}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%v; want %v", got, want)
	}
}

func TestSettle(t *testing.T) {
	prefixes := func(texts ...string) (list []netip.Prefix) {
		for _, text := range texts {
			list = append(list, netip.MustParsePrefix(text))
		}
		return list
	}
	for name, tc := range map[string]struct {
		plan   Plan
		routes []netip.Prefix
		want   string
	}{
		"at leisure":   {want: "10.0.2.0/24 10.0.2.2 10.0.2.3 10.0.2.100 fd00::/64 fd00::2 fd00::3 fd00::100"},
		"in use":       {routes: prefixes("10.0.2.128/25", "10.0.3.0/24", "192.168.0.0/16", "fd00::/60"), want: "10.0.4.0/24 10.0.4.2 10.0.4.3 10.0.4.100 fd00:0:0:10::/64 fd00:0:0:10::2 fd00:0:0:10::3 fd00:0:0:10::100"},
		"all in use":   {routes: prefixes("10.0.0.0/8"), want: "10.0.2.0/24 10.0.2.2 10.0.2.3 10.0.2.100 fd00::/64 fd00::2 fd00::3 fd00::100"},
		"asked for":    {plan: Plan{Subnet: netip.MustParsePrefix("10.0.9.0/24"), IPv4Only: true}, routes: prefixes("10.0.8.0/24"), want: "10.0.9.0/24 10.0.9.2 10.0.9.3 10.0.9.100"},
		"no longer":    {plan: Plan{Subnet: netip.MustParsePrefix("10.0.9.0/24"), IPv4Only: true}, routes: prefixes("10.0.9.0/25"), want: "10.0.2.0/24 10.0.2.2 10.0.2.3 10.0.2.100"},
		"a small one":  {plan: Plan{Subnet: netip.MustParsePrefix("10.0.9.128/25"), IPv4Only: true}, want: "10.0.9.128/25 10.0.9.130 10.0.9.131 10.0.9.228"},
		"IPv4 routes6": {plan: Plan{IPv4Only: true}, routes: prefixes("fd00::/8"), want: "10.0.2.0/24 10.0.2.2 10.0.2.3 10.0.2.100"},
	} {
		t.Run(name, func(t *testing.T) {
			r := Request{Plan: tc.plan}
			r.Settle(tc.routes)
			p := r.Plan
			got := strings.Join([]string{p.Subnet.String(), p.Gateway.String(), p.DNS.String(), r.Endpoint.IP.String()}, " ")
			if p.Subnet6.IsValid() {
				got += " " + strings.Join([]string{p.Subnet6.String(), p.Gateway6.String(), p.DNS6.String(), r.Endpoint.IP6.String()}, " ")
			}
			if got != tc.want {
				t.Errorf("%s; want %s", got, tc.want)
			}
		})
	}
}

func TestNth(t *testing.T) {
	for _, tc := range []struct {
		prefix string
		n      uint32
		want   string
	}{{"10.0.0.0/16", 300, "10.0.1.44"}, {"10.0.0.0/30", 3, "10.0.0.3"}, {"10.0.0.0/30", 4, "invalid IP"}, {"255.255.255.0/24", 256, "invalid IP"}, {"fd00::/64", 1 << 31, "fd00::8000:0"}} {
		if got := Nth(netip.MustParsePrefix(tc.prefix), tc.n).String(); got != tc.want {
			t.Errorf("%d of %s: %s; want %s", tc.n, tc.prefix, got, tc.want)
		}
	}
	if got := Last(netip.MustParsePrefix("10.1.2.0/23")).String(); got != "10.1.3.255" {
		t.Error(got)
	}
}

// What the kernel tells of this host makes sense.
func TestLook(t *testing.T) {
	s, err := Look()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range s.Routes {
		if !p.IsValid() || p.Bits() == 0 {
			t.Errorf("a route to %v", p)
		}
	}
	if s.Address.IsLoopback() || s.Address.Is6() || s.Address6.IsLoopback() || s.Address6.Is4() {
		t.Errorf("%v and %v", s.Address, s.Address6)
	}
}

func FuzzParseMode(f *testing.F) {
	for _, text := range []string{"private:mtu=1500,host-loopback", "web:ip=10.89.0.9,alias=a", "name=web,driver-opt=a=b", "pasta:--mtu,1500", "ns:/x"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		m, err := ParseMode(text)
		if err == nil && m.Kind == Named && CheckName(m.Request.Plan.Name) != nil {
			t.Errorf("%q is a network's name", m.Request.Plan.Name)
		}
	})
}

// What is read can be written and read again.
func FuzzParsePublish(f *testing.F) {
	for _, text := range []string{"127.0.0.1:8000-8002:80-82/udp", "[::1]::80", "80", "1.2.3.4::5"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		ports, err := ParsePublish(text)
		if err != nil {
			return
		}
		for _, p := range ports {
			b := p.Bindings()[0]
			spec := b.HostPort + ":" + p.Inside()
			if p.HostIP.IsValid() {
				spec = b.String() + ":" + p.Inside()
			}
			if again, err := ParsePublish(spec); err != nil || len(again) != 1 || again[0] != p {
				t.Errorf("%q: %+v, written %q, read as %+v, %v", text, p, spec, again, err)
			}
		}
	})
}

func FuzzAttributes(f *testing.F) {
	f.Add([]byte{8, 0, 1, 0, 10, 0, 2, 15})
	f.Fuzz(func(t *testing.T, b []byte) {
		var s Surroundings
		var pair [2]int
		s.addRoute(b, &pair)
		s.addAddress(b, pair, &pair)
	})
}
