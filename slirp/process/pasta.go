package process

import (
	"fmt"
	"strings"

	"rbox/slirp"
)

// servePasta connects netns by pasta. Without -f it would go to the background,
// and live on if we were killed; with it, its pid file tells that it is ready.
func servePasta(netns int, r slirp.Request) (*served, error) {
	const pidFile = foreignDir + "/pid"
	ports, err := freePorts(r.Endpoint.Ports, false)
	if err != nil {
		return nil, err
	}
	r.Endpoint.Ports = ports
	if !hostRoutes6() {
		r = without6(r)
	}
	p, e := &r.Plan, &r.Endpoint
	args := []string{
		"-f", "-q", "-P", pidFile, "--netns-only", "--runas", "0", // root of our user namespace, not nobody
		"-I", e.Interface, "-m", fmt.Sprint(mtu(*p)),
		"-a", e.IP.String(), "-n", fmt.Sprint(p.Subnet.Bits()), "-g", p.Gateway.String(), "--dns-forward", p.DNS.String(),
		"-T", "none", "-U", "none",
	}
	if e.IP6.IsValid() {
		args = append(args, "-a", e.IP6.String(), "-g", p.Gateway6.String(), "--dns-forward", p.DNS6.String())
	} else {
		args = append(args, "-4")
	}
	if !p.HostLoopback {
		args = append(args, "--no-map-gw")
	}
	args = append(args, pastaPorts(ports)...)
	args = append(args, p.Options...)
	f := foreign{program: "pasta", args: append(args, "--netns", foreignNetns), ready: pidFile}
	return serveForeign(netns, f, r)
}

// pastaPorts are the arguments that publish ports.
func pastaPorts(ports []slirp.Port) (args []string) {
	published := map[string]bool{}
	for _, p := range ports {
		flag := map[string]string{"tcp": "-t", "udp": "-u"}[p.Protocol]
		published[flag] = true
		spec := fmt.Sprintf("%d:%d", p.HostPort, p.ContainerPort)
		if p.HostIP.IsValid() {
			spec = p.HostIP.String() + "/" + spec
		}
		args = append(args, flag, spec)
	}
	for _, flag := range []string{"-t", "-u"} {
		if !published[flag] {
			args = append(args, flag, "none")
		}
	}
	return args
}

// hostRoutes6 tells whether the host has a way out by IPv6, without which pasta
// answers nothing.
func hostRoutes6() bool {
	for _, line := range strings.Split(readText("/proc/net/ipv6_route"), "\n") {
		f := strings.Fields(line) // destination, its prefix length, source, its, next hop, metric, references, uses, flags, device
		if len(f) == 10 && strings.Trim(f[0], "0") == "" && f[1] == "00" && f[9] != "lo" {
			return true
		}
	}
	return false
}
