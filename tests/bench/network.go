package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// hostInside is what a container calls the host.
const hostInside = "host.containers.internal"

// driver is a way out of a container that takes part, with --network as it is
// to be typed so that the container reaches the host's loopback.
type driver struct{ name, network, needs string }

var drivers = []driver{
	{"rbox, as it chooses", "private:host-loopback", ""},
	{"rbox, embedded stack", "private:host-loopback,driver=embedded", ""},
	{"rbox, slirp4netns at MTU 65520", "slirp4netns:mtu=65520,allow_host_loopback=true", "slirp4netns"},
	{"rbox, pasta", "pasta:--map-gw", "pasta"},
}

// network measures what containers get through their networks, on loopback
// addresses and between containers only.
func (b *bench) network(rounds int) error {
	if err := b.lookPath("iperf3"); err != nil {
		return err
	}
	server, port, err := b.iperfServer("127.0.0.1")
	if err != nil {
		return err
	}
	defer stop(server)
	for _, part := range []func() error{
		func() error { return b.throughput(rounds, port) },
		func() error { return b.datagrams(rounds, port) },
		func() error { return b.requests(rounds) },
		func() error { return b.published(rounds, port) },
		func() error { return b.between(rounds) },
		func() error { return b.networkStart(rounds * 5) },
		b.idleNetwork,
	} {
		if partErr := part(); partErr != nil {
			fmt.Printf("  not measured: %v\n\n", partErr)
			err = errors.Join(err, partErr)
		}
	}
	return err
}

// throughput measures TCP between a container and a server on the host.
func (b *bench) throughput(rounds int, port string) error {
	for _, way := range []struct {
		title string
		args  []string
		bars  []bar
	}{
		{"a container sends 1 GB, one stream", nil, outBars},
		{"a container sends 1 GB, eight streams", []string{"-P", "8"}, outBars},
		{"a container receives 1 GB, one stream", []string{"-R"}, inBars},
		{"a container receives 1 GB, eight streams", []string{"-R", "-P", "8"}, inBars},
	} {
		var all []*contestant
		for _, d := range drivers {
			all = append(all, b.out(d, func(run func(args ...string) (string, error)) (time.Duration, error) {
				text, err := run(append([]string{"iperf3", "-J", "-t", "2", "-c", hostInside, "-p", port}, way.args...)...)
				return gigabyte(text, err)
			}))
		}
		measure(rounds, all)
		table(os.Stdout, way.title, all, way.bars)
	}
	return nil
}

// What rbox chooses is never much slower than the best, and its own stack beats
// slirp4netns.
var (
	outBars = []bar{
		{"rbox, embedded stack", 1 / 0.9, "the choice at 0.9 of the embedded stack"},
		{"rbox, slirp4netns at MTU 65520", 1 / 1.5, "1.5 times slirp4netns"},
		{"rbox, pasta", 1 / 0.9, "the choice at 0.9 of pasta"},
	}
	inBars = []bar{
		{"rbox, embedded stack", 1 / 0.9, "the choice at 0.9 of the embedded stack"},
		{"rbox, slirp4netns at MTU 65520", 1, "as fast as slirp4netns"},
		{"rbox, pasta", 1 / 0.9, "the choice at 0.9 of pasta"},
	}
)

// out is a contestant that does something in a container with the driver d;
// once gets a function that runs a program of this host's in one.
func (b *bench) out(d driver, once func(run func(args ...string) (string, error)) (time.Duration, error)) *contestant {
	c := &contestant{name: d.name}
	if d.needs != "" {
		c.missing = b.lookPath(d.needs)
	}
	c.once = func() (time.Duration, error) {
		return once(func(args ...string) (string, error) {
			command := []string{"run", "--rm", "--network", d.network, "-v", b.client + ":" + clientPath + ":ro", "host"}
			return b.reported(b.rbox, append(command, args...)...)
		})
	}
	return c
}

// reported is run for a program that may report an error as iperf3 does, on
// stdout. It runs again while the server is busy with the end of another.
func (b *bench) reported(prog string, args ...string) (string, error) {
	var out []byte
	var err error
	var r iperfReport
	for range 10 {
		out, err = b.Command(prog, args...).Output()
		r = iperfReport{}
		if json.Unmarshal(out, &r); !strings.Contains(r.Error, "busy") {
			break
		}
		time.Sleep(500 * time.Millisecond)
	}
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		err = fmt.Errorf("%w: %s%s", err, r.Error, exit.Stderr)
	}
	return string(out), err
}

// iperfReport is the part of iperf3's JSON that matters here.
type iperfReport struct {
	Error string
	End   struct {
		Received struct {
			BitsPerSecond float64 `json:"bits_per_second"`
		} `json:"sum_received"`
		Sum struct {
			LostPercent float64 `json:"lost_percent"`
		}
	}
}

// gigabyte is the time for 1 GB at the rate that iperf3 reports.
func gigabyte(report string, err error) (time.Duration, error) {
	if err != nil {
		return 0, err
	}
	var r iperfReport
	if err := json.Unmarshal([]byte(report), &r); err != nil {
		return 0, err
	}
	if r.End.Received.BitsPerSecond == 0 {
		return 0, fmt.Errorf("nothing arrived %s", r.Error)
	}
	return time.Duration(8e9 / r.End.Received.BitsPerSecond * float64(time.Second)), nil
}

// iperfServer starts one on a port that is free.
func (b *bench) iperfServer(address string) (*exec.Cmd, string, error) {
	port, err := freePort()
	if err != nil {
		return nil, "", err
	}
	cmd := b.Command("iperf3", "-s", "-B", address, "-p", port)
	if err := cmd.Start(); err != nil {
		return nil, "", err
	}
	return cmd, port, awaitPort(net.JoinHostPort(address, port))
}

func stop(cmd *exec.Cmd) {
	cmd.Process.Signal(unix.SIGTERM)
	cmd.Wait()
}

// freePort is one of 127.0.0.1 that was free a moment ago.
func freePort() (string, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, err
}

// awaitPort waits until something listens at address, by the kernel's list:
// iperf3 takes each connection for a client.
func awaitPort(address string) error {
	_, text, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return err
	}
	listening := fmt.Sprintf(":%04X 00000000:0000 0A", port) // proc_net_tcp(5): local port, no peer, TCP_LISTEN
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		list, err := os.ReadFile("/proc/net/tcp")
		if err == nil && strings.Contains(string(list), listening) {
			return nil
		}
	}
	return fmt.Errorf("nothing listens at %s", address)
}

// datagrams prints the share of UDP that is lost.
func (b *bench) datagrams(rounds int, port string) error {
	const rate = "300M" // bits per second
	fmt.Printf("%-44s %16s\n", "a container sends "+rate+"bit/s by UDP", "median lost")
	lost := map[string]float64{}
	for _, d := range drivers {
		var shares []float64
		c := b.out(d, func(run func(args ...string) (string, error)) (time.Duration, error) {
			text, err := run("iperf3", "-J", "-u", "-b", rate, "-l", "1400", "-t", "2", "-c", hostInside, "-p", port)
			var r iperfReport
			if err == nil {
				err = json.Unmarshal([]byte(text), &r)
			}
			shares = append(shares, r.End.Sum.LostPercent)
			return 0, err
		})
		measure(rounds, []*contestant{c})
		if c.missing != nil {
			reason, _, _ := strings.Cut(c.missing.Error(), "\n")
			fmt.Printf("  %-42s %16s   %s\n", d.name, "-", reason)
			continue
		}
		slices.Sort(shares)
		lost[d.name] = shares[len(shares)/2]
		fmt.Printf("  %-42s %14.2f %%\n", d.name, lost[d.name])
	}
	if slirp, ok := lost[drivers[2].name]; ok {
		fmt.Printf("  %-42s %s\n", "no more than slirp4netns", met(lost[drivers[0].name] <= max(slirp, 0.1)))
	}
	fmt.Println()
	return nil
}

// requests measures how long 2000 round trips of a byte take on one connection,
// and 500 connections with a short HTTP request each.
func (b *bench) requests(rounds int) error {
	echo, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer echo.Close()
	go serveEcho(echo)
	web, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer web.Close()
	go http.Serve(web, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello\n") }))

	for _, kind := range []struct {
		title, mode, count string
		addr               net.Addr
	}{
		{"2000 round trips of one byte", clientEcho, "2000", echo.Addr()},
		{"500 connections with a request of HTTP each", clientHTTP, "500", web.Addr()},
	} {
		_, port, _ := net.SplitHostPort(kind.addr.String())
		var all []*contestant
		for _, d := range drivers {
			all = append(all, b.out(d, func(run func(args ...string) (string, error)) (time.Duration, error) {
				text, err := run(clientPath, clientWord, kind.mode, net.JoinHostPort(hostInside, port), kind.count)
				if err != nil {
					return 0, err
				}
				return time.ParseDuration(strings.TrimSpace(text))
			}))
		}
		measure(rounds, all)
		table(os.Stdout, kind.title, all, []bar{{drivers[2].name, 1, "no slower than slirp4netns"}})
	}
	return nil
}

func serveEcho(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			io.Copy(c, c)
		}()
	}
}

// published measures what goes to a server in a container by its published port.
func (b *bench) published(rounds int, plain string) error {
	var all []*contestant
	sender := func(name string, missing error, port string) {
		all = append(all, &contestant{name: name, missing: missing, once: func() (time.Duration, error) {
			return gigabyte(b.reported("iperf3", "-J", "-t", "2", "-c", "127.0.0.1", "-p", port))
		}})
	}
	serve := []string{"iperf3", "-s", "-p", "5201"}
	ours, err := freePort()
	if err != nil {
		return err
	}
	id, err := b.run(b.rbox, append([]string{"run", "-d", "--network", "private", "-p", "127.0.0.1:" + ours + ":5201", "host"}, serve...)...)
	if err != nil {
		return err
	}
	defer b.run(b.rbox, "rm", "-f", id)
	if err := b.awaitInside(id, "5201"); err != nil {
		return err
	}
	sender("rbox run -p", nil, ours)

	theirs, err := freePort()
	if err != nil {
		return err
	}
	missing := b.noPodman
	if missing == nil {
		// Its image has no iperf3: the host's, with its libraries.
		args := b.podman("run", "-d", "--pull=never", "-p", "127.0.0.1:"+theirs+":5201", "-v", "/usr:/usr:ro", "-v", "/usr/lib:/lib:ro", "-v", "/usr/lib64:/lib64:ro", podmanImage)
		var id string
		id, missing = b.run("podman", append(args, serve...)...)
		defer b.run("podman", b.podman("rm", "-f", "-t", "0", id)...)
	}
	sender("podman run -p", missing, theirs)
	sender("without containers", nil, plain)
	measure(rounds, all)
	table(os.Stdout, "send 1 GB to a published port", all, []bar{
		{"podman run -p", 0.5, "twice as fast as podman"},
		{"without containers", 2, "half of plain loopback"},
	})
	return nil
}

// awaitInside waits until something listens at a port in the container.
func (b *bench) awaitInside(id, port string) error {
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return err
	}
	script := fmt.Sprintf("until cat /proc/net/tcp /proc/net/tcp6 | grep -q ':%04X 0*:0000 0A'; do sleep 0.02; done", n)
	return b.silent("", "timeout", "20", b.rbox, "exec", id, "sh", "-c", script)
}

// between measures what goes from one container to another on a network, beside
// a pair of network devices without more.
func (b *bench) between(rounds int) error {
	if _, err := b.run(b.rbox, "network", "create", "bench"); err != nil {
		return err
	}
	defer b.run(b.rbox, "network", "rm", "-f", "bench")
	id, err := b.run(b.rbox, "run", "-d", "--network", "bench", "--name", "server", "host", "iperf3", "-s")
	if err != nil {
		return err
	}
	defer b.run(b.rbox, "rm", "-f", id)
	if err := b.awaitInside(id, "5201"); err != nil {
		return err
	}
	mtu, err := b.run(b.rbox, "exec", id, "cat", "/sys/class/net/eth0/mtu")
	if err != nil {
		return err
	}
	all := []*contestant{
		{name: "rbox, by name on a network", once: func() (time.Duration, error) {
			return gigabyte(b.reported(b.rbox, "run", "--rm", "--network", "bench", "host", "iperf3", "-J", "-t", "2", "-c", "server"))
		}},
		{name: "a veth pair", missing: b.lookPath("ip"), once: func() (time.Duration, error) {
			return gigabyte(b.reported(b.rbox, "unshare", "unshare", "-n", "sh", "-c", vethScript, "sh", mtu))
		}},
	}
	measure(rounds, all)
	table(os.Stdout, "send 1 GB from container to container", all, []bar{{"a veth pair", 1 / 0.8, "80% of a veth pair"}})
	return nil
}

// vethScript runs iperf3 over a pair of network devices of the MTU $1.
const vethScript = `set -e
unshare -n sleep 60 & other=$!
trap 'kill $other' EXIT
until [ "$(readlink /proc/$other/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.02; done
ip link add name left mtu "$1" type veth peer name right mtu "$1" netns $other
ip addr add 10.99.0.1/24 dev left
ip link set left up
nsenter -t $other -n sh -c 'ip addr add 10.99.0.2/24 dev right; ip link set right up; iperf3 -s -1 -D -I /dev/null'
iperf3 -J -t 2 -c 10.99.0.2
`

// networkStart measures what a private network adds to the start of a container.
func (b *bench) networkStart(rounds int) error {
	all := []*contestant{
		b.starter("rbox run --rm --network private", "", b.rbox, "run", "--rm", "--network", "private", "alpine", "true"),
		b.starter("rbox run --rm --network none", "", b.rbox, "run", "--rm", "--network", "none", "alpine", "true"),
		b.starter("podman run --rm", "", "podman", b.podman("run", "--rm", "--pull=never", podmanImage, "true")...),
	}
	all[2].every, all[2].missing = 5, b.noPodman
	measure(rounds, all)
	table(os.Stdout, "start a container with a network", all, nil)
	adds := all[0].median() - all[1].median()
	fmt.Printf("  %-42s %s (%s)\n\n", "the network adds 10 ms at most", met(adds <= 10*time.Millisecond), format(adds))
	return nil
}

// idleNetwork prints the memory of a network process that has nothing to do.
func (b *bench) idleNetwork() error {
	id, err := b.run(b.rbox, "run", "-d", "--network", "private", "alpine", "sleep", "1000")
	if err != nil {
		return err
	}
	defer b.run(b.rbox, "rm", "-f", id)
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range procs {
		comm, err := os.ReadFile(p + "/comm")
		if err != nil || strings.TrimSpace(string(comm)) != "rbox-network" {
			continue
		}
		kib, owner := residentOf(p + "/status")
		if owner != b.Who.UID || kib == 0 { // a zombie has none
			continue
		}
		fmt.Printf("%-44s %10.1f MiB resident\n", "a network process that has nothing to do", float64(kib)/1024)
		fmt.Printf("  %-42s %s\n\n", "25 MiB at most", met(kib <= 25<<10))
		return nil
	}
	return errors.New("no network process was found")
}

// residentOf reads VmRSS, KiB, and the user id from a status file (proc_pid_status(5)).
func residentOf(path string) (kib uint64, uid uint32) {
	f, err := os.Open(path)
	if err != nil {
		return 0, 0
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 {
			continue
		}
		n, _ := strconv.ParseUint(fields[1], 10, 64)
		switch fields[0] {
		case "VmRSS:":
			kib = n
		case "Uid:":
			uid = uint32(n)
		}
	}
	return kib, uid
}
