// Package imports checks which package may know of which.
package imports

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

// mayImport says which packages of rbox each one may import (ARCHITECTURE.md,
// "Folders"): those named, or below a name that ends in "/...". A package that
// is not listed may import none but its parents.
var mayImport = map[string][]string{
	"cmd/rbox":         {"userns/...", "userns", "idmap", "rootfs/...", "rootfs", "cgroupv2", "slirp", "slirp/dns", "slirp/network"},
	"cmd/stage":        {"userns/...", "userns", "idmap", "rootfs", "cgroupv2"},
	"cmd/network":      {"slirp/process"},
	"userns":           {"idmap", "userns/wire"},
	"userns/container": {"userns", "userns/container/...", "userns/wire", "userns/stage", "userns/confine", "idmap", "rootfs", "rootfs/volume", "cgroupv2", "slirp", "slirp/landlock"},
	"userns/stage":     {"userns", "userns/confine", "idmap", "rootfs"}, // whose types a plan is made of
	"rootfs":           {"userns/wire"},                                 // which imports nothing of ours
	"rootfs/store":     {"rootfs", "userns/wire", "rootfs/image", "rootfs/layer", "idmap"},
	"rootfs/registry":  {"rootfs", "rootfs/image"},
	"rootfs/layer":     {"rootfs", "rootfs/image", "rootfs/filecopy", "rootfs/layer/inflate"},
	"rootfs/volume":    {"rootfs", "rootfs/filecopy"},

	"slirp/process":     {"slirp/link", "slirp/publish", "slirp/stack", "slirp/dns", "slirp/sandbox"}, // the network process: nothing else carries a network stack
	"slirp/sandbox":     {"slirp/landlock"},
	"slirp/sandbox/gen": {"userns/confine/seccomp"},     // which is run beforehand
	"slirp/stack":       {"slirp/publish", "slirp/tcp"}, // listeners, and containers' connections

	"userns/container/events": {"userns/container/logfile"}, // which follows files
}

// onlyIn says which packages may import a module's packages.
var onlyIn = map[string][]string{
	"github.com/alecthomas/kong":             {"cmd/"},
	"github.com/moby/sys/mountinfo":          {"rootfs", "cgroupv2"},
	"github.com/google/go-containerregistry": {"rootfs/registry"},
	"github.com/vishvananda/netlink":         {"slirp/link"},
	"gvisor.dev/gvisor":                      {"slirp/stack"},
	"github.com/moby/profiles":               {"userns/confine/seccomp/gen"}, // the profile is a file of ours
}

func TestImportsGoOneWay(t *testing.T) {
	for name, imports := range listPackages(t) {
		for _, imp := range imports {
			if sub, ok := strings.CutPrefix(imp, "rbox/"); ok && !importAllowed(name, sub) {
				t.Errorf("%s imports %s", name, sub)
			}
			for module, owners := range onlyIn {
				if strings.HasPrefix(imp, module) && !within(name, owners) {
					t.Errorf("%s imports %s, which is for %s", name, imp, strings.Join(owners, ", "))
				}
			}
			if imp == "C" {
				t.Errorf("%s uses cgo", name)
			}
		}
	}
}

func importAllowed(from, to string) bool {
	if strings.HasPrefix(from, to+"/") {
		return true // a subfolder may import its parent
	}
	for _, rule := range mayImport[from] {
		if below, ok := strings.CutSuffix(rule, "..."); ok && strings.HasPrefix(to, below) || to == rule {
			return true
		}
	}
	return false
}

func within(name string, owners []string) bool {
	for _, o := range owners {
		if name == o || strings.HasPrefix(name, strings.TrimSuffix(o, "/")+"/") {
			return true
		}
	}
	return false
}

// listPackages returns what each package outside tests/ imports, by its path in the module.
func listPackages(t *testing.T) map[string][]string {
	t.Helper()
	out, err := exec.Command("go", "list", "-e", "-json=ImportPath,Imports", "rbox/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]string{}
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(p.ImportPath, "rbox/")
		if first, _, _ := strings.Cut(name, "/"); first != "tests" {
			all[path.Clean(name)] = p.Imports
		}
	}
	if len(all) == 0 {
		t.Fatal("go list names no package")
	}
	return all
}

// TestStartsWithoutNet holds what each start of a container runs, the front and
// the stage executable, to packages that cost no time to initialize.
func TestStartsWithoutNet(t *testing.T) {
	for _, args := range [][]string{{"-tags", "front", "rbox/cmd/rbox"}, {"rbox/cmd/stage"}} {
		out, err := exec.Command("go", append([]string{"list", "-deps"}, args...)...).Output()
		if err != nil {
			t.Fatal(err)
		}
		for _, heavy := range []string{"net", "regexp", "text/template", "github.com/alecthomas/kong"} {
			if slices.Contains(strings.Fields(string(out)), heavy) {
				t.Errorf("%v depends on %s", args, heavy)
			}
		}
	}
}
