package main

import "strings"

// suite is a package whose tests run in the guest.
type suite struct {
	pkg string // its folder
	run string // only tests that match this
}

// selection is what runs in the guest: the packages that meet the kernel, and
// some end-to-end tests, or of those alone the ones that match only.
func selection(only string) []suite {
	if only != "" {
		return []suite{{"tests", only}}
	}
	return []suite{
		{"cgroupv2", "."},
		{"userns", "^(TestProgram|TestChildMeetsParent|TestCommand|TestForkTellsItsPid|TestSealedFile)$"},
		{"tests", "^(" + strings.Join(selected, "|") + ")$"},
	}
}

// selected are the end-to-end tests that run in the guest: what needs delegated
// controllers, and what meets the kernel, each kind of it once. The others would
// take the guest half an hour and say little more. Left out are:
//
//   - registries, pulls and logins, which have no part in the kernel's age, and
//     want programs that the guest does not have
//   - tests of two accounts, or of root: the guest's user manager is one account's
//   - throughput, and hundreds of containers or processes: the guest is too slow for either
//   - what only reads or writes rbox's own files: names, logs, formats, help
var selected = []string{
	// Control groups.
	"TestControlGroups", "TestLimitsThatCannotBe",
	// Namespaces and what is in them.
	"TestNamespacesAreNew", "TestTimeOffsets", "TestProc", "TestExecutableOfTheMonitor", "TestDescriptorsOfTheMonitor",
	// Ids.
	"TestAllSubordinateIDsAreMapped", "TestOwnersInTheImage",
	// Root file systems.
	"TestImageOf500Layers",
	// Lives of containers.
	"TestCreateAndStart", "TestRunDetached", "TestStop", "TestExec",
	// Faults.
	"TestKeeperKilled",
	// What rbox finds of the host.
	"TestDoctor",
}
