package process

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"rbox/slirp"
	"rbox/slirp/stack"
)

// slirp6 is the one IPv6 network that slirp4netns has.
var slirp6 = netip.MustParsePrefix("fd00::/64")

// slirpAPI is the socket that takes requests for ports (slirp4netns(1), "API SOCKET").
const slirpAPI = foreignDir + "/api"

// serveSlirp4netns connects netns by slirp4netns. Clients of ports
// that it publishes itself appear as the gateway.
func serveSlirp4netns(netns int, r slirp.Request) (*served, error) {
	if r.Plan.Subnet6 != slirp6 {
		r = without6(r)
	}
	ports, err := freePorts(r.Endpoint.Ports, true)
	if err != nil {
		return nil, err
	}
	r.Endpoint.Ports = ports
	args := []string{"--ready-fd=3", "--netns-type=path", "--mtu=" + strconv.Itoa(mtu(r.Plan)), "--cidr=" + r.Plan.Subnet.String()}
	if !r.Plan.HostLoopback {
		args = append(args, "--disable-host-loopback")
	}
	if r.Plan.Subnet6.IsValid() {
		args = append(args, "--enable-ipv6")
	}
	if len(ports) > 0 {
		args = append(args, "--api-socket="+slirpAPI)
	}
	args = append(args, "--enable-sandbox", "--enable-seccomp", foreignNetns, r.Endpoint.Interface)
	f := foreign{program: "slirp4netns", args: args}
	f.then = func() error {
		for _, p := range ports {
			if err := forward(p, r.Endpoint.IP); err != nil {
				return err
			}
		}
		return nil
	}
	return serveForeign(netns, f, r)
}

// forward asks slirp4netns to make the port p lead to the container's address.
func forward(p slirp.Port, guest netip.Addr) error {
	api, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: slirpAPI, Net: "unix"})
	if err != nil {
		return err
	}
	defer api.Close()
	host := "0.0.0.0"
	if p.HostIP.IsValid() {
		host = p.HostIP.String()
	}
	request := map[string]any{"execute": "add_hostfwd", "arguments": map[string]any{
		"proto": p.Protocol, "host_addr": host, "host_port": p.HostPort, "guest_addr": guest.String(), "guest_port": p.ContainerPort,
	}}
	if err := json.NewEncoder(api).Encode(request); err != nil {
		return err
	}
	if err := api.CloseWrite(); err != nil {
		return err
	}
	var answer struct {
		Error *struct{ Desc string }
	}
	if err := json.NewDecoder(api).Decode(&answer); err != nil {
		return fmt.Errorf("publish port %d: %w", p.HostPort, err)
	}
	if answer.Error != nil {
		return fmt.Errorf("publish port %d: %s", p.HostPort, answer.Error.Desc)
	}
	return nil
}

// mtu is that of a network whose plan leaves it to the driver.
func mtu(p slirp.Plan) int {
	if p.MTU == 0 {
		return stack.MaxMTU
	}
	return p.MTU
}
