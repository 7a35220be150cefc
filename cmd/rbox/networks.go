package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"rbox/rootfs/image"
	"rbox/slirp"
	"rbox/slirp/network"
	"rbox/userns/container"
	"rbox/userns/stage"
)

// defaultNetwork is what a container has that asks for none.
const defaultNetwork = string(slirp.Private)

// Networks is where the networks that users make are kept.
func (a *App) Networks() *network.Store {
	return &network.Store{Dir: filepath.Join(a.Root, "networks")}
}

// look looks at this host's routes and addresses, once. Without them a container
// gets the usual subnet.
func (a *App) look() slirp.Surroundings {
	if a.around == nil {
		around, err := slirp.Look()
		if err != nil {
			a.Notice("the host's routes: " + err.Error())
		}
		a.around = &around
	}
	return *a.around
}

// checkNetwork reads the flags that speak of networks.
func (c *RunCmd) checkNetwork() (err error) {
	exposed, err := c.exposed(nil)
	if err != nil {
		return err
	}
	if c.choice, err = c.networkFlags(exposed).Choose(); err != nil {
		return err
	}
	if c.choice.Kind == slirp.Container {
		for flag, given := range map[string][]string{"--add-host": c.AddHost, "--dns": c.DNS, "--dns-search": c.DNSSearch, "--dns-option": c.DNSOption, "--expose": c.Expose} {
			if len(given) > 0 {
				return &adviceError{fmt.Errorf("%s: conflicts with --network %s", flag, c.choice.Text()), "give it to the container whose network it is"}
			}
		}
	}
	return checkNames(c.AddHost, c.DNS)
}

func (c *RunCmd) networkFlags(exposed []string) slirp.Flags {
	f := slirp.Flags{
		Network: c.Network, Alias: c.NetworkAlias, IP: c.IP, IP6: c.IP6, MAC: c.MacAddress,
		Publish: c.Publish, PublishAll: c.PublishAll, Exposed: exposed,
	}
	if len(f.Network) == 0 {
		f.Network = []string{defaultNetwork}
	}
	return f
}

// exposed are the ports that --expose and the image name, in order. What an
// image says amiss is passed over.
func (c *RunCmd) exposed(fromImage map[string]struct{}) (all []string, err error) {
	for _, text := range c.Expose {
		ports, err := slirp.ParseExposed(text)
		if err != nil {
			return nil, err
		}
		all = append(all, ports...)
	}
	for text := range fromImage {
		ports, _ := slirp.ParseExposed(text)
		all = append(all, ports...)
	}
	slices.SortFunc(all, func(a, b string) int {
		numberA, protocolA, _ := strings.Cut(a, "/")
		numberB, protocolB, _ := strings.Cut(b, "/")
		return cmp.Or(cmp.Compare(len(numberA), len(numberB)), cmp.Compare(numberA, numberB), cmp.Compare(protocolA, protocolB))
	})
	return slices.Compact(all), nil
}

// hostGateway stands for this host in --add-host.
const hostGateway = "host-gateway"

// checkNames checks the addresses of --add-host and --dns.
func checkNames(add, dns []string) error {
	for _, entry := range add {
		name, ip, err := cutHost(entry)
		if err != nil || name == "" {
			return fmt.Errorf("--add-host %s: want NAME:IP", entry)
		}
		if _, err := netip.ParseAddr(ip); err != nil && ip != hostGateway {
			return fmt.Errorf("--add-host %s: %q is not an IP address", entry, ip)
		}
	}
	for _, server := range dns {
		if _, err := netip.ParseAddr(server); err != nil {
			return fmt.Errorf("--dns %s: not an IP address", server)
		}
	}
	return nil
}

// cutHost cuts NAME:IP or NAME=IP, the address perhaps in brackets.
func cutHost(entry string) (name, ip string, err error) {
	i := strings.IndexAny(entry, ":=")
	if i < 0 {
		return "", "", errors.New("no address")
	}
	return entry[:i], strings.Trim(entry[i+1:], "[]"), nil
}

// network decides the networks of a new container, and its files that tell of them.
func (c *RunCmd) network(app *App, config *container.Config, n ids, from image.ContainerConfig) (err error) {
	o := &config.Options
	o.DNS, o.Search, o.DNSOpts, o.PublishAll = c.DNS, c.DNSSearch, c.DNSOption, c.PublishAll
	if o.Exposed, err = c.exposed(from.ExposedPorts); err != nil {
		return err
	}
	choice, err := c.networkFlags(o.Exposed).Choose() // again, now that the image's ports are known
	if err != nil {
		return err
	}
	config.Networks = choice.Requests
	for i := range config.Networks {
		r := &config.Networks[i]
		if subnet := r.Plan.Subnet; slices.ContainsFunc(app.look().Routes, subnet.Overlaps) {
			return &adviceError{fmt.Errorf("--network %s: this host has routes into the subnet %s", choice.Text(), subnet), "leave the subnet out: one that is free is chosen"}
		}
		if err := app.holdNetwork(r.Plan.Name); err != nil {
			return err
		}
		if c.Hostname != "" {
			r.Endpoint.Names = append(r.Endpoint.Names, c.Hostname)
		}
		r.Plan.HostInstead = len(c.Network) == 0 && len(r.Endpoint.Ports) == 0
		if r.Plan.Name == "" && r.Plan.Driver == "" {
			r.Plan.Driver = os.Getenv("RBOX_NETWORK_DRIVER")
		}
	}
	if err := app.settleNetworks(config, config.Name); err != nil {
		return err
	}
	return app.networkFiles(config, n)
}

// holdNetwork sees to it that nobody removes a named network before config.json
// is there to keep it.
func (a *App) holdNetwork(name string) error {
	if name == "" {
		return nil
	}
	_, hold, err := a.Networks().Use(name)
	if err == nil {
		a.held = append(a.held, hold)
	}
	return err
}

// renewNetworks makes the networks of a container fit for this moment, and its
// files that tell of them.
func (a *App) renewNetworks(c *container.Config, home *container.Home, n ids) error {
	name := c.Name
	if info, err := home.Inspect(c.ID); err == nil {
		name, c.Networks = info.Name(), info.Networks()
	}
	if err := a.settleNetworks(c, name); err != nil {
		return err
	}
	return a.networkFiles(c, n)
}

// settleNetworks completes what the container, which is called name now, asks
// for: the addresses of its networks, and its names there.
func (a *App) settleNetworks(c *container.Config, name string) error {
	c.Networks = slices.Clone(c.Networks)
	for i := range c.Networks {
		r := &c.Networks[i]
		if r.Plan.Name == "" {
			r.Settle(a.look().Routes)
		} else if err := a.settleNamed(r); err != nil {
			return err
		}
		if len(c.Options.DNS) > 0 {
			r.Plan.Resolver.Servers = c.Options.DNS
		}
		r.Endpoint.Container = c.ID
		r.Endpoint.Names = containerNames(r.Endpoint.Names, c, name)
	}
	inOrder(c.Networks)
	return nil
}

// inOrder sorts the networks so that the first is the one that the container's
// default route leads to, whose ports are published and whose DNS server is
// asked: those that have a way out come before the others.
func inOrder(requests []slirp.Request) {
	if len(requests) < 2 {
		return
	}
	slices.SortStableFunc(requests, func(a, b slirp.Request) int {
		switch {
		case a.Plan.Internal == b.Plan.Internal:
			return 0
		case b.Plan.Internal:
			return -1
		}
		return 1
	})
	for i := range requests[1:] {
		if e := &requests[1+i].Endpoint; len(e.Ports) > 0 {
			requests[0].Endpoint.Ports, e.Ports = e.Ports, nil
		}
	}
}

// containerNames are by what others find the container: its name now, its
// short id, and what else it was given.
func containerNames(known []string, c *container.Config, name string) []string {
	names := []string{name, container.Short(c.ID)}
	for _, n := range known {
		if n != c.Name && !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	return names
}

// settleNamed takes a named network's plan, and checks the addresses that the
// container wants there.
func (a *App) settleNamed(r *slirp.Request) error {
	n, err := a.Networks().Get(r.Plan.Name)
	if err != nil {
		return err
	}
	r.Plan = n.Plan
	return network.CheckEndpoint(n.Plan, r.Endpoint)
}

// networkFiles writes /etc/hosts and /etc/resolv.conf into the container's plan.
// The container's own addresses come to the first when they are known.
func (a *App) networkFiles(c *container.Config, n ids) error {
	hosts, resolv, err := a.hostsFile(c), []byte(nil), error(nil)
	if n.peer.Config.ID != "" {
		hosts, resolv = peerFiles(n.peer)
	} else if hosts, err = a.addHosts(hosts, c); err != nil {
		return err
	} else {
		resolv = resolvFile(c)
	}
	files := slices.DeleteFunc(c.Plan.Files, func(f stage.File) bool { return f.Target == hostsPath || f.Target == resolvPath })
	c.Plan.Files = append(files, stage.File{Target: hostsPath, Text: hosts}, stage.File{Target: resolvPath, Text: resolv})
	return nil
}

const (
	hostsPath  = "/etc/hosts"
	resolvPath = "/etc/resolv.conf"
)

// peerFiles are both files of the container whose network is shared.
func peerFiles(peer container.Info) (hosts, resolv []byte) {
	for _, f := range peer.Config.Plan.Files {
		switch f.Target {
		case hostsPath:
			hosts = append(slices.Clone(f.Text), container.HostsLines(peer.Config.Plan.Hostname, peer.State.Networks)...)
		case resolvPath:
			resolv = f.Text
		}
	}
	return hosts, resolv
}

// hostsFile is /etc/hosts: this host's own with its network, else localhost,
// this host if there is a way to it, and the container if it has no address
// but that.
func (a *App) hostsFile(c *container.Config) []byte {
	if c.Plan.Namespaces.HostNetwork {
		if text, err := os.ReadFile(hostsPath); err == nil {
			return text
		}
	}
	var b bytes.Buffer
	b.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	if len(c.Networks) == 0 {
		fmt.Fprintf(&b, "127.0.0.1\t%s\n", c.Plan.Hostname)
	} else if host := a.hostAddress(c); host.IsValid() {
		fmt.Fprintf(&b, "%s\thost.containers.internal host.docker.internal\n", host)
	}
	return b.Bytes()
}

// hostAddress is the address by which the container reaches this host: of a
// network that lets it reach the host's loopback addresses, the gateway's; else
// the host's best one. The zero one: there is no way.
func (a *App) hostAddress(c *container.Config) netip.Addr {
	if c.Plan.Namespaces.HostNetwork {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	for _, r := range c.Networks {
		switch {
		case r.Plan.HostLoopback:
			return r.Plan.Gateway
		case r.Plan.Internal:
		case a.look().Address.IsValid():
			return a.look().Address
		case !r.Plan.IPv4Only && a.look().Address6.IsValid():
			return a.look().Address6
		}
	}
	return netip.Addr{}
}

// addHosts adds the lines of --add-host.
func (a *App) addHosts(hosts []byte, c *container.Config) ([]byte, error) {
	for _, entry := range c.Options.AddHost {
		name, ip, _ := cutHost(entry)
		if ip == hostGateway {
			host := a.hostAddress(c)
			if !host.IsValid() {
				return nil, &adviceError{fmt.Errorf("--add-host %s: the container has no way to this host", entry), "--network private:host-loopback"}
			}
			ip = host.String()
		}
		hosts = append(hosts, ip+"\t"+name+"\n"...)
	}
	return hosts, nil
}

// searchDomain is where the names of containers on named networks are found.
const searchDomain = "rbox.internal"

// resolvFile is /etc/resolv.conf: with networks of its own the DNS server that
// knows the containers there and asks the others; else the servers asked for, or
// the host's. Domains and options are those asked for, else the host's.
func resolvFile(c *container.Config) []byte {
	o := &c.Options
	text, _ := os.ReadFile(resolvPath)
	if len(o.DNS)+len(o.Search)+len(o.DNSOpts)+len(c.Networks) == 0 {
		return text
	}
	r := slirp.ParseResolvConf(text)
	if len(o.DNS) > 0 {
		r.Servers = o.DNS
	}
	if len(o.Search) > 0 {
		r.Search = slices.DeleteFunc(slices.Clone(o.Search), func(d string) bool { return d == "." })
	}
	if len(o.DNSOpts) > 0 {
		r.Options = o.DNSOpts
	}
	if len(c.Networks) > 0 {
		first := c.Networks[0].Plan
		if first.Name != "" {
			r.Search = append([]string{searchDomain}, r.Search...)
		}
		if first.Name != "" || !reachable(o.DNS) {
			r.Servers = []string{first.DNS.String()}
		}
	}
	return r.Text()
}

// reachable tells whether a container can ask the servers itself, for which they
// may not be on this host's loopback.
func reachable(servers []string) bool {
	return len(servers) > 0 && !slices.ContainsFunc(servers, func(s string) bool {
		a, err := netip.ParseAddr(s)
		return err != nil || a.IsLoopback()
	})
}

// shareNetwork takes the modes of --network that share one.
func (n *ids) shareNetwork(home *container.Home) error {
	mode, of, _ := strings.Cut(n.options.Network, ":")
	switch slirp.Kind(mode) {
	case slirp.Host:
		n.HostNetwork = true
	case slirp.Path:
		n.NetworkPath = of
	case slirp.Container:
		peer, err := n.join(home, &n.options.Network)
		if err != nil {
			return err
		}
		n.peer = peer
		other := peer.Config.Plan.Namespaces
		n.HostNetwork, n.NetworkPath = other.HostNetwork, other.NetworkPath
		if !n.HostNetwork && n.NetworkPath == "" {
			n.Joined = append(n.Joined, "net")
		}
	}
	return nil
}

// publishedPorts are those of all networks that the container is on.
func publishedPorts(info *container.Info) (ports []slirp.Port) {
	if info.Running {
		for _, a := range info.State.Networks {
			ports = append(ports, a.Ports...)
		}
	}
	return ports
}

// portsText lists the ports of a container that runs, published or only exposed.
func portsText(info *container.Info) string {
	if !info.Running || len(info.State.Networks) == 0 {
		return ""
	}
	return slirp.PortsText(publishedPorts(info), info.Config.Options.Exposed)
}

// networkMode is what --network asked for, the first if it did so often.
func networkMode(c container.Config) string {
	mode, _, _ := strings.Cut(c.Options.Network, ",")
	switch {
	case mode != "":
		return mode
	case c.Plan.Namespaces.HostNetwork:
		return string(slirp.Host)
	}
	return string(slirp.None)
}

// portBindings are the ports that -p asked for.
func portBindings(c container.Config) map[string][]slirp.Binding {
	m := map[string][]slirp.Binding{}
	if len(c.Networks) == 0 {
		return m
	}
	for _, p := range c.Networks[0].Endpoint.Ports {
		b := slirp.Binding{}
		if p.HostIP.IsValid() {
			b.HostIP = p.HostIP.String()
		}
		if p.HostPort != 0 {
			b.HostPort = p.Bindings()[0].HostPort
		} else if c.Options.PublishAll {
			continue
		}
		m[p.Inside()] = append(m[p.Inside()], b)
	}
	return m
}
