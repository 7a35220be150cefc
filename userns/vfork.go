//go:build amd64 || arm64

package userns

// vfork makes, by the system call nr with three arguments, a child that borrows
// our memory: the calling thread sleeps until it has exec'd or ended. nr is
// clone(2) or clone3, with CLONE_VM and CLONE_VFORK, and no stack for the child.
//
//go:noescape
func vfork(nr, a, b, c uintptr) (pid, errno uintptr)

const haveVfork = true
