package main

import (
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"

	"rbox/rootfs/image"
	"rbox/slirp"
	"rbox/slirp/network"
	"rbox/userns/container"
	"rbox/userns/stage"
)

// onNetworks is an App of a host with one address, 192.0.2.7, and the networks
// web, within (which is internal) and six.
func onNetworks(t *testing.T) *App {
	t.Helper()
	app := &App{Root: t.TempDir(), around: &slirp.Surroundings{
		Address: netip.MustParseAddr("192.0.2.7"), Routes: []netip.Prefix{netip.MustParsePrefix("10.0.2.0/24"), netip.MustParsePrefix("192.0.2.0/24")},
	}}
	for name, p := range map[string]slirp.Plan{
		"web": {IPv4Only: true, Subnet: netip.MustParsePrefix("10.89.0.0/24")}, "within": {IPv4Only: true, Internal: true, Subnet: netip.MustParsePrefix("10.89.1.0/24")},
		"six": {Subnet: netip.MustParsePrefix("10.89.6.0/24"), Subnet6: netip.MustParsePrefix("fd06::/64")},
	} {
		if _, err := app.Networks().Create(network.Network{Name: name, Plan: p}, nil); err != nil {
			t.Fatal(err)
		}
	}
	return app
}

// networked is the configuration of a container that was made by these flags.
func networked(t *testing.T, app *App, line string, exposed ...string) (c container.Config, err error) {
	t.Helper()
	run := new(RunCmd)
	if !quickParse(run, append(strings.Fields(line), "alpine")) {
		t.Fatalf("%s: not the quick way", line)
	}
	if err := run.checkNetwork(); err != nil {
		return c, err
	}
	c = container.Config{ID: strings.Repeat("c0", 32), Name: "box", Plan: stage.Plan{Hostname: "c0c0c0c0c0c0"}}
	c.Options.Network, c.Options.AddHost = run.choice.Text(), run.AddHost
	c.Plan.Namespaces.HostNetwork = run.choice.Kind == slirp.Host
	from := image.ContainerConfig{ExposedPorts: map[string]struct{}{}}
	for _, port := range exposed {
		from.ExposedPorts[port] = struct{}{}
	}
	err = run.network(app, &c, ids{}, from)
	return c, err
}

func file(c container.Config, target string) string {
	for _, f := range c.Plan.Files {
		if f.Target == target {
			return string(f.Text)
		}
	}
	return "no such file"
}

const localhost = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"

func TestHostsFile(t *testing.T) {
	own, _ := os.ReadFile("/etc/hosts")
	for line, want := range map[string]string{
		"--network none --add-host a:1.2.3.4 --add-host b:[::1] --add-host c=::2": localhost + "127.0.0.1\tc0c0c0c0c0c0\n1.2.3.4\ta\n::1\tb\n::2\tc\n",
		"--network host --add-host a:1.2.3.4":                                     string(own) + "1.2.3.4\ta\n",
		"--network host --add-host a:host-gateway":                                string(own) + "127.0.0.1\ta\n",
		"--network private --add-host a:host-gateway":                             localhost + "192.0.2.7\thost.containers.internal host.docker.internal\n192.0.2.7\ta\n",
		"--network private:host-loopback":                                         localhost + "10.0.3.2\thost.containers.internal host.docker.internal\n",
		"--network within":                                                        localhost,
		"--network within --network web":                                          localhost + "192.0.2.7\thost.containers.internal host.docker.internal\n",
	} {
		if c, err := networked(t, onNetworks(t), line); err != nil || file(c, hostsPath) != want {
			t.Errorf("%s: %q, %v; want %q", line, file(c, hostsPath), err, want)
		}
	}
}

func TestResolvFile(t *testing.T) {
	own, _ := os.ReadFile("/etc/resolv.conf")
	host := slirp.ParseResolvConf(own)
	with := func(servers string, search, options []string) string {
		return string(slirp.Resolver{Servers: strings.Fields(servers), Search: search, Options: options}.Text())
	}
	inside := append([]string{"rbox.internal"}, host.Search...)
	for line, want := range map[string]string{
		"--network none":                                       string(own),
		"--network host --dns 1.1.1.1 --dns ::1":               with("1.1.1.1 ::1", host.Search, host.Options),
		"--network none --dns-search a.b --dns-option ndots:2": with(strings.Join(host.Servers, " "), []string{"a.b"}, []string{"ndots:2"}),
		"--network private":                                    with("10.0.3.3", host.Search, host.Options),
		"--network private --dns 1.1.1.1 --dns-search .":       with("1.1.1.1", nil, host.Options),
		"--network private --dns 127.0.0.1":                    with("10.0.3.3", host.Search, host.Options),
		"--network web --dns 1.1.1.1":                          with("10.89.0.1", inside, host.Options),
		"--network within --network web --dns-search a":        with("10.89.0.1", []string{"rbox.internal", "a"}, host.Options),
		"--network within":                                     with("10.89.1.1", inside, host.Options),
	} {
		if c, err := networked(t, onNetworks(t), line); err != nil || file(c, resolvPath) != want {
			t.Errorf("%s: %q, %v; want %q", line, file(c, resolvPath), err, want)
		}
	}
}

func TestNetworksOfAContainer(t *testing.T) {
	for line, want := range map[string]string{
		"--network none":                       "",
		"--network private -p 8080:80":         "private 10.0.3.0/24 10.0.3.100 [box c0c0c0c0c0c0] 8080->80/tcp",
		"--network web --network-alias db":     "web 10.89.0.0/24  [box c0c0c0c0c0c0 db] ",
		"--network web -h www":                 "web 10.89.0.0/24  [box c0c0c0c0c0c0 www] ",
		"--network web --ip 10.89.0.9 -P":      "web 10.89.0.0/24 10.89.0.9 [box c0c0c0c0c0c0] 0->53/udp 0->80/tcp",
		"--network within --network web -p 80": "web 10.89.0.0/24  [box c0c0c0c0c0c0] 0->80/tcp, within 10.89.1.0/24  [box c0c0c0c0c0c0] ",
		"--network six:ip6=fd06::9":            "six 10.89.6.0/24  [box c0c0c0c0c0c0] ",
	} {
		c, err := networked(t, onNetworks(t), line, "80/tcp", "53/udp", "what")
		var got []string
		for _, r := range c.Networks {
			var ports []string
			for _, p := range r.Endpoint.Ports {
				ports = append(ports, strings.TrimPrefix(slirp.PortsText([]slirp.Port{{HostIP: netip.IPv4Unspecified(), HostPort: p.HostPort, ContainerPort: p.ContainerPort, Protocol: p.Protocol}}, nil), "0.0.0.0:"))
			}
			got = append(got, strings.Join([]string{
				container.RequestName(r), r.Plan.Subnet.String(), addressText(r.Endpoint.IP), "[" + strings.Join(r.Endpoint.Names, " ") + "]", strings.Join(ports, " "),
			}, " "))
		}
		if text := strings.Join(got, ", "); err != nil || text != want {
			t.Errorf("%s: %q, %v; want %q", line, text, err, want)
		}
		if want := []string{"53/udp", "80/tcp"}; !reflect.DeepEqual(c.Options.Exposed, want) {
			t.Errorf("%s: exposed %q", line, c.Options.Exposed)
		}
	}
}

func TestNetworkRefusals(t *testing.T) {
	for line, want := range map[string]string{
		"--network nowhere":                                 "no such network: nowhere",
		"--network private:subnet=192.0.2.0/25":             "--network private: this host has routes into the subnet 192.0.2.0/25",
		"--network web --ip 10.90.0.1":                      "10.90.0.1 is no address of network web, whose subnet is 10.89.0.0/24",
		"--network web:ip=10.89.0.1":                        "10.89.0.1 is the gateway of network web",
		"--network web --ip6 fd06::9":                       "network web has no IPv6: fd06::9",
		"--network none --add-host a:host-gateway":          "--add-host a:host-gateway: the container has no way to this host",
		"--network within --add-host a:host-gateway":        "--add-host a:host-gateway: the container has no way to this host",
		"--network container:x --dns 1.1.1.1":               "--dns: conflicts with --network container:x",
		"--network container:x --add-host a:1.2.3.4":        "--add-host: conflicts with --network container:x",
		"--network container:x --expose 80":                 "--expose: conflicts with --network container:x",
		"--network private --expose 80/x":                   `--expose 80/x: "x" is not a protocol: there are tcp and udp`,
		"--network none --add-host a":                       "--add-host a: want NAME:IP",
		"--network none --add-host :1.2.3.4":                "--add-host :1.2.3.4: want NAME:IP",
		"--network none --add-host a:b":                     `--add-host a:b: "b" is not an IP address`,
		"--network private --dns example.org":               "--dns example.org: not an IP address",
		"--network private --network-alias x":               "--network-alias x: a private network has one container, with an address of its own choice",
		"--network host -p 80:80":                           "-p: conflicts with --network host: the container's ports are the host's",
		"--network private -p 80:80/sctp":                   "-p 80:80/sctp: a user-mode network has no SCTP: there are tcp and udp",
		"--network private -p 8080:80 -p 8080:81":           "-p 8080:81: port 8080/tcp of the host leads to 80/tcp already",
		"--network private --mac-address 01:00:00:00:00:00": `--mac-address 01:00:00:00:00:00: "01:00:00:00:00:00" is not an Ethernet address of an interface, as 02:42:ac:11:00:02 is`,
		"--network private --network web":                   "--network web: conflicts with --network private",
	} {
		if _, err := networked(t, onNetworks(t), line); text(err) != want {
			t.Errorf("%s: %q; want %q", line, text(err), want)
		}
	}
}

// What was chosen for one start is chosen anew for the next, as far as it no
// longer holds, and the name of a renamed container is its new one.
func TestRenewNetworks(t *testing.T) {
	app := onNetworks(t)
	c, err := networked(t, app, "--network private -p 80:80 -h www")
	if err != nil {
		t.Fatal(err)
	}
	app.around.Routes = []netip.Prefix{netip.MustParsePrefix("10.0.3.0/24")}
	if err := app.settleNetworks(&c, "new"); err != nil {
		t.Fatal(err)
	}
	if r := c.Networks[0]; r.Plan.Subnet.String() != "10.0.2.0/24" || r.Endpoint.IP.String() != "10.0.2.100" || strings.Join(r.Endpoint.Names, " ") != "new c0c0c0c0c0c0 www" {
		t.Errorf("%+v", r)
	}
}

func TestPortBindings(t *testing.T) {
	c, err := networked(t, onNetworks(t), "--network private -p 127.0.0.1:8080:80 -p 81 -P", "80/tcp", "9/tcp")
	want := map[string][]slirp.Binding{"80/tcp": {{HostIP: "127.0.0.1", HostPort: "8080"}}}
	if got := portBindings(c); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v", got, err)
	}
}
