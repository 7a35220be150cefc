// Command gen writes what package seccomp and package confine have from others:
//
//   - numbers.txt, the numbers of system calls, from the tables of golang.org/x/sys/unix;
//   - profile.json, Docker's default profile, from github.com/moby/profiles/seccomp;
//   - ../builtin_GOARCH.bpf, the filters of that profile for the usual sets of capabilities.
//
// It runs in the directory of package seccomp.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	moby "github.com/moby/profiles/seccomp"

	"rbox/userns/confine/seccomp"
)

func main() {
	for _, what := range os.Args[1:] {
		var err error
		switch what {
		case "tables": // which "filters" must be built with
			err = errors.Join(write("numbers.txt", numbers), write("profile.json", profile))
		case "filters":
			err = filters()
		default:
			err = fmt.Errorf("%s: there are tables and filters", what)
		}
		if err != nil {
			log.Fatal(err)
		}
	}
}

func write(file string, text func() ([]byte, error)) error {
	b, err := text()
	if err != nil {
		return err
	}
	return os.WriteFile(file, b, 0o644)
}

func profile() ([]byte, error) {
	text, err := json.MarshalIndent(moby.DefaultProfile(), "", "\t")
	return append(text, '\n'), err
}

func filters() error {
	for _, arch := range []string{"amd64", "arm64"} {
		all, err := seccomp.Prebuild(arch)
		if err != nil {
			return err
		}
		if err := os.WriteFile("../builtin_"+arch+".bpf", all, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// columns of numbers.txt after the name.
var columns = []string{"amd64", "386", "x32", "arm64", "arm"}

func numbers() ([]byte, error) {
	all := map[string]map[string]uint32{} // column, name
	for _, arch := range columns {
		if arch == "x32" {
			continue
		}
		table, err := table(arch)
		if err != nil {
			return nil, err
		}
		all[arch] = table
	}
	all["x32"] = x32(all["amd64"])
	for name, nr := range armOwn {
		all["arm"][name] = nr
	}
	names := map[string]bool{}
	for _, table := range all {
		for name := range table {
			names[name] = true
		}
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, "# Made by gen from golang.org/x/sys/unix: %s\n", strings.Join(columns, ", "))
	for _, name := range slices.Sorted(maps.Keys(names)) {
		out.WriteString(name)
		for _, arch := range columns {
			if nr, ok := all[arch][name]; ok {
				fmt.Fprintf(&out, " %d", nr)
			} else {
				out.WriteString(" -")
			}
		}
		out.WriteByte('\n')
	}
	return out.Bytes(), nil
}

var constant = regexp.MustCompile(`^\s*SYS_(\w+)\s*=\s*(\d+)`)

// table reads the numbers of one GOARCH.
func table(arch string) (map[string]uint32, error) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "golang.org/x/sys").Output()
	if err != nil {
		return nil, err
	}
	file, err := os.Open(filepath.Join(strings.TrimSpace(string(dir)), "unix", "zsysnum_linux_"+arch+".go"))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	all := map[string]uint32{}
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if m := constant.FindStringSubmatch(lines.Text()); m != nil {
			nr, err := strconv.ParseUint(m[2], 10, 32)
			if err != nil {
				return nil, err
			}
			all[strings.ToLower(m[1])] = uint32(nr)
		}
	}
	return all, nil
}

// armOwn are calls that only Arm has (arch/arm/include/uapi/asm/unistd.h).
var armOwn = map[string]uint32{
	"sync_file_range2": 341, // arm_sync_file_range by its other name
	"breakpoint":       0xf0001, "cacheflush": 0xf0002, "usr26": 0xf0003, "usr32": 0xf0004, "set_tls": 0xf0005, "get_tls": 0xf0006,
}

// x32Own are the calls that x32 has numbers of its own for, from 512 on
// (arch/x86/entry/syscalls/syscall_64.tbl).
var x32Own = []string{
	"rt_sigaction", "rt_sigreturn", "ioctl", "readv", "writev", "recvfrom", "sendmsg", "recvmsg", "execve", "ptrace",
	"rt_sigpending", "rt_sigtimedwait", "rt_sigqueueinfo", "sigaltstack", "timer_create", "mq_notify", "kexec_load", "waitid",
	"set_robust_list", "get_robust_list", "vmsplice", "move_pages", "preadv", "pwritev", "rt_tgsigqueueinfo", "recvmmsg", "sendmmsg",
	"process_vm_readv", "process_vm_writev", "setsockopt", "getsockopt", "io_setup", "io_submit", "execveat", "preadv2", "pwritev2",
}

// only64 are the calls that x32 has none for.
var only64 = []string{
	"uselib", "_sysctl", "create_module", "get_kernel_syms", "query_module", "nfsservctl", "set_thread_area", "get_thread_area",
	"epoll_ctl_old", "epoll_wait_old", "vserver", "uretprobe", "uprobe", "map_shadow_stack",
}

// x32 are the numbers of amd64 with the bit that marks x32, but for its own.
func x32(amd64 map[string]uint32) map[string]uint32 {
	const bit = 0x40000000
	all := map[string]uint32{}
	for name, nr := range amd64 {
		if i := slices.Index(x32Own, name); i >= 0 {
			nr = 512 + uint32(i)
		}
		if !slices.Contains(only64, name) {
			all[name] = bit | nr
		}
	}
	return all
}
