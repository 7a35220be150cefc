//go:build !amd64 && !arm64

package userns

func vfork(nr, a, b, c uintptr) (pid, errno uintptr) { panic("userns: no vfork") }

const haveVfork = false
