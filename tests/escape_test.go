package tests

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
)

// What the monitor has open must not be there for a working directory or a
// program that leads to it: neither may be the host's.
func TestDescriptorsOfTheMonitor(t *testing.T) {
	b := newBox(t, keeps)
	b.must("run", "-d", "--name", "box", "alpine", "sleep", "1000")
	b.must("exec", "box", "sh", "-c", "for n in $(seq 3 20); do ln -s /proc/self/fd/$n /dir$n; done")
	for n := 3; n <= 20; n++ {
		fd := fmt.Sprint("/proc/self/fd/", n)
		if n%5 == 0 { // an image may ask for it, too
			b.must("import", "--change", "WORKDIR "+fd, run.alpine, fmt.Sprint("there", n))
			if got := b.rbox("run", "--rm", fmt.Sprint("there", n), "true"); got.status == 0 {
				t.Errorf("WORKDIR %s: %v", fd, got)
			}
		}
		for _, args := range [][]string{
			{"run", "--rm", "-w", fd, "alpine", "true"},
			{"run", "--rm", "--init", "-w", fd, "alpine", "true"},
			{"run", "--rm", "-t", "-w", fd, "alpine", "true"},
			{"exec", "-w", fd, "box", "true"},
			{"exec", "-t", "-w", fmt.Sprint("/dir", n), "box", "true"},
			{"exec", "box", fd},
		} {
			if got := b.rbox(args...); got.status == 0 {
				t.Errorf("rbox %s: %v", strings.Join(args, " "), got)
			}
		}
	}
}

// A script whose interpreter is /proc/self/exe makes the container run the
// executable that its processes begin as. It must not become writable by that.
func TestExecutableOfTheMonitor(t *testing.T) {
	b := newBox(t, keeps)
	b.must("run", "-d", "--name", "box", "alpine", "sleep", "1000")
	b.must("exec", "box", "sh", "-c", `printf '#!/proc/self/exe\n' >/evil; chmod +x /evil`)
	// Its complaint waits for room in a pipe.
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if err := w.Chown(int(b.who.UID), int(b.who.GID)); err != nil {
		t.Fatal(err)
	}
	fd := int(w.Fd())
	syscall.SetNonblock(fd, true)
	for err == nil {
		_, err = syscall.Write(fd, make([]byte, 4096))
	}
	syscall.SetNonblock(fd, false)
	b.start(call{prog: "/bin/sh", args: []string{"-c", run.bin + " exec box /evil 2>&3"}, files: []*os.File{w}})
	got := b.rbox("exec", "box", "sh", "-c", `for n in $(seq 200); do
		for exe in /proc/[0-9]*/exe; do
			case $(readlink $exe) in *rbox-stage*)
				chmod 755 $exe 2>&1
				exit
			esac
		done
	done`)
	if !strings.Contains(got.stdout, "Read-only file system") {
		t.Errorf("chmod of the monitor's executable: %v", got)
	}
}

// What becomes a program of exec has the monitor's memory until then. A
// container that holds it up on its way, with all capabilities, cannot look into
// that, nor at what the monitor has open (CVE-2016-9962).
func TestMemoryOfTheMonitor(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	probe := buildProbe(t, b)
	b.must("run", "-d", "--name", "box", "--privileged", "-v", probe+":/probe:ro", "alpine", "/probe", "ambush", "/x")
	b.seeLog("box", "ready")
	p := b.start(call{args: []string{"exec", "-w", "/x", "box", "true"}})
	b.must("wait", "box")
	if got := b.must("logs", "box"); got != "ready\nEPERM" {
		t.Errorf("the container says %q", got)
	}
	if got := p.wait(); got.status == 0 {
		t.Errorf("exec was not held up: %v", got)
	}
}
