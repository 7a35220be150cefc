// Probe tries from inside of a container what confinement is about, each thing
// in a process of its own, and prints a line for each: what was tried, and
// "allowed" or why not. It does no harm where all is allowed: what would change
// the machine is asked for with arguments that the kernel refuses only after it
// has looked at privileges.
//
// It runs in any container, for tests that hold one runtime against another.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// A probe is one thing to try.
type probe struct {
	name string // unique, for people
	try  func() error
	// through are the failures that show that privileges were not what it
	// failed for.
	through []error
}

// A group is what a heading stands above.
type group struct {
	title  string
	probes []probe
}

// groups are all probes, in the order of the table.
func groups() []group {
	return []group{
		{"Capabilities at work", capabilities()},
		{"Namespaces and mounts", namespaces()},
		{"System calls", append(systemCalls(), machineCalls()...)},
		{"/proc and /sys", kernelFiles()},
		{"Devices", devices()},
		{"Others", others()},
	}
}

func main() {
	runtime.LockOSThread() // unshare(2) and its like are of a thread
	if len(os.Args) > 1 && os.Args[1] == waitWord {
		unix.Pause()
	}
	if len(os.Args) > 2 {
		p := probe{try: func() error { return attacks()[os.Args[1]](os.Args[2]) }}
		fmt.Println(p.verdict())
		return
	}
	if len(os.Args) > 1 {
		fmt.Print(tryOne(os.Args[1]))
		return
	}
	for _, g := range groups() {
		fmt.Println("# " + g.title)
		for _, p := range g.probes {
			fmt.Printf("%s\t%s\n", p.name, inProcess(p.name))
		}
	}
}

// inProcess tries the probe called name in a process of its own, which it may spoil.
func inProcess(name string) string {
	cmd := exec.Command("/proc/self/exe", name)
	var out bytes.Buffer
	cmd.Stdout = &out
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signaled():
		return "killed"
	case err != nil:
		return err.Error()
	}
	return out.String()
}

// tryOne is what inProcess runs.
func tryOne(name string) string {
	for _, g := range groups() {
		for _, p := range g.probes {
			if p.name == name {
				return p.verdict()
			}
		}
	}
	return "unknown"
}

// verdict is "allowed", "absent" where there is nothing to allow, or why not.
func (p *probe) verdict() string {
	err := p.try()
	if err == nil {
		return "allowed"
	}
	for _, through := range p.through {
		if errors.Is(err, through) {
			return "allowed"
		}
	}
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) {
		return "absent"
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return unix.ErrnoName(errno)
	}
	return err.Error()
}

// call is the system call nr as an error.
func call(nr uintptr, args ...uintptr) error {
	var a [6]uintptr
	copy(a[:], args)
	if _, _, errno := unix.Syscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5]); errno != 0 {
		return errno
	}
	return nil
}
