package tests

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// echoes is a server on port 80, of both families: it sends back what it gets up to its
// end, and then says which connections there are.
const echoes = "nc -lk -p 80 -e sh -c 'cat; netstat -tn'"

// hostAddress is an address of this host that is not its loopback's; "": it has none.
func hostAddress(t *testing.T) string {
	t.Helper()
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if ip := a.(*net.IPNet).IP; ip.To4() != nil && ip.IsGlobalUnicast() {
			return ip.String()
		}
	}
	return ""
}

// publishedAt is the port that leads to the container's port 80.
func (b *box) publishedAt(name string) string {
	b.t.Helper()
	line, _, _ := strings.Cut(b.must("port", name, "80"), "\n")
	_, port, err := net.SplitHostPort(line)
	if err != nil {
		b.t.Fatalf("port %s: %v", name, err)
	}
	return port
}

// echoed sends data to a server that echoes, and then the end. It returns what comes back,
// and the client's own address.
func echoed(addr string, data []byte) (back []byte, own *net.TCPAddr, err error) {
	c, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		return nil, nil, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(30 * time.Second))
	go func() {
		c.Write(data)
		c.(*net.TCPConn).CloseWrite()
	}()
	back, err = io.ReadAll(c)
	return back, c.LocalAddr().(*net.TCPAddr), err
}

// echoServer starts a container called name that echoes on a published port, and returns it.
func (b *box) echoServer(name string, run func(args ...string) result, flags ...string) (port string) {
	b.t.Helper()
	args := append([]string{"run", "-d", "--name", name, "-p", "80"}, flags...)
	want{match: isID}.check(b.t, withoutStderr(run(append(args, "alpine", "sh", "-c", echoes)...)))
	port = b.publishedAt(name)
	if !eventually(20*time.Second, func() bool { _, _, err := echoed("127.0.0.1:"+port, nil); return err == nil }) {
		b.t.Errorf("%s: nobody answers at the published port", name)
	}
	return port
}

// withoutStderr is r without notices of what else is missing.
func withoutStderr(r result) result {
	if r.status == 0 {
		r.stderr = ""
	}
	return r
}

// frames is how many bytes have passed a container's interface.
func (b *box) frames(name string) (sum int) {
	b.t.Helper()
	for _, text := range strings.Fields(b.must("exec", name, "sh", "-c", "cat /sys/class/net/eth0/statistics/[rt]x_bytes")) {
		var n int
		fmt.Sscan(text, &n)
		sum += n
	}
	return sum
}

// publishers are the ways in which containers get published ports: flags, and which of
// them run without /dev/net/tun.
var publishers = map[string]struct {
	flags string
	noTun bool
}{
	"tap":         {flags: "--network private:link=tap"},
	"veth":        {flags: "--network private:link=veth", noTun: true},
	"slirp4netns": {flags: "--network slirp4netns"},
	"pasta":       {flags: "--network pasta"},
	"named":       {flags: "--network named"},
	"internal":    {flags: "--network internal", noTun: true},
}

// Whatever connects the container, its published ports are served by sockets in its network
// namespace: it sees its clients, each direction ends by itself, and no frame of it passes
// the container's interface.
func TestPublishedByEachDriver(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	b.must("network", "create", "--ipv6", "named")
	b.must("network", "create", "--internal", "internal")
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // 1 MiB
	for name, p := range publishers {
		t.Run(name, func(t *testing.T) {
			run := b.rbox
			if p.noTun {
				run = b.withoutTun
			}
			port := b.echoServer(name, run, words(p.flags)...)
			before := b.frames(name)
			for _, host := range []string{"127.0.0.1", "::1", hostAddress(t)} {
				if host == "" {
					continue
				}
				back, own, err := echoed(net.JoinHostPort(host, port), data)
				peers, found := bytes.CutPrefix(back, data)
				if err != nil || !found {
					t.Errorf("%s: of %d bytes %d came back: %v", host, len(data), len(back), err)
					continue
				}
				seen := own.String()
				if own.IP.IsLoopback() { // the gateway, from the same port
					seen = fmt.Sprintf(":%d", own.Port)
				}
				if !strings.Contains(string(peers), seen+" ") || strings.Contains(string(peers), "127.0.0.1:"+fmt.Sprint(own.Port)) {
					t.Errorf("%s: %s is not among\n%s", host, seen, peers)
				}
			}
			if passed := b.frames(name) - before; passed > len(data)/2 {
				t.Errorf("%d bytes passed the container's interface", passed)
			}
			b.must("rm", "-f", name)
		})
	}
}

// Where the kernel lets no sockets act for clients, here since its settings cannot be written,
// the network stack does, and a container sees the same.
func TestPublishedByTheStack(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	b.must("network", "create", "named")
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	readOnly := func(args ...string) result {
		return b.afterMounts("mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys", args...)
	}
	for name, flags := range map[string]string{"private": "--network private", "named": "--network named", "slirp4netns": "--network slirp4netns"} {
		t.Run(name, func(t *testing.T) {
			port := b.echoServer(name, readOnly, words(flags)...)
			before := b.frames(name)
			back, own, err := echoed("127.0.0.1:"+port, data)
			if peers, found := bytes.CutPrefix(back, data); err != nil || !found || name != "slirp4netns" && !strings.Contains(string(peers), fmt.Sprintf(":%d ", own.Port)) {
				t.Errorf("%d bytes came back: %v\n%s", len(back), err, peers)
			}
			if passed := b.frames(name) - before; passed < 2*len(data) {
				t.Errorf("%d bytes passed the container's interface", passed)
			}
			b.must("rm", "-f", name)
		})
	}
}

// A connection that is refused in the container is reset at once.
func TestPublishedPortThatIsRefused(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	b.must("network", "create", "named")
	for name, network := range map[string]string{"private": "private", "slirp4netns": "slirp4netns", "named": "named"} {
		b.must("run", "-d", "--name", name, "--network", network, "-p", "80", "alpine", "sleep", "1000")
		port := b.publishedAt(name)
		for _, host := range []string{"127.0.0.1", "::1"} {
			if _, _, err := echoed(net.JoinHostPort(host, port), nil); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("%s, %s: %v, want %v", name, host, err, syscall.ECONNRESET)
			}
		}
	}
}

// A thousand clients are served at a time, and a container that joined the network can
// be the server.
func TestThousandClients(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	b.must("run", "-d", "--name", "first", "-p", "80", "alpine", "sleep", "1000")
	b.must("run", "-d", "--name", "server", "--network", "container:first", "alpine", "sh", "-c", "nc -lk -p 80 -e cat")
	addr := "127.0.0.1:" + b.publishedAt("first")
	if !eventually(20*time.Second, func() bool { _, _, err := echoed(addr, nil); return err == nil }) {
		t.Fatal("nobody answers at the published port")
	}
	const clients = 1000
	var conns [clients]net.Conn
	defer func() {
		for _, c := range conns {
			if c != nil {
				c.Close()
			}
		}
	}()
	exchange := func(i int) error {
		said := fmt.Sprintf("client %03d", i)
		heard := make([]byte, len(said))
		conns[i].SetDeadline(time.Now().Add(30 * time.Second))
		_, err := io.WriteString(conns[i], said)
		if err == nil {
			_, err = io.ReadFull(conns[i], heard)
		}
		if err == nil && string(heard) != said {
			err = fmt.Errorf("it hears %q", heard)
		}
		return err
	}
	for i := range conns { // one after the other: the server's queue is short
		var err error
		if conns[i], err = net.DialTimeout("tcp", addr, 30*time.Second); err == nil {
			err = exchange(i)
		}
		if err != nil {
			t.Fatalf("client %d: %v", i, err)
		}
	}
	var all sync.WaitGroup
	for i := range conns {
		all.Go(func() {
			if err := exchange(i); err != nil {
				t.Errorf("client %d, with all others: %v", i, err)
			}
		})
	}
	all.Wait()
}

// Of a network process that publishes ports one thread has one capability, the others none.
func TestPublishingThread(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	b.must("run", "-d", "-p", "80", "-p", "53/udp", "alpine", "sleep", "1000")
	pids := b.running("rbox-network")
	if len(pids) != 1 {
		t.Fatalf("network processes: %v", pids)
	}
	held := map[string]int{}
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pids[0]))
	if err != nil {
		t.Fatal(err)
	}
	for _, status := range tasks {
		text, _ := os.ReadFile(status) // a thread may have ended
		for line := range strings.Lines(string(text)) {
			if name, set, _ := strings.Cut(strings.TrimSpace(line), ":\t"); (name == "CapEff" || name == "CapPrm") && strings.Trim(set, "0") != "" {
				held[set]++
			}
		}
	}
	const raw, admin = "0000000000002000", "0000000000001000" // before Linux 5.17
	if len(held) != 1 || held[raw]+held[admin] != 2 {
		t.Errorf("capabilities and in how many sets: %v", held)
	}
}
