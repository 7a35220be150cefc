package tests

import (
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// serveName is a program that answers on port 80, over both families, with its
// container's name.
const serveName = "while true; do echo $(hostname) | nc -l -p 80; done"

// onNetworks starts a container that answers on port 80 and is called name.
func (b *box) onNetworks(name string, flags ...string) {
	b.t.Helper()
	b.must(append(append([]string{"run", "-d", "--name", name, "--hostname", name}, flags...), "alpine", "sh", "-c", serveName)...)
}

// hears tells what the container from is told on port 80 of to.
func (b *box) hears(from, to string) string {
	b.t.Helper()
	var got string
	eventually(10*time.Second, func() bool { // the server may be between two clients
		got = strings.TrimSpace(b.rbox("exec", from, "sh", "-c", "timeout 2 nc "+to+" 80 </dev/null 2>&1").stdout)
		return got != "" && !strings.HasPrefix(got, "nc:")
	})
	return got
}

// heard is what is told at addr, of this host.
func heard(addr string) string {
	c, err := net.DialTimeout("tcp", addr, 2*time.Second)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(2 * time.Second))
	told, _ := io.ReadAll(c)
	return strings.TrimSpace(string(told))
}

// reaches tells whether the container from reaches the address to at all.
func (b *box) reaches(from, to string) bool {
	return b.rbox("exec", from, "ping", "-c1", "-W1", to).status == 0
}

// networksInUse are the named networks that have something on this host.
func (b *box) networksInUse() []string {
	list, err := filepath.Glob(filepath.Join(b.root, "containers", "*", "networks", "*"))
	if err != nil {
		b.t.Fatal(err)
	}
	return list
}

// nothingLeft expects that the last container took all of its networks with it.
func (b *box) nothingLeft() {
	b.t.Helper()
	if !eventually(10*time.Second, func() bool { return len(b.running("rbox-network")) == 0 && len(b.networksInUse()) == 0 }) {
		b.t.Errorf("left: processes %v, %v", b.running("rbox-network"), b.networksInUse())
	}
}

func TestNamedNetwork(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.must("network", "create", "--ipv6", "a")
	b.must("network", "create", "b")
	b.onNetworks("one", "--network", "a", "--network-alias", "web", "-p", "127.0.0.1::80")
	b.onNetworks("two", "--network", "a", "--network-alias", "web", "--ip6", address6(b, "a", "77"))
	b.onNetworks("other", "--network", "b")
	for _, to := range []string{"one", "ONE", "one.rbox.internal"} {
		if got := b.hears("two", to); got != "one" {
			t.Errorf("%s: %q", to, got)
		}
	}
	if got := b.hears("one", "web"); got != "one" && got != "two" {
		t.Errorf("the shared alias: %q", got)
	}
	if got := b.must("exec", "one", "ping6", "-c1", "-W5", "two"); !strings.Contains(got, "::77") {
		t.Errorf("IPv6: %s", got)
	}
	if len(b.networksInUse()) != 2 || len(b.running("rbox-network")) != 2 {
		t.Errorf("one process each: %v, %v", b.running("rbox-network"), b.networksInUse())
	}
	var at string
	t.Run("published", func(t *testing.T) {
		at = strings.TrimSpace(strings.TrimPrefix(b.must("port", "one"), "80/tcp -> "))
		if !eventually(10*time.Second, func() bool { return heard(at) == "one" }) {
			t.Errorf("at %s: %q", at, heard(at))
		}
	})
	t.Run("isolated", func(t *testing.T) {
		ip := strings.TrimSpace(b.must("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "one"))
		if b.reaches("other", ip) {
			t.Error("a container of another network is reached")
		}
		if got := b.rbox("exec", "other", "nslookup", "one.rbox.internal"); got.status == 0 {
			t.Errorf("a name of another network is known: %s", got)
		}
	})
	t.Run("connected and disconnected", func(t *testing.T) {
		b.must("network", "connect", "--alias", "second", "b", "one")
		if got := b.hears("one", "other"); got != "other" {
			t.Errorf("to the new network: %q", got)
		}
		if got := b.hears("other", "second"); got != "one" {
			t.Errorf("from it: %q", got)
		}
		if got := b.hears("one", "two"); got != "two" {
			t.Errorf("to the first one: %q", got)
		}
		want{status: 125, stderr: "is on network b already"}.check(t, b.rbox("network", "connect", "b", "one"))
		b.must("network", "disconnect", "a", "one")
		if b.reaches("one", "two") || !b.reaches("one", "other") {
			t.Error("disconnected from a: it is on b only")
		}
		want{status: 125, stderr: "not on network a"}.check(t, b.rbox("network", "disconnect", "a", "one"))
		if got := b.must("port", "one"); got != "80/tcp -> "+at {
			t.Errorf("its port after a change of networks: %q, before %s", got, at)
		}
		if !eventually(10*time.Second, func() bool { return heard(at) == "one" }) {
			t.Errorf("at %s after a change of networks: %q", at, heard(at))
		}
		b.must("network", "disconnect", "b", "one")
		if got := b.must("port", "one"); got != "" {
			t.Errorf("on no network it has the port %q", got)
		}
		b.must("network", "connect", "b", "one")
		at = strings.TrimPrefix(b.must("port", "one"), "80/tcp -> ")
		if !eventually(10*time.Second, func() bool { return heard(at) == "one" }) {
			t.Errorf("at %s, on a network again: %q", at, heard(at))
		}
		b.must("restart", "-t", "0", "one")
		if got := b.hears("one", "other"); got != "other" {
			t.Errorf("after a restart: %q", got)
		}
		if got := b.must("port", "one"); !strings.HasPrefix(got, "80/tcp -> 127.0.0.1:") {
			t.Errorf("its port after a restart: %q", got)
		}
	})
	b.must("rm", "-f", "one", "two", "other")
	b.nothingLeft()
	b.must("network", "rm", "a", "b")
}

// address6 is the IPv6 address of a network that ends in suffix.
func address6(b *box, network, suffix string) string {
	b.t.Helper()
	for subnet := range strings.FieldsSeq(b.must("network", "inspect", "-f", "{{range .IPAM.Config}}{{.Subnet}} {{end}}", network)) {
		if base, _, ok := strings.Cut(subnet, "::/"); ok {
			return base + "::" + suffix
		}
	}
	b.t.Fatalf("network %s has no IPv6 subnet", network)
	return ""
}

func TestInternalNetwork(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	port := hostServer(t, "127.0.0.1")
	b.must("network", "create", "--internal", "inside")
	b.onNetworks("one", "--network", "inside")
	b.onNetworks("two", "--network", "inside")
	if got := b.hears("two", "one"); got != "one" {
		t.Errorf("inside: %q", got)
	}
	script := gateway + "nc -w 3 ${gw:-192.0.2.1} " + port + " </dev/null || wget -T 3 -O- http://192.0.2.1:" + port + "/hello || nslookup example.com."
	if got := b.rbox("exec", "two", "sh", "-c", script); got.status == 0 {
		t.Errorf("a way out: %s", got)
	}
	b.must("rm", "-f", "one", "two")
	b.nothingLeft()
}

func TestNamedNetworkAddresses(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.must("network", "create", "--subnet", "10.213.7.0/29", "small")
	b.must("run", "-d", "--name", "asked", "--network", "small", "--ip", "10.213.7.5", "alpine", "sleep", "1000")
	want{status: 125, stderr: "10.213.7.5 is taken by container asked"}.check(t,
		b.rbox("run", "--rm", "--network", "small", "--ip", "10.213.7.5", "alpine", "true"))
	ip := func(name string) string {
		return strings.TrimSpace(b.must("inspect", "-f", "{{.NetworkSettings.Networks.small.IPAddress}}", name))
	}
	for range 3 {
		b.must("restart", "-t", "0", "asked")
		if got := ip("asked"); got != "10.213.7.5" {
			t.Fatalf("after a restart: %s", got)
		}
	}
	for i := range 4 {
		b.must("run", "-d", "--name", fmt.Sprint("c", i), "--network", "small", "alpine", "sleep", "1000")
	}
	want{status: 125, stderr: "all addresses of 10.213.7.0/29 are taken"}.check(t, b.rbox("run", "--rm", "--network", "small", "alpine", "true"))
	b.must("rm", "-f", "c1")
	b.must("run", "--rm", "--network", "small", "alpine", "true")
	b.must("rm", "-f", "asked", "c0", "c2", "c3")
	b.nothingLeft()
}

func TestNamedNetworkSurvivesItsProcess(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.must("network", "create", "net")
	b.onNetworks("one", "--network", "net", "--ip", address(b, "net", 20))
	b.onNetworks("two", "--network", "net", "--ip", address(b, "net", 10))
	for range 2 {
		pids := b.running("rbox-network")
		if len(pids) != 1 {
			t.Fatalf("processes: %v", pids)
		}
		syscall.Kill(pids[0], syscall.SIGKILL)
		if !eventually(10*time.Second, func() bool {
			now := b.running("rbox-network")
			return len(now) == 1 && now[0] != pids[0] && b.reaches("two", "one") && b.reaches("one", "two")
		}) {
			t.Fatal("the network does not come back")
		}
	}
	for name, want := range map[string]string{"one": address(b, "net", 20), "two": address(b, "net", 10)} {
		if got := b.must("exec", name, "hostname", "-i"); !strings.Contains(got, want) {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	if got := b.must("events", "--since", "1m", "--until", "0s"); !strings.Contains(got, "network_lost") || !strings.Contains(got, "network_restored") {
		t.Errorf("the events do not tell: %s", got)
	}
	b.must("rm", "-f", "one", "two")
	b.nothingLeft()
}

// address is the IPv4 address of a network with the last number n.
func address(b *box, network string, n int) string {
	b.t.Helper()
	for subnet := range strings.FieldsSeq(b.must("network", "inspect", "-f", "{{range .IPAM.Config}}{{.Subnet}} {{end}}", network)) {
		if base, ok := strings.CutSuffix(subnet, ".0/24"); ok {
			return fmt.Sprintf("%s.%d", base, n)
		}
	}
	b.t.Fatalf("network %s has no IPv4 subnet", network)
	return ""
}

// A monitor that is killed leaves the network to the others, and its address and names free.
func TestNamedNetworkLosesAContainer(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.must("network", "create", "net")
	b.onNetworks("first", "--network", "net") // its monitor starts the network's process
	b.onNetworks("second", "--network", "net")
	ip := address(b, "net", 2)
	syscall.Kill(b.monitor("first"), syscall.SIGKILL)
	if !eventually(10*time.Second, func() bool { return !b.reaches("second", ip) }) {
		t.Fatal("the killed container is still there")
	}
	b.must("run", "-d", "--name", "third", "--network", "net", "--ip", ip, "alpine", "sleep", "1000")
	// The second asks for the address's hardware once a second, since it had no answer.
	if !eventually(10*time.Second, func() bool { return b.reaches("second", "third") }) {
		t.Error("the network does not work on")
	}
	if got := b.rbox("exec", "second", "nslookup", "first.rbox.internal"); got.status == 0 {
		t.Errorf("the killed one has its name still: %s", got)
	}
	b.must("rm", "-f", "first", "second", "third")
	b.nothingLeft()
}

func TestManyOnANamedNetwork(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.must("network", "create", "net")
	const n = 12
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			name := fmt.Sprint("c", i)
			if got := b.rbox("run", "-d", "--name", name, "--network", "net", "--network-alias", "all", "alpine", "sleep", "1000"); got.status != 0 {
				t.Errorf("%s: %s", name, got)
			}
		})
	}
	all.Wait()
	if pids := b.running("rbox-network"); len(pids) != 1 {
		t.Errorf("processes: %v", pids)
	}
	got := b.must("exec", "c0", "nslookup", "all.rbox.internal")
	if count := strings.Count(got, "Name:"); count != n {
		t.Errorf("%d of %d answer to the alias:\n%s", count, n, got)
	}
	var names []string
	for i := range n {
		names = append(names, fmt.Sprint("c", i))
	}
	b.must(append([]string{"rm", "-f"}, names...)...)
	b.nothingLeft()
}
