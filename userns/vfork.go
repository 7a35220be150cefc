//go:build amd64 || arm64

package userns

// vfork is clone(2) without copying memory, with flags (CLONE_VM, CLONE_VFORK
// and SIGCHLD among them): the calling thread sleeps until the child has
// exec'd or ended. With CLONE_PARENT_SETTID the child's pid is put into tid
// before the child runs.
//
//go:noescape
func vfork(flags uintptr, tid *int32) (pid, errno uintptr)

const haveVfork = true
