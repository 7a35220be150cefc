package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// guest is a machine to boot.
type guest struct {
	image   image
	payload string // file system with the program /run and what it needs
	scratch string // folder for the console's text and what the guest writes to its disk
	limit   time.Duration
}

// statusLine begins the last line that the guest sends (guest/rbox-tests).
const statusLine = "guest: status "

// run boots the guest, passes the lines that its program prints to line, and
// returns that program's status.
func (g guest) run(line func([]byte)) (status int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), g.limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", g.arguments()...)
	cmd.Env = append(os.Environ(), "TMPDIR="+g.scratch)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	status = -1
	readErr := eachLine(stdout, func(l []byte) {
		if n, ok := bytes.CutPrefix(l, []byte(statusLine)); ok {
			status, _ = strconv.Atoi(string(n))
		} else if len(l) > 0 {
			line(l)
		}
	})
	err = errors.Join(cmd.Wait(), readErr)
	if ctx.Err() != nil {
		err = fmt.Errorf("did not end within %v", g.limit)
	}
	if status < 0 {
		return 0, fmt.Errorf("the guest: no result: %v\n%s%s", err, stderr.Bytes(), g.consoleEnd())
	}
	return status, nil
}

// arguments are qemu's. Its software emulation is used even where /dev/kvm
// exists: that file does not promise that it works, and fails by hanging.
func (g guest) arguments() []string {
	cpus := min(max(runtime.NumCPU(), 2), 4)
	return []string{
		"-M", "q35", "-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max", "-smp", strconv.Itoa(cpus), "-m", "1024",
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-kernel", g.image.kernel(), "-initrd", g.image.ramdisk(),
		"-append", "console=ttyS0 quiet systemd.show_status=0 panic=-1 mitigations=off nokaslr apparmor=0 audit=0 " +
			"systemd.unified_cgroup_hierarchy=1 random.trust_cpu=1",
		"-serial", "file:" + g.console(),
		// What is written to the disk is forgotten.
		"-drive", "if=none,id=root,format=raw,snapshot=on,file=" + g.image.disk(), "-device", "virtio-blk-pci,drive=root",
		"-drive", "if=none,id=payload,format=raw,readonly=on,file=" + g.payload, "-device", "virtio-blk-pci,drive=payload",
		// Not "stdio": where that has nothing to read, the guest finds the port closed.
		"-chardev", "file,id=result,path=/dev/stdout",
		"-device", "virtio-serial-pci", "-device", "virtserialport,chardev=result,name=org.rbox.result",
		"-device", "virtio-rng-pci",
	}
}

func (g guest) console() string { return filepath.Join(g.scratch, "console") }

// consoleEnd is the end of what the guest's kernel and systemd had to say.
func (g guest) consoleEnd() string {
	text, _ := os.ReadFile(g.console())
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-40):], "\n")
}

// eachLine calls do for each line of r, without its end.
func eachLine(r io.Reader, do func([]byte)) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		do(lines.Bytes())
	}
	return lines.Err()
}
