//go:build amd64 || arm64

package userns

// vfork clones without copying memory; the caller sleeps until the child has
// exec'd or ended.
//
//go:noescape
func vfork() (pid, errno uintptr)

const haveVfork = true
