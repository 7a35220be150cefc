package container

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// What somebody listens on is seen, by its file, however it is called; what
// nobody listens on, or not any more, is not.
func TestListeningSockets(t *testing.T) {
	dir := t.TempDir()
	listen := func(name string) (*net.UnixListener, socketFile) {
		t.Helper()
		path := filepath.Join(dir, name)
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		l.SetUnlinkOnClose(false)
		if err := os.Rename(path, path+".renamed"); err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Lstat(path+".renamed", &st); err != nil {
			t.Fatal(err)
		}
		return l, socketFileOf(st.Dev, st.Ino)
	}
	var files []socketFile
	for i := range 3 * manyContainers { // more than one reply holds
		_, file := listen("open" + string(rune('A'+i)))
		files = append(files, file)
	}
	closed, gone := listen("closed")
	closed.Close()
	all := listeningSockets()
	if len(all) == 0 {
		t.Skip("this kernel does not show sockets by sock_diag(7), CONFIG_UNIX_DIAG")
	}
	for i, file := range files {
		if !all[file] {
			t.Errorf("socket %d, file %x, is not seen", i, file)
		}
	}
	if all[gone] {
		t.Error("a socket that is closed is seen")
	}
	if all[0] {
		t.Error("no file at all is seen")
	}
}

// Replies that are cut short or lie about lengths end the listing.
func FuzzDiagMessages(f *testing.F) {
	f.Add([]byte{})
	f.Add(append([]byte{44, 0, 0, 0, diagByFamily, 0}, make([]byte, 38)...))
	f.Add([]byte{44, 0, 0, 0, diagByFamily, 0, 2, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 10, 0, 5, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 12, 0, 1, 0, 7, 0, 0, 0, 9, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		found := map[socketFile]bool{}
		diagMessages(b, found)
		if len(found) > len(b)/(unix.SizeofNlMsghdr+diagHeader) {
			t.Errorf("%d sockets in %d bytes", len(found), len(b))
		}
	})
}
