package container

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"rbox/userns"
	"rbox/userns/stage"
	"rbox/userns/wire"
)

// line is both ends of a control socket.
func line(t *testing.T) (a, b int) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(pair[0]); unix.Close(pair[1]) })
	return pair[0], pair[1]
}

func TestMessages(t *testing.T) {
	for name, m := range map[string]message{
		"started": {Started: 7},
		"failed":  {Failed: &Failure{"run \"x\": no\nsuch", "hint", 127}},
		"ended":   {Ended: &ended{Status: 0}},
		"notice":  {Notice: "ä\x01"},
		"signal":  {Signal: 15},
		"none":    {},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := line(t)
			if err := send(a, m); err != nil {
				t.Fatal(err)
			}
			if got, files, err := receive(b); err != nil || len(files) > 0 || !reflect.DeepEqual(got, m) {
				t.Errorf("got %+v, %v, %v; want %+v", got, files, err, m)
			}
		})
	}
}

// Messages stay apart and in order, and a file comes with its own.
func TestMessagesWithFiles(t *testing.T) {
	a, b := line(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := errors.Join(send(a, message{Signal: 1}), send(a, message{Started: 7}, w, w), send(a, message{Signal: 2})); err != nil {
		t.Fatal(err)
	}
	w.Close()
	for i, want := range []struct {
		m     message
		files int
	}{{message{Signal: 1}, 0}, {message{Started: 7}, 2}, {message{Signal: 2}, 0}} {
		m, files, err := receive(b)
		if err != nil || m != want.m || len(files) != want.files {
			t.Fatalf("message %d: %+v, %d files, %v", i, m, len(files), err)
		}
		for _, f := range files {
			if flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("descriptor flags %#x, %v: open across exec", flags, err)
			}
			if _, err := f.WriteString("x"); err != nil {
				t.Error(err)
			}
			f.Close()
		}
	}
	if got, err := io.ReadAll(r); err != nil || string(got) != "xx" {
		t.Errorf("through the passed files came %q, %v", got, err)
	}
}

func TestEndOfMessages(t *testing.T) {
	a, b := line(t)
	if err := errors.Join(send(a, message{Signal: 1}), unix.Shutdown(a, unix.SHUT_WR)); err != nil {
		t.Fatal(err)
	}
	if m, _, err := receive(b); err != nil || m.Signal != 1 {
		t.Errorf("before the end: %+v, %v", m, err)
	}
	if _, _, err := receive(b); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
	// The other side died with a message of ours unread.
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	if err := errors.Join(send(pair[0], message{Signal: 1}), unix.Close(pair[1])); err != nil {
		t.Fatal(err)
	}
	if _, _, err := receive(pair[0]); err != io.EOF {
		t.Errorf("after a death: %v", err)
	}
	if err := send(pair[0], message{Signal: 1}); err == nil {
		t.Error("a message to nobody was sent")
	}
}

func TestForeignMessage(t *testing.T) {
	a, b := line(t)
	if _, err := unix.Write(a, []byte("{")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := receive(b); err == nil || err == io.EOF {
		t.Errorf("got %v, want an error", err)
	}
}

// A command's name can be as long as the user likes, and is in the message.
func TestLongMessage(t *testing.T) {
	a, b := line(t)
	f := failure(explain(&userns.StepError{Step: "exec " + strings.Repeat("\x01", 100<<10), Err: unix.ENOENT}, stage.Account{}))
	if err := send(a, message{Failed: f}); err != nil {
		t.Fatal(err)
	}
	if m, _, err := receive(b); err != nil || m.Failed == nil || m.Failed.Text != f.Text || m.Failed.Status != 127 {
		t.Errorf("got %+v, %v", m.Failed, err)
	}
}

// FuzzMessage hears anything on the monitor's socket, as one message or as the
// request that comes with it: it is an error, or what would be sent so again.
func FuzzMessage(f *testing.F) {
	for _, m := range []message{
		{}, {Signal: 15, Stop: true}, {Started: 7, Streams: streamInput | streamTerminal}, {Failed: &Failure{"run \"x\"", "hint", 127}},
		{Run: &order{Dir: "/d", Detach: true}}, {Attach: &attachRequest{Input: true}}, {Rename: "\x1b"}, {Raw: &unix.Termios{}}, {Ended: &ended{137, true}},
	} {
		f.Add(wire.Append(nil, m))
	}
	f.Add(wire.Append(nil, ExecRequest{Args: []string{"sh"}, Env: []string{"A=b"}, User: "kim"}))
	f.Add(wire.Append(nil, stage.Plan{Hostname: "box"}))
	f.Add([]byte("{"))
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 || len(b) > maxMessage { // which would be the end, or be cut
			return
		}
		if _, err := unix.Write(pair[0], b); err != nil {
			t.Fatal(err)
		}
		m, files, err := receive(pair[1])
		if len(files) > 0 {
			t.Errorf("with %d files", len(files))
		}
		if err == nil {
			again(t, m)
		}
		heardAs[ExecRequest](t, b)
		heardAs[stage.Plan](t, b)
	})
}

// heardAs reads b as a T, if it is one.
func heardAs[T any](t *testing.T, b []byte) {
	var v T
	if wire.Read(b, &v) == nil {
		again(t, v)
	}
}

// again checks that v comes through the wire as it is.
func again[T any](t *testing.T, v T) {
	t.Helper()
	var second T
	if err := wire.Read(wire.Append(nil, v), &second); err != nil || !reflect.DeepEqual(v, second) {
		t.Errorf("%+v comes again as %+v, %v", v, second, err)
	}
}

func TestForwardedSignals(t *testing.T) {
	for _, terminal := range []bool{false, true} {
		has := map[os.Signal]bool{}
		for _, s := range forwarded(terminal) {
			has[s] = true
		}
		for sig, want := range map[unix.Signal]bool{
			unix.SIGINT: true, unix.SIGTERM: true, unix.SIGHUP: true, unix.SIGQUIT: true, unix.SIGUSR1: true, unix.SIGWINCH: true,
			unix.SIGCHLD: false, unix.SIGPIPE: false, unix.SIGURG: false, unix.SIGKILL: false, unix.SIGSTOP: false,
			unix.SIGTTIN: !terminal, unix.SIGTTOU: !terminal,
		} {
			if has[sig] != want {
				t.Errorf("terminal %t, %v: %t", terminal, sig, has[sig])
			}
		}
	}
}

// What was said before the end is heard even if the other side left a message
// of ours unread, for which the kernel first answers ECONNRESET.
func TestLastWordsOfOneWhoDidNotListen(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	if err := errors.Join(send(pair[1], message{Notice: "last words"}), send(pair[0], message{Listening: true})); err != nil {
		t.Fatal(err)
	}
	unix.Close(pair[1])
	if m, _, err := receive(pair[0]); err != nil || m.Notice != "last words" {
		t.Errorf("got %+v, %v", m, err)
	}
	if _, _, err := receive(pair[0]); err != io.EOF {
		t.Errorf("then got %v, want the end", err)
	}
}

// The socket has its name once it can be reached, as who waits for the file believes.
func TestSocketHasItsNameOnceItListens(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, controlName)
	for range 2000 {
		made := make(chan int)
		go func() {
			sock, err := listenControl(dir)
			if err != nil {
				t.Error(err)
			}
			made <- sock
		}()
		for {
			if _, err := os.Lstat(path); err == nil {
				break
			}
		}
		sock, err := dialControl(dir)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(sock)
		unix.Close(<-made)
		os.Remove(path)
	}
}
