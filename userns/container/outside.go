package container

// Scratch is an empty directory to mount on, in a mount namespace of one's own.
func (h *Home) Scratch() string { return h.mountpoint() }

// Alive tells whether the container's first process lives and is the one that
// s names.
func (s State) Alive() bool { return s.alive() }

// BootID is the kernel's random name of this boot.
func BootID() string { return bootID() }
