package rootfs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// FuseMount is a mounted fuse-overlayfs and the process that serves it.
type FuseMount struct {
	target  string
	process *os.Process
	done    chan struct{} // closed when the process has ended
	words   *os.File      // its stderr
}

// MountFuse mounts lowers, lowest first, with the writable directory upper on
// target, by the program fuse-overlayfs of $PATH. Without upper it is read-only. The program runs as our
// child and is killed with the thread that called: call it on one that lives as
// long as the mount (runtime.LockOSThread). It holds our mount namespace, so
// end it by Unmount. Its errors are told in its own words.
func MountFuse(target string, lowers []string, upper, work string, extra ...string) (*FuseMount, error) {
	program, err := FusePath()
	if err != nil {
		return nil, err
	}
	dev, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	dev.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	words, wordsIn, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer wordsIn.Close()
	process, err := os.StartProcess(program, []string{"fuse-overlayfs", "-f", "-o", fuseOptions(lowers, upper, work, extra), target}, &os.ProcAttr{
		Env:   os.Environ(),
		Files: []*os.File{null, null, wordsIn},
		Sys:   &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setsid: true},
	})
	if err != nil {
		words.Close()
		return nil, err
	}
	f := &FuseMount{target, process, make(chan struct{}), words}
	go func() {
		process.Wait()
		close(f.done)
	}()
	wordsIn.Close()
	if err := f.await(); err != nil {
		return nil, err
	}
	return f, nil
}

// await returns when the file system answers. With an error, nothing is left.
func (f *FuseMount) await() error {
	deadline := time.After(10 * time.Second)
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		var st unix.Statfs_t
		if unix.Statfs(f.target, &st) == nil && int64(st.Type) == unix.FUSE_SUPER_MAGIC {
			return nil
		}
		select {
		case <-f.done:
			defer f.words.Close()
			said, _ := io.ReadAll(io.LimitReader(f.words, 4096))
			return fmt.Errorf("fuse-overlayfs ended: %s", lastLine(string(said)))
		case <-deadline:
			f.Unmount()
			return errors.New("fuse-overlayfs does not answer")
		case <-time.After(pause):
		}
	}
}

// Unmount unmounts the file system, even while it is in use, and waits until
// its process has ended.
func (f *FuseMount) Unmount() error {
	err := unix.Unmount(f.target, unix.MNT_DETACH)
	if err != nil {
		f.process.Kill()
	}
	select {
	case <-f.done:
	case <-time.After(time.Second): // something still uses the mount
		f.process.Kill()
		<-f.done
	}
	f.words.Close()
	return err
}

// fuseOptions builds the option string; the topmost layer comes first in it.
func fuseOptions(lowers []string, upper, work string, extra []string) string {
	var b strings.Builder
	b.WriteString("lowerdir=")
	for i := len(lowers) - 1; i >= 0; i-- {
		b.WriteString(escapeOverlay(lowers[i]))
		if i > 0 {
			b.WriteByte(':')
		}
	}
	if upper != "" {
		b.WriteString(",upperdir=" + escapeOverlay(upper) + ",workdir=" + escapeOverlay(work))
	}
	for _, o := range extra {
		b.WriteString("," + o)
	}
	return b.String()
}

// FusePath is where the program fuse-overlayfs is: the first in $PATH, or in
// /usr/bin. The error wraps os.ErrNotExist.
func FusePath() (string, error) {
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/bin") {
		path := filepath.Join(dir, "fuse-overlayfs")
		if filepath.IsAbs(path) && unix.Access(path, unix.X_OK) == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("fuse-overlayfs is not installed: %w", os.ErrNotExist)
}

// cureFuse tells what would let fuse-overlayfs work.
func cureFuse(_ string, err error) string {
	var path *os.PathError
	onDevice := errors.As(err, &path) && path.Path == "/dev/fuse"
	switch {
	case onDevice && errors.Is(err, os.ErrPermission):
		return "as root: chmod 666 /dev/fuse (in an outer container: --device /dev/fuse)"
	case onDevice:
		return "as root: modprobe fuse (in an outer container: --device /dev/fuse)"
	case errors.Is(err, os.ErrNotExist) && !errors.As(err, &path):
		return "as root: apt-get install fuse-overlayfs (or dnf, zypper, pacman, apk)"
	}
	return ""
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndexByte(s, '\n')+1:]
}
