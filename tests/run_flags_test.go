package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Each flag of run, by what a program in the container sees of it.
func TestRunFlags(t *testing.T) {
	t.Parallel()
	b := newBox(t, withEnv("FROM_CALLER=passed on", "NOT_ASKED_FOR=x"))
	b.file("env", "# a comment\n\nONE=1\nTWO=two words = two\nFROM_CALLER\nQUOTED=\"kept\"\n   INDENTED=yes\nUNSET_IN_CALLER\n", 0o644)
	b.file("env2", "ONE=over\n", 0o644)
	b.file("data/file", "from the host\n", 0o644)

	for name, tc := range map[string]struct {
		flags  []string
		script string
		want   want
	}{
		"hostname":                {[]string{"-h", "box"}, "hostname; cat /etc/hostname; uname -n", want{stdout: "box\nbox\nbox\n"}},
		"hostname, long":          {[]string{"--hostname=box.example"}, "hostname", want{stdout: "box.example\n"}},
		"hostname is in hosts":    {[]string{"-h", "box"}, `awk '$2 == "box" {print $1}' /etc/hosts | head -n 1; awk '{print NF - 1}' /etc/hosts | tail -n 1`, want{match: `^10\.0\.\d+\.100\n3\n$`}},
		"hostname that cannot be": {[]string{"-h", strings.Repeat("x", 65)}, "true", want{status: 125, stderr: `hostname|host name`}},
		"hostname by default":     {nil, "hostname", want{match: `^[0-9a-f]{12}\n$`}},

		"env":                      {[]string{"-e", "A=1", "--env", "B=two words"}, `echo "$A $B"`, want{stdout: "1 two words\n"}},
		"env from the caller":      {[]string{"-e", "FROM_CALLER"}, `echo "$FROM_CALLER"`, want{stdout: "passed on\n"}},
		"env unset in the caller":  {[]string{"-e", "NO_SUCH"}, `echo "${NO_SUCH-unset}"`, want{stdout: "unset\n"}},
		"env is else not passed":   {nil, `echo "${NOT_ASKED_FOR-unset}"`, want{stdout: "unset\n"}},
		"env empty":                {[]string{"-e", "A="}, `echo "${A-unset}."`, want{stdout: ".\n"}},
		"env with = in it":         {[]string{"-e", "A=b=c"}, `echo "$A"`, want{stdout: "b=c\n"}},
		"env without a name":       {[]string{"-e", "=x"}, `true`, want{status: 125, stderr: `=x`}},
		"env that is always there": {nil, `echo "$HOME $PATH" `, want{stdout: "/root /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"}},
		"env file": {[]string{"--env-file", "env"}, `echo "$ONE,$TWO,$FROM_CALLER,$QUOTED,$INDENTED,${UNSET_IN_CALLER-unset}"`,
			want{stdout: "1,two words = two,passed on,\"kept\",yes,unset\n"}},
		"env file twice":         {[]string{"--env-file", "env", "--env-file", "env2"}, `echo "$ONE"`, want{stdout: "over\n"}},
		"env wins over env file": {[]string{"-e", "ONE=flag", "--env-file", "env"}, `echo "$ONE"`, want{stdout: "flag\n"}},

		"workdir":                 {[]string{"-w", "/usr/bin"}, "pwd", want{stdout: "/usr/bin\n"}},
		"workdir is made":         {[]string{"--workdir", "/not/there/yet"}, "pwd", want{stdout: "/not/there/yet\n"}},
		"workdir that is a file":  {[]string{"-w", "/etc/passwd"}, "pwd", want{status: 125, stderr: `/etc/passwd`}},
		"workdir, by default":     {nil, "pwd", want{stdout: "/\n"}},
		"user by number":          {[]string{"-u", "1000"}, "id -u; id -g", want{stdout: "1000\n0\n"}},
		"user and group":          {[]string{"-u", "1000:1001"}, "id -u; id -g", want{stdout: "1000\n1001\n"}},
		"user by name":            {[]string{"--user", "bin"}, "id -un; id -gn", want{stdout: "bin\nbin\n"}},
		"user's groups":           {[]string{"-u", "bin"}, "id -G | tr ' ' '\\n' | sort -n | head -n 1", want{stdout: "1\n"}},
		"user and group by name":  {[]string{"-u", "bin:users"}, "id -un; id -gn", want{stdout: "bin\nusers\n"}},
		"user known by number":    {[]string{"-u", "405"}, "id -un; id -gn", want{stdout: "guest\nusers\n"}},
		"user's home":             {[]string{"-u", "bin"}, "echo $HOME", want{match: `^/`}},
		"user has no power":       {[]string{"-u", "1000"}, "grep CapEff /proc/self/status; touch /x 2>&1 || true", want{match: `CapEff:\t0000000000000000\ntouch: /x: Permission denied`}},
		"user number too large":   {[]string{"-u", "4294967296"}, "id -u", want{status: 125, stderr: `4294967296`}},
		"user without an id here": {[]string{"-u", "3000000000"}, "id -u", want{status: 125, stderr: `3000000000`}},

		"entrypoint":                   {[]string{"--entrypoint", "echo"}, "x", want{stdout: "sh -c x\n"}},
		"volume":                       {[]string{"-v", b.home + "/data:/data"}, "cat /data/file; echo new >/data/new; cat /data/new", want{stdout: "from the host\nnew\n"}},
		"volume, relative":             {[]string{"-v", "./data:/data"}, "cat /data/file", want{stdout: "from the host\n"}},
		"volume, read-only":            {[]string{"-v", "./data:/data:ro"}, "cat /data/file; touch /data/x 2>&1 || true", want{match: "from the host\n.*Read-only file system"}},
		"volume, rw and z":             {[]string{"-v", "./data:/data:rw,z"}, "cat /data/file", want{stdout: "from the host\n"}},
		"volume, Z":                    {[]string{"-v", "./data:/data:Z"}, "cat /data/file", want{stdout: "from the host\n"}},
		"volume, a file":               {[]string{"-v", "./data/file:/etc/motd:ro"}, "cat /etc/motd", want{stdout: "from the host\n"}},
		"volume over what is there":    {[]string{"-v", "./data:/etc/apk"}, "ls /etc/apk/file", want{stdout: "/etc/apk/file\n"}},
		"volume, in a volume":          {[]string{"-v", "./data:/a/data", "-v", b.home + ":/a:ro"}, "cat /a/data/file", want{stdout: "from the host\n"}},
		"volume, option unknown":       {[]string{"-v", "./data:/data:maybe"}, "true", want{status: 125, stderr: `maybe`}},
		"volume, no destination":       {[]string{"-v", "./data:"}, "true", want{status: 125, stderr: `\./data:`}},
		"volume, a relative target":    {[]string{"-v", "./data:data"}, "true", want{status: 125, stderr: `data`}},
		"volume, over the root":        {[]string{"-v", "./data:/"}, "true", want{status: 125, stderr: `/`}},
		"mount, bind":                  {[]string{"--mount", "type=bind,source=" + b.home + "/data,target=/data"}, "cat /data/file", want{stdout: "from the host\n"}},
		"mount, short words":           {[]string{"--mount", "type=bind,src=./data,dst=/data,ro"}, "cat /data/file; touch /data/x 2>&1 || true", want{match: "from the host\n.*Read-only"}},
		"mount, readonly=true":         {[]string{"--mount", "type=bind,src=./data,destination=/data,readonly=true"}, "touch /data/x 2>&1 || true", want{match: "Read-only"}},
		"mount, no such source":        {[]string{"--mount", "type=bind,src=./no-data,dst=/data"}, "true", want{status: 125, stderr: `no-data`}},
		"mount, a type that is none":   {[]string{"--mount", "type=floppy,dst=/data"}, "true", want{status: 125, stderr: `floppy`}},
		"mount, a word that is none":   {[]string{"--mount", "type=bind,src=./data,dst=/data,colour=red"}, "true", want{status: 125, stderr: `colour`}},
		"mount, tmpfs":                 {[]string{"--mount", "type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=700"}, "df -k /t | tail -n 1 | awk '{print $2}'; stat -c %a /t", want{stdout: "1024\n700\n"}},
		"tmpfs":                        {[]string{"--tmpfs", "/t"}, "grep ' /t ' /proc/mounts; touch /t/x", want{match: `^tmpfs /t tmpfs .*nosuid`}},
		"tmpfs, options":               {[]string{"--tmpfs", "/t:size=2m,mode=1770"}, "df -k /t | tail -n 1 | awk '{print $2}'; stat -c %a /t", want{stdout: "2048\n1770\n"}},
		"tmpfs, an option unknown":     {[]string{"--tmpfs", "/t:colour=red"}, "true", want{status: 125, stderr: `colour`}},
		"read-only":                    {[]string{"--read-only"}, "touch /x 2>&1 || true; touch /dev/shm/x; echo >/dev/null", want{match: "Read-only file system"}},
		"read-only, with a tmpfs":      {[]string{"--read-only", "--tmpfs", "/tmp"}, "touch /tmp/x && echo ok", want{stdout: "ok\n"}},
		"read-only, with a volume":     {[]string{"--read-only", "-v", "./data:/data"}, "touch /data/x && echo ok", want{stdout: "ok\n"}},
		"init":                         {[]string{"--init"}, "test $$ -ne 1 && echo child", want{stdout: "child\n"}},
		"no init":                      {nil, "echo $$", want{stdout: "1\n"}},
		"ulimit":                       {[]string{"--ulimit", "nofile=100:200"}, "ulimit -Sn; ulimit -Hn", want{stdout: "100\n200\n"}},
		"ulimit, one number":           {[]string{"--ulimit", "nofile=150"}, "ulimit -Sn; ulimit -Hn", want{stdout: "150\n150\n"}},
		"ulimit, soft above hard":      {[]string{"--ulimit", "nofile=200:100"}, "true", want{status: 125, stderr: `nofile`}},
		"ulimit, name unknown":         {[]string{"--ulimit", "colour=1"}, "true", want{status: 125, stderr: `colour`}},
		"core":                         {[]string{"--ulimit", "core=0"}, "ulimit -c", want{stdout: "0\n"}},
		"shm-size":                     {[]string{"--shm-size", "3m"}, "df -k /dev/shm | tail -n 1 | awk '{print $2}'", want{stdout: "3072\n"}},
		"shm-size by default":          {nil, "df -k /dev/shm | tail -n 1 | awk '{print $2}'", want{stdout: "65536\n"}},
		"shm-size that is none":        {[]string{"--shm-size", "much"}, "true", want{status: 125, stderr: `much`}},
		"label":                        {[]string{"--label", "a=b", "--label", "c"}, "true", want{}},
		"add-host":                     {[]string{"--add-host", "db:10.0.0.7", "--add-host", "v6:2001:db8::7"}, "grep -E '(db|v6)$' /etc/hosts | tr '\\t' ' '", want{stdout: "10.0.0.7 db\n2001:db8::7 v6\n"}},
		"add-host, no address":         {[]string{"--add-host", "db:nowhere"}, "true", want{status: 125, stderr: `nowhere`}},
		"dns":                          {[]string{"--dns", "192.0.2.1", "--dns", "192.0.2.2"}, "grep ^nameserver /etc/resolv.conf", want{stdout: "nameserver 192.0.2.1\nnameserver 192.0.2.2\n"}},
		"dns that is no address":       {[]string{"--dns", "a-name"}, "true", want{status: 125, stderr: `a-name`}},
		"resolv.conf is there":         {nil, "test -f /etc/resolv.conf && echo yes", want{stdout: "yes\n"}},
		"device":                       {[]string{"--device", "/dev/fuse"}, "test -c /dev/fuse && echo yes", want{stdout: "yes\n"}},
		"device, renamed":              {[]string{"--device", "/dev/null:/dev/nothing"}, "echo x >/dev/nothing && test -c /dev/nothing && echo yes", want{stdout: "yes\n"}},
		"device that is not there":     {[]string{"--device", "/dev/no-such"}, "true", want{status: 125, stderr: `/dev/no-such`}},
		"platform of this machine":     {[]string{"--platform", "linux/" + goarch()}, "true", want{}},
		"network none":                 {[]string{"--network", "none"}, "ls /sys/class/net 2>/dev/null | tr '\\n' ' '; ip -o link 2>/dev/null | wc -l", want{match: `^(lo )?1\n$`}},
		"network none, loopback is up": {[]string{"--network", "none"}, "ip addr show lo | grep -c '127.0.0.1/8'", want{stdout: "1\n"}},
		"keep-id":                      {[]string{"--userns", "keep-id"}, "id -u; id -g", want{stdout: fmt.Sprintf("%d\n%d\n", run.plain.UID, run.plain.GID)}},
		"keep-id owns its volumes":     {[]string{"--userns=keep-id", "-v", "./data:/data"}, "stat -c '%u:%g' /data/file; touch /data/mine", want{stdout: fmt.Sprintf("%d:%d\n", run.plain.UID, run.plain.GID)}},
		"keep-id, root by flag":        {[]string{"--userns=keep-id", "-u", "0"}, "id -u; touch /etc/x && stat -c %u /etc/x", want{stdout: "0\n0\n"}},
		"time offset, boot":            {[]string{"--time-offset", "boottime=864000"}, "awk '{print ($1 > 864000)}' /proc/uptime", want{stdout: "1\n"}},
		"time offset that is none":     {[]string{"--time-offset", "wall=5"}, "true", want{status: 125, stderr: `wall`}},
		"combined short flags":         {[]string{"-iu1000"}, "id -u", want{stdout: "1000\n"}},
	} {
		t.Run(name, func(t *testing.T) {
			tc.want.check(t, b.sh(tc.script, tc.flags...))
		})
	}
}

func TestRunFlagsAfterTheImageAreTheCommands(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	want{stdout: "-n --rm -it\n"}.check(t, b.rbox("run", "--rm", "alpine", "echo", "-e", "-n --rm -it"))
	want{stdout: "x\n"}.check(t, b.rbox("run", "--rm", "--", "alpine", "echo", "x"))
}

func TestRunFilesAboutTheContainer(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	p := b.start(call{
		args:  []string{"run", "--rm", "--init", "-i", "--cidfile", "cid", "--pidfile", "pid", "alpine", "sh", "-c", "hostname; echo up; cat"},
		stdin: blockedReader(t),
	})
	p.see("up\n")
	cid := b.read("cid")
	if !regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString(cid) {
		t.Errorf("the id file holds %q", cid)
	}
	if !strings.Contains(p.stdout.String(), cid[:min(12, len(cid))]) {
		t.Errorf("id %s, but the container's name for itself is %q", cid, p.stdout)
	}
	var pid int
	if _, err := fmt.Sscan(b.read("pid"), &pid); err != nil || !slices.Contains(children(p.cmd.Process.Pid), pid) {
		t.Errorf("the pid file holds %d (%v), which is no process below rbox: %v", pid, err, children(p.cmd.Process.Pid))
	}
	// A second container must not take the first one's file for its own.
	want{status: 125, stderr: `cid`}.check(t, b.rbox("run", "--rm", "--cidfile", "cid", "alpine", "true"))
	p.signal(15)
	p.wait()
}

// read reads a file below the box's home.
func (b *box) read(name string) string {
	b.t.Helper()
	data, err := os.ReadFile(filepath.Join(b.home, name))
	if err != nil {
		b.t.Fatal(err)
	}
	return string(data)
}

func TestRunGroupAddKeepGroups(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	want{match: `^Groups:`}.check(t, b.sh("grep Groups: /proc/self/status", "--group-add", "keep-groups"))
	want{status: 125, stderr: `no-such-group`}.check(t, b.sh("true", "--group-add", "no-such-group"))
	want{match: `\b10\b`}.check(t, b.sh("id -G", "--group-add", "wheel", "-u", "1000"))
}

func TestRunDescriptors(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	open := func() (files []*os.File) {
		for i := range 5 {
			path := b.file(fmt.Sprint("fd", i), fmt.Sprintln("descriptor", i+3), 0o644)
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { f.Close() })
			files = append(files, f)
		}
		return files
	}
	list := "ls -l /proc/self/fd | awk 'NR > 1 {print $9, $NF}'"
	for name, tc := range map[string]struct {
		flags  []string
		script string
		want   want
	}{
		// ls itself has 3 open: the folder it lists.
		"none but the three":  {nil, list, want{match: `^0 .*\n1 .*\n2 .*\n3 \S+\n$`}},
		"--preserve-fds":      {[]string{"--preserve-fds", "2"}, "cat <&3; cat <&4; cat <&5 2>/dev/null || echo no 5", want{stdout: "descriptor 3\ndescriptor 4\nno 5\n"}},
		"with --init":         {[]string{"--init"}, list, want{match: `^0 .*\n1 .*\n2 .*\n3 \S+\n$`}},
		"more than there are": {[]string{"--preserve-fds", "40"}, "true", want{status: 125, stderr: `preserve-fds|descriptor`}},
	} {
		t.Run(name, func(t *testing.T) {
			args := slices.Concat([]string{"run", "--rm"}, tc.flags, []string{"alpine", "sh", "-c", tc.script})
			tc.want.check(t, b.do(call{args: args, files: open()}))
		})
	}
}
