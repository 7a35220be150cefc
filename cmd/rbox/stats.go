//go:build !front

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"rbox/cgroupv2"
	"rbox/userns/container"
)

// StatsCmd shows what containers use.
type StatsCmd struct {
	All      bool     `short:"a" help:"Show those that do not run, too."`
	NoStream bool     `help:"Show it once; the processor's share is then since each one's start."`
	NoTrunc  bool     `help:"Show whole ids."`
	Format   string   `help:"Print by a Go template, or json, or table and a template." placeholder:"TEMPLATE"`
	IDs      []string `arg:"" optional:"" name:"CONTAINER" help:"Names or ids; all that run if there are none."`
}

// A statsRow is one line, with Docker's field names.
type statsRow struct {
	BlockIO   string
	CPUPerc   string
	Container string
	ID        string
	MemPerc   string
	MemUsage  string
	Name      string
	NetIO     string
	PIDs      string

	cpu    float64
	memory int64
}

func statsListing() listing {
	return listing{
		columns: []column{
			{"BlockIO", "BLOCK I/O"}, {"CPUPerc", "CPU %"}, {"Container", "CONTAINER"}, {"ID", "CONTAINER ID"}, {"MemPerc", "MEM %"},
			{"MemUsage", "MEM USAGE / LIMIT"}, {"Name", "NAME"}, {"NetIO", "NET I/O"}, {"PIDs", "PIDS"},
		},
		standard: []string{"ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs"},
	}
}

// statsPause is between two looks.
const statsPause = time.Second

// Run shows the table once, or until the user has seen enough.
func (c *StatsCmd) Run(app *App) error {
	home, err := app.Home()
	if err != nil {
		return err
	}
	s := &sampler{home: home, all: c.All, noTrunc: c.NoTrunc, names: c.IDs, host: hostMemory()}
	if !c.NoStream && isTerminal(1) && c.Format == "" {
		return c.live(app, s)
	}
	for {
		rows, err := s.sample()
		if err != nil {
			return err
		}
		if err := c.print(app, rows); err != nil || c.NoStream {
			return err
		}
		time.Sleep(statsPause)
	}
}

func (c *StatsCmd) print(app *App, rows []statsRow) error {
	list := make([]any, len(rows))
	for i := range rows {
		list[i] = rows[i]
	}
	return statsListing().print(app.Stdout, c.Format, list)
}

// live redraws the table in its place: over the old one and in one write, so
// that nothing flickers. Keys change the order, or end it.
func (c *StatsCmd) live(app *App, s *sampler) error {
	keys, restore := readKeys()
	defer restore()
	tick := time.NewTicker(statsPause)
	defer tick.Stop()
	rows, err := s.sample()
	for err == nil {
		var table bytes.Buffer
		s.sort(rows)
		if err = (&StatsCmd{}).print(&App{Stdout: &table}, rows); err != nil {
			break
		}
		if _, err = app.Stdout.Write(redrawn(table.String(), s.order)); err != nil {
			break
		}
		select {
		case <-tick.C:
			rows, err = s.sample()
		case key := <-keys:
			switch key {
			case 's':
				s.order = (s.order + 1) % len(statsOrders)
			case 'q', 3: // Ctrl-C
				fmt.Fprint(app.Stdout, "\x1b[J")
				return nil
			}
		}
	}
	return err
}

// redrawn is what draws text over the whole screen: each line with what clears
// the rest of it, then what clears the lines below.
func redrawn(text string, order int) []byte {
	b := []byte("\x1b[H")
	lines := strings.SplitAfter(text, "\n")
	if size, err := unix.IoctlGetWinsize(1, unix.TIOCGWINSZ); err == nil && len(lines) > int(size.Row)-1 && size.Row > 2 {
		lines = lines[:size.Row-2] // more would scroll
	}
	for _, line := range lines {
		b = append(append(b, strings.TrimSuffix(line, "\n")...), "\x1b[K\r\n"...)
	}
	return fmt.Appendf(b, "by %s (s: another order, q: end)\x1b[K\x1b[J\r", statsOrders[order])
}

// statsOrders are what s goes through.
var statsOrders = [...]string{"name", "CPU", "memory"}

// readKeys yields what is typed, a byte each, without waiting for the end of a
// line, until restore is called.
func readKeys() (keys <-chan byte, restore func()) {
	typed := make(chan byte)
	old, err := unix.IoctlGetTermios(0, unix.TCGETS)
	if err != nil {
		return typed, func() {}
	}
	raw := *old
	raw.Lflag &^= unix.ICANON | unix.ECHO | unix.ISIG
	unix.IoctlSetTermios(0, unix.TCSETS, &raw)
	go func() {
		for b := make([]byte, 1); ; {
			if n, err := os.Stdin.Read(b); n != 1 || err != nil {
				return
			}
			typed <- b[0]
		}
	}()
	return typed, func() { unix.IoctlSetTermios(0, unix.TCSETS, old) }
}

// sampler looks at containers again and again.
type sampler struct {
	home         *container.Home
	all, noTrunc bool
	names        []string
	host         int64 // memory, bytes
	order        int
	before       map[string]look
}

// look is what one container had used at a time.
type look struct {
	at  time.Time
	cpu time.Duration
}

// sample reads what the containers use. Of one that was seen before, the
// processor's share is since then.
func (s *sampler) sample() (rows []statsRow, err error) {
	list, err := s.containers()
	if err != nil {
		return nil, err
	}
	now := map[string]look{}
	for _, info := range list {
		row := s.row(info, now)
		rows = append(rows, row)
	}
	s.before = now
	return rows, nil
}

// containers are those that the user wants to see.
func (s *sampler) containers() (list []container.Info, err error) {
	if len(s.names) == 0 {
		all, err := s.home.List()
		for _, info := range all {
			if info.Running || s.all {
				list = append(list, info)
			}
		}
		return list, err
	}
	for _, name := range s.names {
		info, err := findContainer(s.home, name)
		if err != nil {
			return nil, err
		}
		list = append(list, info)
	}
	return list, nil
}

// row shows one container. What nothing counts is "--", as with Docker.
func (s *sampler) row(info container.Info, now map[string]look) statsRow {
	id := info.Config.ID
	r := statsRow{ID: container.Short(id), Name: info.Name(), BlockIO: "--", CPUPerc: "--", MemPerc: "--", MemUsage: "-- / --", NetIO: "--", PIDs: "--"}
	if s.noTrunc {
		r.ID = id
	}
	r.Container = r.ID
	if !info.Running || info.State.Pid == 0 {
		return r
	}
	if in, out, err := traffic(info.State.Pid); err == nil {
		r.NetIO = humanSize(in, 3) + " / " + humanSize(out, 3)
	}
	if info.State.Cgroup == "" {
		return r
	}
	u, err := cgroupv2.Read(info.State.Cgroup)
	if err != nil { // it has just ended
		return r
	}
	seen := look{time.Now(), u.CPU}
	since, ok := s.before[id]
	if !ok {
		since = look{at: info.State.Started}
	}
	now[id] = seen
	if passed := seen.at.Sub(since.at); passed > 0 {
		r.cpu = 100 * float64(u.CPU-since.cpu) / float64(passed)
	}
	r.CPUPerc = fmt.Sprintf("%.2f%%", r.cpu)
	r.memory = u.Memory
	limit := u.MemoryLimit
	if limit == 0 || limit > s.host {
		limit = s.host
	}
	if u.Counted["memory"] {
		r.MemUsage = binarySize(u.Memory) + " / " + binarySize(limit)
		r.MemPerc = fmt.Sprintf("%.2f%%", 100*float64(u.Memory)/float64(max(limit, 1)))
	}
	if u.Counted["io"] {
		r.BlockIO = humanSize(u.Read, 3) + " / " + humanSize(u.Written, 3)
	}
	if u.Counted["pids"] {
		r.PIDs = strconv.FormatInt(u.Pids, 10)
	}
	return r
}

// sort puts rows in the order that the user has chosen.
func (s *sampler) sort(rows []statsRow) {
	slices.SortStableFunc(rows, func(a, b statsRow) int {
		switch {
		case s.order == 1 && a.cpu != b.cpu:
			return int(b.cpu*100 - a.cpu*100)
		case s.order == 2 && a.memory != b.memory:
			return int(max(-1, min(1, b.memory-a.memory)))
		}
		return strings.Compare(a.Name, b.Name)
	})
}

// traffic adds up what the interfaces of a process's network have received and
// sent, but for the loopback: the columns 1 and 9 of /proc/PID/net/dev.
func traffic(pid int) (in, out int64, err error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/net/dev")
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(text)) {
		name, counters, ok := strings.Cut(line, ":")
		f := strings.Fields(counters)
		if !ok || strings.TrimSpace(name) == "lo" || len(f) < 9 {
			continue
		}
		received, err1 := strconv.ParseInt(f[0], 10, 64)
		sent, err2 := strconv.ParseInt(f[8], 10, 64)
		if errors.Join(err1, err2) == nil {
			in, out = in+received, out+sent
		}
	}
	return in, out, nil
}

// hostMemory is this machine's memory, bytes.
func hostMemory() int64 {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0
	}
	return int64(info.Totalram) * int64(info.Unit)
}

// binarySize is n bytes in units of 1024, as Docker shows memory.
func binarySize(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	size, i := float64(n), 0
	for ; size >= 1024 && i < len(units)-1; i++ {
		size /= 1024
	}
	return strconv.FormatFloat(size, 'g', 4, 64) + units[i]
}
