package main

import (
	"regexp"
	"strings"
)

// suite is a package whose tests run in the guest.
type suite struct {
	pkg string // its folder
	run string // only tests that match this
	job bool   // in a unit of the system's, in place of one of the user manager's

	program string // in place of tests: a command line of the package's program
}

// benchmark is what tells systemd's part, which most machines that build rbox do
// not have. Times are the guest's, so that their ratios alone say something.
var benchmark = suite{pkg: "tests/bench", program: "-only cgroups -rounds 10"}

// selection is what runs in the guest: the packages that meet the kernel, and
// some end-to-end tests, or of those alone the ones that match only.
func selection(only string) []suite {
	if only != "" {
		list := []suite{{pkg: "tests", run: only}}
		tests, parts, _ := strings.Cut(only, "/")
		if match, err := regexp.MatchString(tests, jobs); err == nil && match {
			list = append(list, suite{pkg: "tests", run: "^" + jobs + "$/" + parts, job: true})
		}
		return list
	}
	return []suite{
		{pkg: "cgroupv2", run: "."},
		{pkg: "userns", run: "^(TestProgram|TestChildMeetsParent|TestCommand|TestForkTellsItsPid|TestSealedFile)$"},
		{pkg: "tests", run: "^(" + strings.Join(selected, "|") + ")$"},
		{pkg: "tests", run: "^" + jobs + "$", job: true},
	}
}

// jobs is the end-to-end test that runs in a job, where it can have its account's
// user manager started anew.
const jobs = "TestJob"

// selected are the end-to-end tests that run in the guest: what needs delegated
// controllers, and what meets the kernel, each kind of it once. The others would
// take the guest half an hour and say little more. Left out are:
//
//   - registries, pulls and logins, which have no part in the kernel's age, and
//     want programs that the guest does not have
//   - tests of two accounts, or of root: the guest's user manager is one account's
//   - throughput, and hundreds of containers or processes: the guest is too slow for either
//   - what only reads or writes rbox's own files, or flags: names, logs, formats, help
var selected = []string{
	// Control groups.
	"TestControlGroups",
	// Namespaces and what is in them.
	"TestNamespacesAreNew", "TestTimeOffsets", "TestProc", "TestExecutableOfTheMonitor", "TestDescriptorsOfTheMonitor",
	// Confinement.
	"TestMaskedPaths", "TestSeccompStays", "TestSeccompThatForbidsAll",
	// Ids.
	"TestAllSubordinateIDsAreMapped",
	// Root file systems.
	"TestImageOf500Layers",
	// Lives of containers.
	"TestRunDetached", "TestExec",
	// Faults.
	"TestKeeperKilled",
	// What rbox finds of the host.
	"TestDoctor",
}
