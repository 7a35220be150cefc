package container

import (
	"bufio"
	"io"
	"os"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// pty makes a terminal as newTerminal does, of the host's.
func pty(t *testing.T) terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	return terminal{master: master, slave: slave}
}

// What is typed after the end of a run is for the next, whether rbox has been
// told of the end or not.
func TestInletBetweenTwoRuns(t *testing.T) {
	for name, told := range map[string]bool{"told": true, "not told": false} {
		t.Run(name, func(t *testing.T) {
			first, second := pty(t), pty(t)
			in := inlet{terminal: true}
			in.lead(first.master)
			first.deafen()
			first.over()
			if n, err := unix.Write(int(first.master.Fd()), []byte("lost\r")); err != unix.EAGAIN {
				t.Fatalf("a terminal that is over takes %d bytes: %v", n, err)
			}
			typed := make(chan error, 1)
			if told {
				in.lead(nil)
				_, err := io.WriteString(&in, "word\r") // does not wait
				typed <- err
			} else {
				go func() {
					_, err := io.WriteString(&in, "word\r")
					typed <- err
				}()
			}
			in.lead(second.master)
			got, err := bufio.NewReader(second.slave).ReadString('\n')
			if err != nil || got != "word\n" {
				t.Errorf("the next run reads %q, %v", got, err)
			}
			if err := <-typed; err != nil {
				t.Error(err)
			}
		})
	}
}

// Once a pipe's input has ended no run to come waits for more.
func TestInletEnded(t *testing.T) {
	var in inlet
	in.end()
	r, w, err := pipe(false, false)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	in.lead(w)
	if got, err := io.ReadAll(r); err != nil || len(got) != 0 {
		t.Errorf("read %q, %v", got, err)
	}
}
