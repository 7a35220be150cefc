// Command gen compiles profile.json, for both kinds of network process and each machine:
// private_GOARCH.bpf and named_GOARCH.bpf. It runs in the directory of package sandbox.
package main

import (
	"log"
	"os"

	"golang.org/x/sys/unix"

	"rbox/userns/confine/seccomp"
)

func main() {
	text, err := os.ReadFile("profile.json")
	if err != nil {
		log.Fatal(err)
	}
	for name, filter := range filters(text) {
		if err := os.WriteFile(name, filter, 0o644); err != nil {
			log.Fatal(err)
		}
	}
}

// filters are the files' contents by their names.
func filters(profile []byte) map[string][]byte {
	p, err := seccomp.Parse("profile.json", profile)
	if err != nil {
		log.Fatal(err)
	}
	all := map[string][]byte{}
	for _, arch := range []string{"amd64", "arm64"} {
		for kind, capabilities := range map[string]uint64{"private": 0, "named": 1 << unix.CAP_SYS_ADMIN} {
			// All kernels that have user namespaces worth the name.
			f, err := p.Compile(seccomp.Target{Arch: arch, Kernel: seccomp.Kernel{4, 8}, Capabilities: capabilities})
			if err != nil {
				log.Fatal(err)
			}
			all[kind+"_"+arch+".bpf"] = f.Bytes()
		}
	}
	return all
}
