package tests

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// hostServer serves on the host's loopback, at addr, what tests of networks ask for:
// /hello says who asks, /endless never ends, and what is sent to the port by UDP
// comes back. It returns the port.
func hostServer(t *testing.T, addr string) string {
	t.Helper()
	var tcp net.Listener
	var udp net.PacketConn
	for { // a port that is free for both
		var err error
		if tcp, err = net.Listen("tcp", net.JoinHostPort(addr, "0")); err != nil {
			t.Fatal(err)
		}
		if udp, err = net.ListenPacket("udp", tcp.Addr().String()); err == nil {
			break
		}
		tcp.Close()
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/hello", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "hello") })
	mux.HandleFunc("/endless", func(w http.ResponseWriter, r *http.Request) {
		for b := make([]byte, 64<<10); ; {
			if _, err := w.Write(b); err != nil {
				return
			}
		}
	})
	server := &http.Server{Handler: mux}
	go server.Serve(tcp)
	go func() {
		b := make([]byte, 64<<10)
		for {
			n, from, err := udp.ReadFrom(b)
			if err != nil {
				return
			}
			udp.WriteTo(b[:n], from)
		}
	}()
	t.Cleanup(func() {
		server.Close()
		udp.Close()
	})
	_, port, _ := net.SplitHostPort(tcp.Addr().String())
	return port
}

// closedPort is a port of the host's loopback that nobody listens on.
func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// running are the processes of the box that run the program name.
func (b *box) running(name string) (pids []int) {
	for _, pid := range processesOf(b.dir) {
		if comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err == nil && strings.TrimSpace(string(comm)) == name {
			pids = append(pids, pid)
		}
	}
	return pids
}

// gateway is the first word of a script that sets $gw to the container's gateway.
const gateway = "gw=$(ip route | sed -n 's/^default via \\([^ ]*\\).*/\\1/p'); "

// Each way out, by its flag; pasta is apart.
var waysOut = map[string]string{
	"tap":         "private:host-loopback,link=tap",
	"veth":        "private:host-loopback,link=veth",
	"slirp4netns": "slirp4netns:allow_host_loopback=true",
}

func TestPrivateNetwork(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	port, closed := hostServer(t, "127.0.0.1"), closedPort(t)
	for name, network := range waysOut {
		for what, tc := range map[string]struct {
			script string
			want   want
		}{
			"TCP":            {"wget -T5 -qO- http://$gw:" + port + "/hello", want{stdout: "hello\n"}},
			"TCP refused":    {"wget -T20 -O- http://$gw:" + closed, want{status: 1, stderr: "refused"}},
			"UDP":            {"echo there and back | timeout 5 nc -u -w1 $gw " + port, want{stdout: "there and back\n"}},
			"ping":           {"ping -c1 -W5 $gw", want{match: "1 packets received"}},
			"ping as a user": {"ping -c1 -W5 $gw", want{match: "1 packets received"}},
			"interfaces":     {"ls /sys/class/net", want{stdout: "eth0\nlo\n"}},
			"IPv6 route":     {"ip -6 route | grep -c ^default", want{stdout: "1\n"}},
			"its name":       {"grep -c \"$(hostname -i)\\s$(hostname)\" /etc/hosts", want{stdout: "1\n"}},
			"any port":       {"(echo in | timeout 5 nc -l -p 1 &) ; sleep 0.3; timeout 5 nc -w1 127.0.0.1 1 </dev/null", want{stdout: "in\n"}},
		} {
			if name == "slirp4netns" && what == "IPv6 route" { // only fd00::/64, which the host may have
				continue
			}
			t.Run(name+", "+what, func(t *testing.T) {
				t.Parallel()
				flags := []string{"--network", network}
				if strings.HasSuffix(what, "user") {
					flags = append(flags, "--user", "1000:1000")
				}
				tc.want.check(t, b.sh(gateway+tc.script, flags...))
			})
		}
	}
}

// Of the host's loopback nothing is seen unless it is asked for.
func TestPrivateNetworkHidesLoopback(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	port := hostServer(t, "127.0.0.1")
	for name, network := range map[string]string{"tap": "private:link=tap", "veth": "private:link=veth", "slirp4netns": "slirp4netns"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := b.sh(gateway+"wget -T3 -qO- http://$gw:"+port+"/hello || wget -T3 -qO- http://127.0.0.1:"+port+"/hello", "--network", network)
			want{status: 1}.check(t, got)
		})
	}
}

// pasta of the distribution may crash on a new kernel: what it serves is its own.
func TestPastaStarts(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	want{match: `inet 10\.`}.check(t, b.sh("ip addr show eth0", "--network", "pasta"))
	if !eventually(5*time.Second, func() bool { return len(b.running("pasta"))+len(b.running("passt.avx2")) == 0 }) {
		t.Error("pasta outlives its container")
	}
}

// Ports are the container's until it has ended, and then nobody's.
func TestPublishedPortIsFreeAtTheEnd(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	port := closedPort(t)
	for _, network := range []string{"private", "private:link=veth", "slirp4netns"} {
		for range 5 {
			b.must("run", "--rm", "--network", network, "-p", "127.0.0.1:"+port+":80", "alpine", "true")
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got := b.rbox("run", "--rm", "--network", "private", "-p", "127.0.0.1:"+port+":80", "alpine", "echo", "ran")
	want{status: 125, stderr: "in use"}.check(t, got)
	if got.stdout != "" {
		t.Errorf("the program ran: %v", got)
	}
}

// get asks a published port for its answer.
func get(port string) (string, error) {
	c, err := net.DialTimeout("tcp", "127.0.0.1:"+port, 5*time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	text, err := io.ReadAll(c)
	return string(text), err
}

// A container that its policy starts again has the same address and ports; one
// that the user does may get another port where the choice is rbox's.
func TestPrivateNetworkOfLaterRuns(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	const serve = "while :; do hostname -i | nc -l -p 80; done"
	b.must("run", "-d", "--name", "box", "--network", "private", "--restart", "always", "-p", "127.0.0.1::80", "alpine", "sh", "-c", serve)
	answer := func(port string) (text string) {
		eventually(10*time.Second, func() bool {
			var err error
			text, err = get(port)
			return err == nil && text != ""
		})
		return text
	}
	_, port, _ := net.SplitHostPort(b.must("port", "box", "80"))
	address := answer(port)
	if !strings.HasPrefix(address, "10.") {
		t.Fatalf("the published port says %q", address)
	}
	pid, err := strconv.Atoi(b.must("inspect", "--format", "{{.State.Pid}}", "box"))
	if err != nil {
		t.Fatal(err)
	}
	syscall.Kill(pid, syscall.SIGKILL)
	again := func() bool {
		return b.must("inspect", "--format", "{{.RestartCount}} {{.State.Status}}", "box") == "1 running"
	}
	if !eventually(10*time.Second, again) {
		t.Fatal("the policy does not start it again")
	}
	if got := answer(port); got != address {
		t.Errorf("started by the policy it says %q, before %q", got, address)
	}
	b.must("restart", "-t", "0", "box")
	_, port, _ = net.SplitHostPort(b.must("port", "box", "80"))
	if got := answer(port); got != address {
		t.Errorf("restarted it says %q, before %q", got, address)
	}
	b.must("kill", "box")
	if _, err := get(port); err == nil {
		t.Error("the port of a container that has ended is open")
	}
	if got := b.must("inspect", "--format", "{{.NetworkSettings.IPAddress}}", "box"); got != "" {
		t.Errorf("a container that has ended has the address %s", got)
	}
}

// The network process is killed: the container runs on without its link, and
// with a restart policy gets it back.
func TestNetworkProcessKilled(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	port := hostServer(t, "127.0.0.1")
	ask := gateway + "wget -T5 -qO- http://$gw:" + port + "/hello"
	for name, tc := range map[string]struct {
		network string
		restart string
		back    bool
	}{
		"tap":                {"private:host-loopback,link=tap", "no", false},
		"veth":               {"private:host-loopback,link=veth", "no", false},
		"tap, restarted":     {"private:host-loopback,link=tap", "always", true},
		"veth, restarted":    {"private:host-loopback,link=veth", "always", true},
		"slirp4netns killed": {"slirp4netns:allow_host_loopback=true", "always", true},
	} {
		t.Run(name, func(t *testing.T) {
			box := strings.NewReplacer(" ", "-", ",", "").Replace(name)
			id := b.must("run", "-d", "--name", box, "--network", tc.network, "--restart", tc.restart, "alpine", "sleep", "1000")
			defer b.must("rm", "-f", box)
			want{stdout: "hello\n"}.check(t, b.rbox("exec", box, "sh", "-c", ask))
			victim := b.running("rbox-network")
			if len(victim) == 1 && name == "slirp4netns killed" {
				victim = children(victim[0])
			}
			if len(victim) != 1 {
				t.Fatalf("network processes: %v", victim)
			}
			syscall.Kill(victim[0], syscall.SIGKILL)
			lost := func() bool {
				return strings.Contains(b.must("events", "--stream=false", "--since", "1m", "--filter", "container="+id), "network_lost")
			}
			if !eventually(10*time.Second, lost) {
				t.Error("no event tells of the loss")
			}
			if !tc.back {
				if !eventually(5*time.Second, func() bool { return b.must("exec", box, "ls", "/sys/class/net") == "lo" }) {
					t.Error("the container still has its interface")
				}
				return
			}
			if !eventually(10*time.Second, func() bool { return b.rbox("exec", box, "sh", "-c", ask).stdout == "hello\n" }) {
				t.Error("the container does not get its network back")
			}
			if got := b.must("inspect", "--format", "{{.NetworkSettings.IPAddress}}", box); !strings.HasPrefix(got, "10.") {
				t.Errorf("it has the address %q", got)
			}
		})
	}
}

// Whatever is killed in the middle of a transfer, nothing is left: newBox's end
// looks.
func TestNetworkFaults(t *testing.T) {
	t.Parallel()
	port := hostServer(t, "127.0.0.1")
	for victim, status := range map[string]int{"rbox": 137, "rbox-monitor": 137, "wget": 137, "rbox-network": 1} {
		t.Run(victim, func(t *testing.T) {
			t.Parallel()
			b := newBox(t)
			p := b.start(call{args: []string{"run", "--rm", "--network", "private:host-loopback", "-p", "127.0.0.1::80", "alpine", "sh", "-c", gateway + "echo go; exec wget -T5 -qO/dev/null http://$gw:" + port + "/endless"}})
			p.see("go")
			pids := []int{p.cmd.Process.Pid}
			if victim != "rbox" && !eventually(5*time.Second, func() bool {
				pids = append(b.called(victim), b.running(victim)...)
				return len(pids) == 1
			}) {
				t.Fatalf("processes called %s: %v", victim, pids)
			}
			syscall.Kill(pids[0], syscall.SIGKILL)
			if got := p.wait(); got.status != status {
				t.Errorf("want status %d, got %v", status, got)
			}
		})
	}
}

// A container can have another's network, and one that is there by its path.
func TestSharedNetwork(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	b.must("run", "-d", "--name", "first", "--network", "private", "alpine", "sleep", "1000")
	want{stdout: b.must("exec", "first", "ip", "addr") + "\n"}.check(t, b.sh("ip addr", "--network", "container:first"))
	want{match: "^1\n$"}.check(t, b.sh("(echo 1 | nc -l -p 81 &); sleep 0.3; nc -w1 127.0.0.1 81 </dev/null", "--network", "container:first"))
	if n := len(b.running("rbox-network")); n != 1 {
		t.Errorf("%d network processes", n)
	}
}

// A network namespace that was made below rbox's user namespace is shared by its path.
func TestNetworkByPath(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	p := b.start(call{args: []string{"unshare", "unshare", "-n", "sh", "-c", `echo "$$ $(readlink /proc/$$/ns/net) end"; exec sleep 1000`}})
	p.see("end")
	var pid int
	var netns string
	if _, err := fmt.Sscan(p.stdout.String(), &pid, &netns); err != nil {
		t.Fatal(err)
	}
	flag := fmt.Sprintf("ns:/proc/%d/ns/net", pid)
	want{stdout: netns + "\n"}.check(t, b.sh("readlink /proc/self/ns/net", "--network", flag))
	want{match: `^(?s).* lo: .*$`}.check(t, b.sh("ip link", "--network", flag))
	p.signal(syscall.SIGKILL)
	p.wait()
	want{status: 125, stderr: `/nowhere.*no such file`}.check(t, b.sh("true", "--network", "ns:/nowhere"))
	want{status: 125, stderr: `/dev/null`}.check(t, b.sh("true", "--network", "ns:/dev/null"))
}

// afterMounts runs rbox as the box's account where root has mounted something first, by a
// script of sh.
func (b *box) afterMounts(script string, args ...string) result {
	b.t.Helper()
	r := newBox(b.t, as(root(b.t)), noImage)
	become := fmt.Sprintf(`%s && exec setpriv --reuid %d --regid %d --init-groups "$@"`, script, b.who.UID, b.who.GID)
	return r.do(call{prog: "unshare", args: append([]string{"-m", "--propagation", "private", "sh", "-c", become, "sh", run.bin}, args...), env: b.env})
}

// withoutTun runs rbox where /dev/net/tun is missing, as on many a cluster.
func (b *box) withoutTun(args ...string) result {
	b.t.Helper()
	return b.afterMounts("mount -t tmpfs tmpfs /dev/net", args...)
}

func TestPrivateNetworkWithoutTun(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	port := hostServer(t, "127.0.0.1")
	script := gateway + "wget -T5 -qO- http://$gw:" + port + "/hello"
	want{stdout: "hello\n"}.check(t, b.withoutTun("run", "--rm", "--network", "private:host-loopback", "alpine", "sh", "-c", script))
	want{status: 125, stderr: `/dev/net/tun.*\n.*hint: `}.check(t, b.withoutTun("run", "--rm", "--network", "private:link=tap", "alpine", "true"))
	want{status: 125, stderr: `slirp4netns: .*tun`}.check(t, b.withoutTun("run", "--rm", "--network", "slirp4netns", "alpine", "true"))
}

// An idle network process is small and has no power.
func TestNetworkProcessIsSmall(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	b.must("run", "-d", "--network", "private", "alpine", "sleep", "1000")
	pids := b.running("rbox-network")
	if len(pids) != 1 {
		t.Fatalf("network processes: %v", pids)
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pids[0]))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"CapEff:\t0000000000000000", "CapPrm:\t0000000000000000", "NoNewPrivs:\t1"} {
		if !strings.Contains(string(text), line+"\n") {
			t.Errorf("no %q in\n%s", line, text)
		}
	}
	_, rss, _ := strings.Cut(string(text), "VmRSS:")
	var kB int
	if fmt.Sscan(rss, &kB); kB == 0 || kB > 25<<10 {
		t.Errorf("%d KiB are resident", kB)
	}
}

// What the user sets with RBOX_NETWORK_DRIVER is taken, or refused by name.
func TestNetworkDriverFromEnvironment(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	for _, driver := range []string{"embedded", "slirp4netns"} {
		got := b.do(call{args: []string{"run", "-d", "--name", driver, "--network", "private", "alpine", "sleep", "1000"}, env: []string{"RBOX_NETWORK_DRIVER=" + driver}})
		want{match: isID}.check(t, got)
		n := 0
		for _, pid := range b.running("rbox-network") {
			n += len(children(pid))
		}
		if foreign := n > 0; foreign != (driver == "slirp4netns") {
			t.Errorf("%s has %d helpers", driver, n)
		}
	}
	got := b.do(call{args: []string{"run", "--rm", "--network", "private", "alpine", "true"}, env: []string{"RBOX_NETWORK_DRIVER=vde"}})
	want{status: 125, stderr: `no network driver "vde"\n.*hint: .*embedded`}.check(t, got)
}

// A limit that is reached is called by its name.
func TestTooManyNetworkNamespaces(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	b.must("run", "-d", "--network", "host", "alpine", "sleep", "1000") // holds the outer namespace, and the limit on it
	b.must("unshare", "sh", "-c", "echo 0 >/proc/sys/user/max_net_namespaces")
	want{status: 125, stderr: `no network namespace: user\.max_net_namespaces \(0\) is used up.*\n.*hint: .*sysctl -w user\.max_net_namespaces=28633`}.check(t,
		b.rbox("run", "--rm", "--network", "none", "alpine", "true"))
}

// Where there is no way into a network namespace, a container that asked for
// nothing else shares the host's network, and one warning says so.
func TestHostIsTheLastRung(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	b.must("run", "-d", "--network", "host", "alpine", "sleep", "1000") // holds the outer namespace, and the limit on it
	b.must("unshare", "sh", "-c", "echo 1 >/proc/sys/user/max_net_namespaces")
	port := hostServer(t, "127.0.0.1")
	for _, tc := range []struct {
		args []string
		want want
	}{
		{
			[]string{"alpine", "wget", "-T5", "-qO-", "http://127.0.0.1:" + port + "/hello"},
			want{stdout: "hello\n", stderr: `(?s)^rbox: the container shares this host's network[^\n]*/dev/net/tun[^\n]*\n$`},
		},
		{[]string{"--network", "private", "alpine", "true"}, want{status: 125, stderr: `no link into the container.*\n.*hint: .*--network host`}},
		{[]string{"-p", "80", "alpine", "true"}, want{status: 125, stderr: `no link into the container`}},
	} {
		var got result
		eventually(10*time.Second, func() bool { // until the network namespace of the one before has been cleaned up
			got = b.withoutTun(append([]string{"run", "--rm"}, tc.args...)...)
			return !strings.Contains(got.stderr, "is used up")
		})
		tc.want.check(t, got)
	}
}
