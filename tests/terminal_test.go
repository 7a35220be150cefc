package tests

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal is a pseudo-terminal with a test where a person would sit.
type terminal struct {
	t             testing.TB
	master, slave *os.File
	out           *capture // all that was printed on it
	seen          int      // how much of out the test has looked at
}

// newTerminal opens a terminal of 24 lines and 80 columns for b's account.
func newTerminal(b *box) *terminal {
	b.t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		b.t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		b.t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := slave.Chown(int(b.who.UID), -1); err != nil {
		b.t.Fatal(err)
	}
	term := &terminal{t: b.t, master: master, slave: slave, out: new(capture)}
	term.resize(24, 80)
	go io.Copy(term.out, master)
	b.t.Cleanup(func() {
		master.Close()
		slave.Close()
	})
	return term
}

func (t *terminal) resize(rows, columns uint16) {
	t.t.Helper()
	if err := unix.IoctlSetWinsize(int(t.master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns}); err != nil {
		t.t.Fatal(err)
	}
}

// write types text.
func (t *terminal) write(text string) {
	t.t.Helper()
	if _, err := io.WriteString(t.master, text); err != nil {
		t.t.Fatal(err)
	}
}

// see waits until text is printed after what was seen before.
func (t *terminal) see(text string) {
	t.t.Helper()
	ok := eventually(20*time.Second, func() bool {
		rest := t.out.String()[t.seen:]
		i := strings.Index(rest, text)
		if i >= 0 {
			t.seen += i + len(text)
		}
		return i >= 0
	})
	if !ok {
		t.t.Fatalf("the terminal does not show %q; it shows %q", text, t.out.String())
	}
}

// modes are the terminal's settings, to compare.
func (t *terminal) modes() unix.Termios {
	t.t.Helper()
	m, err := unix.IoctlGetTermios(int(t.slave.Fd()), unix.TCGETS)
	if err != nil {
		t.t.Fatal(err)
	}
	return *m
}

func (t *terminal) isRaw() bool { return t.modes().Lflag&unix.ICANON == 0 }
