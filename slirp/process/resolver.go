package process

import (
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"rbox/slirp"
	"rbox/slirp/dns"
)

// domain is where the names of containers are: it is the first that a container
// searches, so that no other server is asked for them.
const domain = "rbox.internal"

// hostFile is the resolver configuration that containers share.
const hostFile = "/etc/resolv.conf"

// A resolver says whom to ask for one client.
type resolver struct {
	plan    slirp.Resolver
	sisters []string // directories of the other networks that it is on
}

// serveDNS answers queries that come to the gateway: from names, to which it adds those of
// this host, and for other names as resolverOf says for each client.
func (g *gateway) serveDNS(p slirp.Plan, names *dns.Names, resolverOf func(client netip.Addr) resolver) error {
	names.Add([]string{"host.containers.internal", "host.docker.internal"}, hostAddresses(p)...)
	host := dns.Follow(hostFile)
	server := &dns.Server{
		Names: names,
		Sisters: func(client netip.Addr, msg []byte) []byte {
			return askSisters(resolverOf(client).sisters, msg, p.Internal)
		},
	}
	if !p.Internal {
		server.Upstream = func(client netip.Addr) dns.Config {
			return upstream(host, resolverOf(client).plan)
		}
	}
	for _, addr := range []netip.Addr{p.DNS, p.DNS6} {
		if !addr.IsValid() {
			continue
		}
		where := netip.AddrPortFrom(addr, 53)
		packets, err := g.stack.ListenPacket(where)
		if err != nil {
			return fmt.Errorf("listen for DNS queries: %w", err)
		}
		streams, err := g.stack.Listen(where)
		if err != nil {
			return fmt.Errorf("listen for DNS queries: %w", err)
		}
		go server.ServePacket(packets)
		go server.ServeStream(streams)
	}
	g.dns = server
	return nil
}

// hostAddresses are those by which containers reach this host; none without a way out.
func hostAddresses(p slirp.Plan) []netip.Addr {
	if p.HostLoopback {
		return []netip.Addr{p.Gateway, p.Gateway6}
	}
	if p.Internal {
		return nil
	}
	around, err := slirp.Look()
	if err != nil {
		return nil // the names are in /etc/hosts, too
	}
	if p.IPv4Only || !p.Gateway6.IsValid() {
		return []netip.Addr{around.Address}
	}
	return []netip.Addr{around.Address, around.Address6}
}

// upstream is the host's configuration, or what was asked for in its place.
func upstream(host *dns.Host, r slirp.Resolver) dns.Config {
	c := host.Config()
	var servers []netip.Addr
	for _, s := range r.Servers {
		if addr, err := netip.ParseAddr(s); err == nil {
			servers = append(servers, addr)
		}
	}
	if len(servers) > 0 {
		c.Servers = servers
	}
	if len(r.Options) > 0 {
		c.Options = r.Options
	}
	return c
}

// sisterPatience bounds the wait for another network's process, which answers about its
// own names at once, and about others as a server on the Internet does.
const sisterPatience = 10 * time.Second

// askSisters asks the processes of other networks; nil: none knows. With out they may
// ask others: this network has no way out itself.
func askSisters(dirs []string, msg []byte, out bool) []byte {
	for _, dir := range dirs {
		if answer := askSister(dir, slirp.Call{Ask: msg}); answer != nil {
			return answer
		}
	}
	for _, dir := range dirs {
		if !out {
			break
		}
		if answer := askSister(dir, slirp.Call{Ask: msg, Out: true}); answer != nil {
			return answer
		}
	}
	return nil
}

func askSister(dir string, call slirp.Call) []byte {
	sock, err := slirp.Connect(dir)
	if err != nil {
		return nil // it is gone; its containers' monitors see to that
	}
	defer unix.Close(sock)
	patience := unix.NsecToTimeval(int64(sisterPatience))
	unix.SetsockoptTimeval(sock, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience)
	if slirp.Send(sock, call) != nil {
		return nil
	}
	var reply slirp.Reply
	if _, err := slirp.Receive(sock, &reply); err != nil {
		return nil
	}
	return reply.Answer
}

// answerSister answers what the process of another network asks.
func (g *gateway) answerSister(call slirp.Call) []byte {
	if g == nil {
		return nil
	}
	if answer := g.dns.Names.Answer(call.Ask); answer != nil || !call.Out || g.dns.Upstream == nil {
		return answer
	}
	return g.dns.Ask(call.Ask)
}
