package container

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"rbox/userns"
	"rbox/userns/confine"
	"rbox/userns/stage"
)

// An ExecRequest is a further program for a running container. Empty fields
// are as the container's own program has them.
type ExecRequest struct {
	Args       []string
	Env        []string // replaces the container's, name by name
	Cwd        string
	User       string
	Terminal   bool
	Rows, Cols uint16
	Privileged bool // with all capabilities of the container's user namespace
	Detach     bool // it outlives the client
	Preserve   int  // descriptors beyond 2 to keep
}

// exec starts a program for c and tells c of its start and end.
func (m *monitor) exec(c *client, files []*os.File) {
	defer closeFiles(files)
	c.mu.Lock()
	c.guest = true
	c.mu.Unlock()
	if err := m.admit(); err != nil {
		c.send(message{Failed: failure(err)})
		return
	}
	e, tty, child, err := m.startExec(files)
	master, detach := tty.master, e.Detach
	events := m.execEvents(e)
	if err != nil {
		m.guests.Done()
		c.send(message{Failed: failure(err)})
		events.started()
		return
	}
	if !detach {
		c.mu.Lock()
		c.exec, c.master = child, master
		c.mu.Unlock()
	}
	if master != nil {
		c.send(message{Started: child.Pid, Streams: streamTerminal | streamInput}, master)
	} else {
		c.send(message{Started: child.Pid})
	}
	if detach && master != nil {
		go drain(master)
	}
	go func() {
		defer m.guests.Done()
		events.started()
		events.died(awaitExec(c, child, tty))
	}()
}

// admit counts a further program, unless the container has ended or would not
// let it begin.
func (m *monitor) admit() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.child == nil {
		return errNotRunning
	}
	if m.state.Paused {
		return errPaused
	}
	m.guests.Add(1)
	return nil
}

// startExec starts what files, as they came with a request, ask for.
func (m *monitor) startExec(files []*os.File) (e ExecRequest, tty terminal, child *userns.Child, err error) {
	if len(files) == 0 {
		return e, tty, nil, fmt.Errorf("exec: the request did not come")
	}
	request := files[0]
	files[0] = nil
	if err := readHanded(request, &e); err != nil {
		return e, tty, nil, fmt.Errorf("exec: read the request: %w", err)
	}
	m.mu.Lock()
	pid := m.state.Pid
	m.mu.Unlock()
	streams := files[1:]
	if len(e.Args) == 0 || len(streams) != 3+e.Preserve {
		return e, tty, nil, fmt.Errorf("exec: the request is not whole")
	}
	plan, account, err := m.execPlan(e)
	if err != nil {
		return e, tty, nil, err
	}
	ready := stage.Ready{Account: account, Streams: numbers(streams[:3]), Kept: numbers(streams[3:]), InitFile: -1, JoinUser: -1}
	if e.Terminal {
		if tty, err = m.newTerminal(account, e.Rows, e.Cols); err != nil {
			return e, tty, nil, fmt.Errorf("make a terminal: %w", err)
		}
		ready.Terminal = tty.name
	}
	err = m.onMain(func() (err error) {
		child, err = m.join(plan, ready, pid)
		return err
	})
	if err != nil {
		closeFiles([]*os.File{tty.master, tty.slave})
	}
	return e, tty, child, err
}

// execPlan is the container's plan with e's program, and who runs it.
func (m *monitor) execPlan(e ExecRequest) (*stage.Plan, stage.Account, error) {
	plan := m.Plan
	p := &plan.Process
	user, groups := p.User, p.Groups
	if e.User != "" && e.User != user {
		p.Ambient = 0 // they were given to the container's user
	}
	if e.User != "" {
		user, groups, p.KeepGroups = e.User, nil, false
	}
	account, err := stage.Lookup(user, groups, func(name string) ([]byte, error) {
		return m.tree.ReadFile(name, maxAccountFile)
	})
	if err == nil {
		err = m.checkMapped(account)
	}
	if err != nil {
		return nil, account, err
	}
	p.Args, p.Terminal, p.Init, p.Preserve = e.Args, e.Terminal, false, e.Preserve
	p.Env = completeEnv(mergeEnv(m.env, e.Env), account, e.Terminal)
	if e.Cwd != "" {
		p.Cwd = e.Cwd
	}
	if e.Privileged {
		p.Capabilities = confine.AllCapabilities
	}
	return &plan, account, nil
}

// mergeEnv is env with those of more, which replace what has the same name.
func mergeEnv(env, more []string) []string {
	at := map[string]int{}
	out := make([]string, 0, len(env)+len(more))
	for _, list := range [][]string{env, more} {
		for _, kv := range list {
			name, _, _ := strings.Cut(kv, "=")
			if i, ok := at[name]; ok {
				out[i] = kv
				continue
			}
			at[name] = len(out)
			out = append(out, kv)
		}
	}
	return out
}

// namespaceKinds are all there are, in the order to join them.
var namespaceKinds = [...]string{"user", "cgroup", "ipc", "uts", "net", "pid", "mnt", "time"}

// join starts plan's program in the namespaces of the process pid.
func (m *monitor) join(plan *stage.Plan, ready stage.Ready, pid int) (*userns.Child, error) {
	var namespaces []stage.Namespace
	for _, kind := range namespaceKinds {
		ns, err := os.Open("/proc/" + strconv.Itoa(pid) + "/ns/" + kind)
		if err != nil {
			if kind == "time" { // Linux 5.6
				continue
			}
			return nil, errNotRunning
		}
		defer ns.Close()
		if !ownNamespace(ns, kind) {
			namespaces = append(namespaces, stage.Namespace{Kind: kind, File: int(ns.Fd())})
		}
	}
	userns.RestoreNoFile()
	child, err := userns.Start(plan.Join(ready, namespaces), 0, m.group.FD())
	if err == nil {
		err = child.Started()
	}
	if err != nil {
		if child != nil {
			child.Kill()
		}
		var step *userns.StepError
		if errors.As(err, &step) && step.Step == stage.EnterStep && step.Err == unix.ENOMEM {
			return nil, errNotRunning // its process 1 has just ended
		}
		return nil, explain(err, ready.Account)
	}
	return child, nil
}

// ownNamespace tells whether our children are in ns anyhow.
func ownNamespace(ns *os.File, kind string) bool {
	if kind == "time" {
		kind = "time_for_children" // the main thread's
	}
	var a, b unix.Stat_t
	return unix.Fstat(int(ns.Fd()), &a) == nil && unix.Stat("/proc/self/ns/"+kind, &b) == nil && a.Ino == b.Ino
}

// awaitExec reaps the program, tells its client and returns its exit status.
func awaitExec(c *client, child *userns.Child, tty terminal) (status int) {
	child.AwaitEnd()
	tty.over()
	c.mu.Lock()
	c.exec = nil
	c.mu.Unlock()
	status = killed
	if ws, err := child.Wait(); err == nil && ws.Exited() {
		status = ws.ExitStatus()
	} else if err == nil {
		status = 128 + int(ws.Signal())
	}
	c.send(message{Ended: &ended{Status: status}})
	tty.master.Close()
	return status
}
