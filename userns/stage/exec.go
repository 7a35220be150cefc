package stage

import (
	"golang.org/x/sys/unix"

	"rbox/userns"
)

// A Namespace is one that a further program of a container joins.
type Namespace struct {
	Kind string // as in /proc/PID/ns
	File int    // open descriptor
}

// EnterStep is the name of the step that fails with ENOMEM once the container's
// pid namespace has ended.
const EnterStep = "become a process of the container"

// Join is the life of a further program of the container until its exec: p's
// Process says what it is. namespaces are in the order to join them, user first:
// it gives the right to join the others.
func (p *Plan) Join(r Ready, namespaces []Namespace) *userns.Program {
	c := p.program()
	for _, ns := range namespaces {
		if ns.Kind != "time" {
			c.Call("join the container's "+ns.Kind+" namespace", unix.SYS_SETNS, ns.File, 0)
		}
	}
	c.Fork(EnterStep, unix.CLONE_PARENT)
	for _, ns := range namespaces {
		if ns.Kind == "time" { // which a process that shares its memory may not
			c.Call("join the container's time namespace", unix.SYS_SETNS, ns.File, 0)
		}
	}
	p.attach(c, r)
	p.drop(c, r.Account)
	c.Call(ChdirStep+p.Process.Cwd, unix.SYS_CHDIR, c.Str(p.Process.Cwd)).SkipIf0(regCwd)
	c.DefaultSignals()
	p.filter(c)
	p.exec(c, r)
	return c
}
