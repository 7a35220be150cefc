//go:build !amd64 && !arm64

package userns

func vfork() (pid, errno uintptr) { panic("userns: no vfork") }

const haveVfork = false
