//go:build !amd64 && !arm64

package userns

func vfork(flags uintptr, tid *int32) (pid, errno uintptr) { panic("userns: no vfork") }

const haveVfork = false
