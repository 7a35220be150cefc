package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// A RunningError reports that a container runs.
type RunningError struct{ ID string }

func (e *RunningError) Error() string { return fmt.Sprintf("container %s is running", Short(e.ID)) }

// Hold takes the lock of the container id, which does not run, so that its
// files can be changed: nobody starts or removes it until the lock is closed.
// Others who hold it for a moment are waited for; one that runs is a
// *RunningError.
func (h *Home) Hold(ctx context.Context, id string) (*os.File, error) {
	for {
		lock, err := h.tryLock(id)
		if err == nil {
			var st unix.Stat_t
			if err := unix.Fstat(int(lock.Fd()), &st); err == nil && st.Nlink > 0 {
				return lock, nil
			}
			lock.Close()
			return nil, &NoContainerError{id}
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, err
		}
		info, err := h.Inspect(id)
		if err != nil {
			return nil, err
		}
		if info.Running {
			return nil, &RunningError{id}
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Scratch is an empty directory to mount on, in a mount namespace of one's own.
func (h *Home) Scratch() string { return h.mountpoint() }

// Alive tells whether the container's first process lives and is the one that s names.
func (s State) Alive() bool { return s.alive() }

// BootID is the kernel's random name of this boot.
func BootID() string { return bootID() }
