// Vm runs tests in a guest: a Debian 12 machine with Linux 6.1, systemd and
// control groups of version 2, where an unprivileged account with subordinate
// ids has all controllers delegated to its service manager.
//
// That is what limits need and most build machines do not have, and an older
// kernel than theirs. The guest is made of Debian's packages alone and runs in
// qemu's software emulation, about ten times slower than this machine.
//
//	go run ./tests/vm                     # what `make test` runs in the guest
//	go run ./tests/vm -run TestPause -v   # these end-to-end tests, and what they print
//	go run ./tests/vm -bench              # what control groups cost, beside crun
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"time"
)

func main() {
	asJSON := flag.Bool("json", false, "print events as `go test -json` does")
	only := flag.String("run", "", "run only the end-to-end tests that match this")
	verbose := flag.Bool("v", false, "print all that tests print")
	bench := flag.Bool("bench", false, "run no tests, but the benchmark of control groups")
	flag.Parse()

	p := printer{json: *asJSON, verbose: *verbose, texts: map[string]string{}}
	if reason := obstacle(); reason != "" {
		p.skip(reason)
		return
	}
	chosen := selection(*only)
	if *bench {
		chosen = []suite{benchmark}
	}
	status, err := runGuest(chosen, p.line)
	if err != nil {
		fmt.Fprintln(os.Stderr, "vm:", err)
		status = 1
	}
	os.Exit(status)
}

// obstacle tells why this machine cannot run the guest; "" if it can.
func obstacle() string {
	if runtime.GOARCH != "amd64" {
		return "the guest is made for amd64 only"
	}
	if os.Geteuid() != 0 {
		return "needs to be run by root, to make the guest's root file system"
	}
	for _, program := range []string{"mmdebstrap", "qemu-system-x86_64", "mke2fs", "dpkg-deb"} {
		if _, err := exec.LookPath(program); err != nil {
			return program + " is not installed: run make deps"
		}
	}
	if aptSources() == "" {
		return "this is not Debian: there is no list of package archives in /etc/apt"
	}
	return ""
}

// aptSources is the file that names Debian's archives on this machine.
func aptSources() string {
	for _, file := range []string{"/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"} {
		if _, err := os.Stat(file); err == nil {
			return file
		}
	}
	return ""
}

// runGuest makes what is needed, and runs s in the guest.
func runGuest(s []suite, line func([]byte)) (status int, err error) {
	say := func(format string, args ...any) { fmt.Fprintf(os.Stderr, "vm: "+format+"\n", args...) }
	img, err := cachedImage(aptSources(), say)
	if err != nil {
		return 1, fmt.Errorf("the guest's image: %w", err)
	}
	scratch, err := os.MkdirTemp("", "rbox-vm-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(scratch)
	payload, err := makePayload(scratch, s)
	if err != nil {
		return 1, fmt.Errorf("what the guest runs: %w", err)
	}
	begun := time.Now()
	status, err = guest{img, payload, scratch, guestLimit}.run(line)
	say("the guest ran for %.0f s", time.Since(begun).Seconds())
	return status, err
}

// printer shows events: as they are, or what failed of them.
type printer struct {
	json, verbose bool
	texts         map[string]string // what a test has printed so far
}

// event is a line of `go test -json` (go doc test2json).
type event struct {
	Action  string
	Package string  `json:",omitempty"`
	Test    string  `json:",omitempty"`
	Output  string  `json:",omitempty"`
	Elapsed float64 `json:",omitempty"`
}

func (p printer) line(l []byte) {
	var e event
	switch err := json.Unmarshal(l, &e); {
	case p.json || err != nil:
		fmt.Printf("%s\n", l)
	case e.Action == "output" && p.verbose:
		fmt.Print(e.Output)
	case e.Action == "output":
		p.texts[e.Test] += e.Output
	case e.Action == "fail":
		fmt.Print(p.texts[e.Test])
	case e.Test != "" && (e.Action == "pass" || e.Action == "skip"):
		fmt.Printf("%s  %s (%.1fs)\n", e.Action, e.Test, e.Elapsed)
	}
}

// skip tells that nothing was run, and why.
func (p printer) skip(reason string) {
	if !p.json {
		fmt.Println("vm: skipped:", reason)
		return
	}
	to := json.NewEncoder(os.Stdout)
	const pkg, test = "rbox/tests/vm", "Guest"
	for _, e := range []event{
		{Action: "run", Package: pkg, Test: test},
		{Action: "output", Package: pkg, Test: test, Output: reason + "\n"},
		{Action: "skip", Package: pkg, Test: test},
		{Action: "pass", Package: pkg},
	} {
		if err := to.Encode(e); errors.Is(err, os.ErrClosed) {
			return
		}
	}
}
