package tests

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// answer is what a server at addr says to one that connects, "" while there is none.
func answer(addr string) string {
	c, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return ""
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	text, _ := io.ReadAll(c)
	return string(text)
}

// Published ports lead to the container, and ps, port and inspect show them.
func TestPublishedPorts(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	fixed := closedPort(t)
	b.must("run", "-d", "--name", "web", "-p", "127.0.0.1:"+fixed+":80", "-p", "127.0.0.1::81", "alpine", "nc", "-lk", "-p", "80", "-e", "echo", "hello")
	if !eventually(10*time.Second, func() bool { return answer("127.0.0.1:"+fixed) == "hello\n" }) {
		t.Error("nobody answers at the published port")
	}
	chosen := strings.TrimPrefix(b.must("port", "web", "81/tcp"), "127.0.0.1:")
	for _, tc := range []struct {
		line string
		want want
	}{
		{"port web", want{stdout: "80/tcp -> 127.0.0.1:" + fixed + "\n81/tcp -> 127.0.0.1:" + chosen + "\n"}},
		{"port web 80", want{stdout: "127.0.0.1:" + fixed + "\n"}},
		{"port web 82", want{status: 125, stderr: `no public port '82/tcp' published for web`}},
		{"port web x", want{status: 125, stderr: `"x" is not a port`}},
		{"port", want{status: 125, stderr: `CONTAINER is missing`}},
		{"ps --format {{.Ports}}", want{stdout: fmt.Sprintf("127.0.0.1:%s->80/tcp, 127.0.0.1:%s->81/tcp\n", fixed, chosen)}},
		{"ps -q --no-trunc --filter publish=" + fixed, want{match: isID}},
		{"ps -q --no-trunc --filter expose=80-81/tcp --filter network=private", want{match: isID}},
		{"ps -q --filter publish=80", want{match: `^$`}},
		{"inspect -f '{{(index .NetworkSettings.Ports \"80/tcp\" 0).HostPort}}' web", want{stdout: fixed + "\n"}},
		{"inspect -f '{{(index .HostConfig.PortBindings \"80/tcp\" 0).HostIp}}' web", want{stdout: "127.0.0.1\n"}},
		{"inspect -f '{{.NetworkSettings.Networks.private.IPPrefixLen}} {{.NetworkSettings.SandboxKey}}' web", want{match: `^24 /proc/\d+/ns/net\n$`}},
		{"run --rm -p 127.0.0.1:" + fixed + ":80 alpine true", want{status: 125, stderr: `port 127\.0\.0\.1:` + fixed + `/tcp of the host is in use`}},
	} {
		tc.want.check(t, b.rbox(words(tc.line)...))
	}
	b.must("stop", "-t", "0", "web")
	want{match: `^\n$`}.check(t, b.rbox("ps", "-a", "--format", "{{.Ports}}"))
	want{stdout: "{} 127.0.0.1\n"}.check(t, b.rbox("inspect", "-f", `{{json .NetworkSettings.Ports}} {{(index .HostConfig.PortBindings "80/tcp" 0).HostIp}}`, "web"))
}

// Of a range of the host's for one of the container's ports a free one is taken.
func TestPublishedRange(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	first := busy.Addr().(*net.TCPAddr).Port
	last := min(first+50, 65535)
	span := fmt.Sprintf("127.0.0.1:%d-%d:80", first, last)
	for name, flags := range map[string]string{"one": "--network private", "two": "--network private", "slirp": "--network slirp4netns"} {
		b.must(append(append([]string{"run", "-d", "--name", name, "-p", span, "-p", span + "/udp"}, words(flags)...), "alpine", "sleep", "1000")...)
		var port int
		fmt.Sscanf(b.must("port", name, "80/tcp"), "127.0.0.1:%d", &port)
		if port <= first || port > last {
			t.Errorf("%s: of %s port %d was chosen", name, span, port)
		}
		want{stdout: fmt.Sprintf("%d-%d\n", first, last)}.check(t, b.rbox("inspect", "-f", `{{(index .HostConfig.PortBindings "80/tcp" 0).HostPort}}`, name))
	}
	all := fmt.Sprintf("127.0.0.1:%d-%d:80", first, first)
	want{status: 125, stderr: "in use"}.check(t, b.rbox("run", "--rm", "-p", all, "alpine", "true"))
}

// -P publishes what the image and --expose name; what is only exposed is listed, too.
func TestPublishAll(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	b.load("serves", alpineImage(t, v1.Config{Cmd: []string{"sleep", "1000"}, ExposedPorts: map[string]struct{}{"80/tcp": {}}}))
	b.must("run", "-d", "--name", "all", "-P", "--expose", "53/udp", "serves")
	want{match: `^53/udp -> 0\.0\.0\.0:\d+\n53/udp -> \[::\]:\d+\n80/tcp -> 0\.0\.0\.0:\d+\n80/tcp -> \[::\]:\d+\n$`}.check(t, b.rbox("port", "all"))
	b.must("run", "-d", "--name", "none", "serves")
	want{stdout: "80/tcp\n"}.check(t, b.rbox("ps", "--filter", "name=none", "--format", "{{.Ports}}"))
	want{stdout: `{"80/tcp":null}` + "\n"}.check(t, b.rbox("inspect", "-f", "{{json .NetworkSettings.Ports}}", "none"))
}

// What cannot be is refused before anything is made.
func TestNetworkFlagsThatConflict(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	for flags, stderr := range map[string]string{
		"-p 80:80 --network host":                  `-p: conflicts with --network host`,
		"-p 80:80 --network none":                  `-p: conflicts with --network none`,
		"-P --network container:x":                 `-P: conflicts with --network container:x`,
		"-p 80:80/sctp":                            `no SCTP`,
		"-p ::1:80:80":                             `an IPv6 address stands in brackets`,
		"-p 8080:80 -p 8080:81":                    `leads to 80/tcp already`,
		"--ip 10.0.2.9":                            `a private network has one container`,
		"--network none --network host":            `conflicts with --network none`,
		"--network none --add-host a:host-gateway": `no way to this host`,
		"--network nowhere":                        `hint: rbox network create nowhere`,
		"--network private:mtu=9":                  `mtu=9: an MTU is 1280 to 65520 bytes`,
		"--network ns:/proc/self/ns/net":           `only one that was made below rbox's user namespace`,
	} {
		want{status: 125, stderr: stderr}.check(t, b.rbox(words("run --rm "+flags+" alpine true")...))
	}
	want{match: `^$`}.check(t, b.rbox("ps", "-aq"))
}

// Networks are made, shown and removed; one that a container is to be on stays.
func TestNetworkCommands(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	b.steps([]step{
		{`network create --subnet 10.201.7.0/24 --ip-range 10.201.7.128/25 --label tier=front -o mtu=1500 front`, want{stdout: "front\n"}},
		{`network create front`, want{status: 125, stderr: `network front exists already`}},
		{`network create --ignore front`, want{stdout: "front\n"}},
		{`network create --subnet 10.201.0.0/16 other`, want{status: 125, stderr: `subnet 10\.201\.0\.0/16 overlaps 10\.201\.7\.0/24 of network front`}},
		{`network create host`, want{status: 125, stderr: `the name is a mode of --network`}},
		{`network create --gateway 10.9.9.1 other`, want{status: 125, stderr: `give the subnet, too`}},
		{`network create --ipv6 --internal back`, want{stdout: "back\n"}},
		{`network ls --format '{{.Name}} {{.Driver}} {{.IPv6}} {{.Internal}} {{.Label "tier"}}'`, want{stdout: "back bridge true true \nfront bridge false false front\n"}},
		{`network ls --filter label=tier=front --format '{{.Subnets}}'`, want{stdout: "10.201.7.0/24\n"}},
		{`network inspect -f '{{range .IPAM.Config}}{{.Subnet}} {{.Gateway}} {{.IPRange}}{{end}} {{json .Options}}' front`, want{stdout: "10.201.7.0/24 10.201.7.1 10.201.7.128/25 {\"mtu\":\"1500\"}\n"}},
		{`inspect -f '{{.Driver}} {{.Internal}}' back`, want{stdout: "bridge true\n"}},
		{`network exists front`, want{}},
		{`network exists nowhere`, want{status: 1}},
		{`create --name box --network front:ip=10.201.7.9 alpine true`, want{match: isID}},
		{`network rm front`, want{status: 125, stderr: `network is in use`}},
		{`network prune -f`, want{stdout: "Deleted Networks:\nback\n\n"}},
		{`network disconnect front box`, want{}},
		{`network disconnect front box`, want{status: 125, stderr: `box is not on network front`}},
		{`network disconnect -f front box`, want{}},
		{`network rm front nowhere`, want{status: 125, stdout: "front\n", stderr: `no such network: nowhere`}},
		{`network rm -f nowhere`, want{stdout: "nowhere\n"}},
	})
}
