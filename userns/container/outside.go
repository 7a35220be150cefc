package container

import "os"

// Lock is the descriptor that locks the folder: a process that inherits it
// keeps the lock.
func (f *Folder) Lock() *os.File { return f.config }

// Scratch is an empty directory to mount on, in a mount namespace of one's own.
func (h *Home) Scratch() string { return h.mountpoint() }

// Alive tells whether the container's first process lives and is the one that
// s names.
func (s State) Alive() bool { return s.alive() }

// BootID is the kernel's random name of this boot.
func BootID() string { return bootID() }
