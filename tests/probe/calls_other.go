//go:build !amd64

package main

// machineCalls are amd64's.
func machineCalls() []probe { return nil }
