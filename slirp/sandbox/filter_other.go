//go:build !amd64 && !arm64

package sandbox

const private, named = "", ""
