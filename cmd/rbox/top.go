//go:build !front

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"rbox/userns/container"
)

// TopCmd shows the processes of a container.
type TopCmd struct {
	Container string   `arg:"" name:"CONTAINER" help:"Name or id."`
	Options   []string `arg:"" optional:"" passthrough:"" name:"PS-OPTION" help:"Options of ps(1), -ef unless others are given; its output must have a column PID."`
}

// Run has the host's ps show its table, and prints the container's part of it.
func (c *TopCmd) Run(app *App) error {
	home, err := app.Home()
	if err != nil {
		return err
	}
	info, err := findContainer(home, c.Container)
	if err != nil {
		return err
	}
	if !info.Running || info.State.Pid == 0 {
		return &container.NotRunningError{Name: c.Container}
	}
	table, err := c.ps(app)
	if err != nil {
		return err
	}
	rows, err := psRows(table, processesOf(info.State))
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(visibleWriter{app.Stdout}, 20, 1, 3, ' ', 0) // Docker's
	for _, row := range rows {
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	return w.Flush()
}

// ps runs the host's ps as root of the outer user namespace: users are shown
// by the ids that they have there, which are a container's unless it has maps
// of its own.
func (c *TopCmd) ps(app *App) (string, error) {
	path, err := exec.LookPath("ps")
	if err != nil {
		return "", &adviceError{errors.New("top: the program ps is not on this host"), "install procps"}
	}
	options := c.Options
	if len(options) == 0 {
		options = []string{"-ef"}
	}
	outer, err := app.Outer()
	if err != nil {
		return "", err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer r.Close()
	cmd := outer.Command(path, options...)
	cmd.Stdout, cmd.Stderr = w, os.Stderr
	err = cmd.Start()
	w.Close()
	if err != nil {
		return "", err
	}
	var b bytes.Buffer
	_, err = b.ReadFrom(r)
	status, waitErr := cmd.Wait()
	if err = errors.Join(err, waitErr); err == nil && status != 0 {
		err = fmt.Errorf("top: ps %s failed", strings.Join(options, " "))
	}
	return b.String(), err
}

// psRows are the headings of a table of ps, and its rows of these processes. The
// last column takes the rest of its line.
func psRows(table string, pids map[int]bool) ([][]string, error) {
	lines := strings.Split(strings.TrimSpace(table), "\n")
	head := strings.Fields(lines[0])
	at := slices.Index(head, "PID")
	if at < 0 {
		return nil, &adviceError{errors.New("top: couldn't find PID field in ps output"), "add pid to the columns: -o pid,…"}
	}
	rows := [][]string{head}
	for _, line := range lines[1:] {
		fields := strings.Fields(line)
		if len(fields) <= at {
			continue
		}
		if pid, err := strconv.Atoi(fields[at]); err != nil || !pids[pid] {
			continue
		}
		if n := len(head); len(fields) > n {
			fields = append(fields[:n-1:n-1], strings.Join(fields[n-1:], " "))
		}
		rows = append(rows, fields)
	}
	return rows, nil
}

// processesOf are the container's: process 1 and those that descend from it,
// and what its monitor has started in it, without what is rbox's own.
func processesOf(s container.State) map[int]bool {
	children := map[int][]int{}
	names := map[int]string{}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		parent, name, err := parentOf(pid)
		if err == nil { // else it has ended
			children[parent] = append(children[parent], pid)
			names[pid] = name
		}
	}
	pids := map[int]bool{}
	var add func(pid int)
	add = func(pid int) {
		pids[pid] = true
		for _, child := range children[pid] {
			add(child)
		}
	}
	add(s.Pid)
	for _, child := range children[s.Monitor] {
		if own := names[child] == "fuse-overlayfs" || strings.HasPrefix(names[child], "rbox"); !own && s.Monitor != 0 && !pids[child] {
			add(child)
		}
	}
	return pids
}

// parentOf reads the parent and the name of a process (proc_pid_stat(5)).
func parentOf(pid int) (parent int, name string, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, "", err
	}
	// The name is in brackets and may hold anything.
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || end < open {
		return 0, "", errors.New("unreadable")
	}
	_, err = fmt.Sscanf(string(b[end+1:]), " %s %d", new(string), &parent)
	return parent, string(b[open+1 : end]), err
}
