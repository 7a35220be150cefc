package tests

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// states makes containers in which files are copied: one that runs, one that
// has ended and one that never ran. Each gets script's files.
func (b *box) states(script string, flags ...string) map[string]string {
	b.t.Helper()
	names := map[string]string{"running": "up", "ended": "down"}
	b.must(append(append([]string{"run", "-d", "--name", "up"}, flags...), "alpine", "sh", "-c", script+"; echo ready >/ready; exec sleep 1000")...)
	b.removed("up", "down")
	b.must(append(append([]string{"run", "--name", "down"}, flags...), "alpine", "sh", "-c", script)...)
	if !eventually(callLimit, func() bool { return b.rbox("cp", "up:/ready", "-").status == 0 }) {
		b.t.Fatal("the container does not get ready")
	}
	return names
}

// removed removes containers when the test ends.
func (b *box) removed(names ...string) {
	b.t.Cleanup(func() { b.rbox(append([]string{"rm", "-f"}, names...)...) })
}

// Docker's matrix of sources and destinations.
func TestCpOut(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	names := b.states("mkdir -p /src/d; echo one >/src/f; echo two >/src/d/g; ln -s f /src/l; ln -s src /to-src; ln -s /nowhere /src/dangling; mkfifo /src/p")
	for state, name := range names {
		for what, tc := range map[string]struct {
			src, dst string
			here     string // script, in an empty folder
			check    string // script
			fails    string
		}{
			"file to nothing":                {"/src/f", "x", "", "test $(cat x) = one", ""},
			"file, without the first slash":  {"src/f", "x", "", "test $(cat x) = one", ""},
			"file to file":                   {"/src/f", "x", "echo old >x; ln x y", "test $(cat x) = one && test $(cat y) = old", ""},
			"file to directory":              {"/src/f", "x", "mkdir x", "test $(cat x/f) = one", ""},
			"file to directory and slash":    {"/src/f", "x/", "mkdir x", "test $(cat x/f) = one", ""},
			"file to here":                   {"/src/f", ".", "", "test $(cat f) = one", ""},
			"file to nothing and slash":      {"/src/f", "x/", "", "! test -e x", `no such directory`},
			"file to a directory not there":  {"/src/f", "n/x", "", "! test -e n", `invalid output path: directory ".*/n" does not exist`},
			"file over a directory in it":    {"/src/f", "x", "mkdir -p x/f", "test -d x/f", `cannot overwrite directory "f" with non-directory`},
			"file through a link here":       {"/src/f", "l", "ln -s x l", "test $(cat x) = one && test -L l", ""},
			"file to a link to a directory":  {"/src/f", "l", "mkdir x; ln -s x l", "test $(cat x/f) = one && test -L l", ""},
			"file and slash":                 {"/src/f/", "x", "", "! test -e x", `not a directory`},
			"directory to nothing":           {"/src", "x", "", "test $(cat x/f) = one && test $(cat x/d/g) = two", ""},
			"directory to file":              {"/src", "x", "echo >x", "test -f x", `cannot copy directory`},
			"directory to directory":         {"/src", "x", "mkdir x", "test $(cat x/src/f) = one", ""},
			"directory is merged":            {"/src", "x", "mkdir -p x/src; echo >x/src/old", "test -e x/src/old && test $(cat x/src/f) = one", ""},
			"directory over a file in it":    {"/src", "x", "mkdir x; echo >x/src", "test -f x/src", `cannot overwrite non-directory "src" with directory`},
			"content to nothing":             {"/src/.", "x", "", "test $(cat x/f) = one", ""},
			"content to directory":           {"/src/.", "x", "mkdir x", "test $(cat x/f) = one && ! test -e x/src", ""},
			"content to file":                {"/src/.", "x", "echo >x", "test -f x", `cannot copy directory`},
			"a link is a link":               {"/src/l", "x", "", `test "$(readlink x)" = f`, ""},
			"a link followed":                {"-L /src/l", "x", "", "test -f x && ! test -L x && test $(cat x) = one", ""},
			"a link followed keeps its name": {"-L /src/l", "x", "mkdir x", "test $(cat x/l) = one", ""},
			"a link to a directory":          {"/to-src", "x", "", `test "$(readlink x)" = src`, ""},
			"and slash":                      {"/to-src/", "x", "", "test $(cat x/f) = one", ""},
			"and slash, to directory":        {"/to-src/", "x", "mkdir x", "test $(cat x/to-src/f) = one", ""},
			"and dot":                        {"/to-src/.", "x", "mkdir x", "test $(cat x/f) = one", ""},
			"a dangling link":                {"/src/dangling", "x", "", `test "$(readlink x)" = /nowhere`, ""},
			"a dangling link followed":       {"-L /src/dangling", "x", "", "! test -e x", `could not find the file /src/dangling in container`},
			"a FIFO":                         {"/src/p", "x", "", "test -p x", ""},
			"nothing":                        {"/no/such", "x", "", "! test -e x", `could not find the file /no/such in container`},
			"more dots than levels":          {"/../../src/../src/f", "x", "", "test $(cat x) = one", ""},
			"to a device":                    {"/src/f", "/dev/null", "", "", `must be a directory or a regular file`},
			"a name with a colon":            {"/src/f", "./a:b", "", "test $(cat a:b) = one", ""},
		} {
			t.Run(state+": "+what, func(t *testing.T) {
				dir := b.fresh(tc.here)
				args := strings.Fields(strings.Replace(tc.src, "/", name+":/", 1))
				if !strings.Contains(tc.src, "/src") && !strings.HasPrefix(tc.src, "/") || tc.src == "src/f" {
					args = []string{name + ":" + tc.src}
				}
				got := b.do(call{args: append(append([]string{"cp"}, args...), tc.dst), dir: dir})
				if tc.fails != "" {
					want{status: 125, stderr: "^rbox: .*" + tc.fails}.checkFailed(t, got)
				} else {
					want{}.check(t, got)
				}
				want{}.check(t, b.do(call{prog: "sh", args: []string{"-c", tc.check}, dir: dir}))
			})
		}
	}
}

// fresh makes a new folder of the box's account and runs a script in it.
func (b *box) fresh(script string) string {
	b.t.Helper()
	dir := b.own(filepath.Join(b.home, fmt.Sprint("fresh", boxes.Add(1))))
	if got := b.do(call{prog: "sh", args: []string{"-ec", ": ; " + script}, dir: dir}); got.status != 0 {
		b.t.Fatal(got)
	}
	return dir
}

func TestCpIn(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	here := b.fresh("mkdir -p src/d; echo one >src/f; chmod 4750 src/f; echo two >src/d/g; ln -s f src/l; ln -s src to-src; ln src/d/g src/h; echo x >./a:b; ln -s /nowhere dangling")
	names := b.states("mkdir -p /dir /dir2/src /full/src/f /dir3; echo old >/file; echo old >/dir3/src; ln -s /dir /to-dir; ln -s ../../../file /to-file; ln -s /new /to-new; ln -s /no/where/x /to-nowhere; mkfifo /pipe")
	n := 0
	for state, name := range names {
		for what, tc := range map[string]struct {
			src, dst string // %d in it is a number that is new each time
			check    string // where it must be: a file with the content one
			fails    string
		}{
			"file to nothing":               {"src/f", "/x%d", "/x%d", ""},
			"without the first slash":       {"src/f", "x%d", "/x%d", ""},
			"file to file":                  {"src/f", "/file", "/file", ""},
			"file to directory":             {"src/f", "/dir", "/dir/f", ""},
			"file to the root":              {"src/f", "/", "/f", ""},
			"file to directory and slash":   {"src/f", "/dir/", "/dir/f", ""},
			"file to nothing and slash":     {"src/f", "/x%d/", "", `no such directory: /x`},
			"file to a directory not there": {"src/f", "/no/such/x", "", `could not find the file /no/such in container`},
			"file over a directory in it":   {"src/f", "/full/src", "", `cannot overwrite directory "f" with non-directory`},
			"file to a link to a directory": {"src/f", "/to-dir", "/dir/f", ""},
			"file through a link":           {"src/f", "/to-file", "/file", ""},
			"file through a dangling link":  {"src/f", "/to-new", "/new", ""},
			"and its directory is missing":  {"src/f", "/to-nowhere", "", `could not find the file /no/where in container`},
			"file to a FIFO":                {"src/f", "/pipe", "", `must be a directory or a regular file`},
			"file and slash":                {"src/f/", "/x%d", "", `not a directory`},
			"directory to nothing":          {"src", "/x%d", "/x%d/f", ""},
			"directory to file":             {"src", "/file", "", `cannot copy directory`},
			"directory to directory":        {"src", "/dir", "/dir/src/f", ""},
			"directory is merged":           {"src", "/dir2", "/dir2/src/f", ""},
			"directory over a file in it":   {"src", "/dir3", "", `cannot overwrite non-directory "src" with directory`},
			"content to nothing":            {"src/.", "/x%d", "/x%d/f", ""},
			"content to directory":          {"src/.", "/dir", "/dir/f", ""},
			"a link followed":               {"-L src/l", "/x%d", "/x%d", ""},
			"a link and slash":              {"to-src/", "/dir", "/dir/to-src/f", ""},
			"a link and dot":                {"to-src/.", "/dir2", "/dir2/f", ""},
			"a dangling link followed":      {"-L dangling", "/x%d", "", `no such file`},
			"nothing":                       {"no-such", "/x%d", "", `no-such: no such file`},
			"a closed file":                 {"/etc/shadow", "/x%d", "", `permission denied`},
			"dots":                          {"src/f", "/../../x%d", "/x%d", ""},
		} {
			t.Run(state+": "+what, func(t *testing.T) {
				n++
				number := func(s string) string { return strings.ReplaceAll(s, "%d", fmt.Sprint(n)) }
				args := append(append([]string{"cp"}, strings.Fields(tc.src)...), name+":"+number(tc.dst))
				got := b.do(call{args: args, dir: here})
				if tc.fails != "" {
					want{status: 125, stderr: "^rbox: .*" + tc.fails}.checkFailed(t, got)
					return
				}
				want{}.check(t, got)
				if text := untar(t, b.must("cp", name+":"+number(tc.check), "-")); text != "one\n" {
					t.Errorf("%s holds %q", number(tc.check), text)
				}
			})
		}
	}
	t.Run("attributes", func(t *testing.T) {
		b.must("cp", here+"/src", "up:/attributes")
		want{stdout: "0:0 4750 1\n0:0 644 2\n0:0 644 2\nf\n"}.check(t, b.rbox("exec", "up", "sh", "-c", "cd /attributes; stat -c '%u:%g %a %h' f h d/g; readlink l"))
		b.must("cp", "-a", here+"/src", "up:/kept")
		want{stdout: fmt.Sprintf("%d:%d\n", run.plain.UID, run.plain.GID)}.check(t, b.rbox("exec", "up", "stat", "-c", "%u:%g", "/kept/f"))
	})
	t.Run("a file that is mounted", func(t *testing.T) {
		b.must("cp", here+"/src/f", "up:/etc/hosts")
		want{stdout: "one\n"}.check(t, b.rbox("exec", "up", "cat", "/etc/hosts"))
	})
	t.Run("it starts with what was copied", func(t *testing.T) {
		b.removed("never")
		b.must("create", "--name", "never", "alpine", "cat", "/new/f")
		b.must("cp", here+"/src", "never:/new")
		want{stdout: "one\n"}.check(t, b.rbox("start", "-a", "never"))
	})
}

// untar returns the content of the archive's first file.
func untar(t testing.TB, data string) string {
	t.Helper()
	r := tar.NewReader(strings.NewReader(data))
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestCpMistakes(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.removed("one", "closed")
	b.must("create", "--name", "one", "alpine", "true")
	b.must("create", "--name", "closed", "--read-only", "-v", "./:/ro:ro", "-v", "./:/rw", "alpine", "true")
	b.file("f", "x\n", 0o644)
	for name, tc := range map[string]struct {
		args   []string
		stderr string
	}{
		"no container":        {[]string{"f", "g"}, `must specify at least one container source`},
		"two containers":      {[]string{"one:/x", "one:/y"}, `copying between containers is not supported`},
		"no such container":   {[]string{"none:/x", "."}, `no such container: none`},
		"no such one, in":     {[]string{"f", "none:/x"}, `no such container: none`},
		"no source":           {[]string{"", "one:/x"}, `source can not be empty`},
		"no destination":      {[]string{"f", ""}, `destination can not be empty`},
		"one argument":        {[]string{"f"}, `DST`},
		"stdin to a file":     {[]string{"-", "one:/etc/passwd"}, `destination "one:/etc/passwd" must be a directory`},
		"stdin to nothing":    {[]string{"-", "one:/no-such"}, `destination "one:/no-such" must be a directory`},
		"a read-only root":    {[]string{"f", "closed:/f"}, `container rootfs is marked read-only`},
		"a read-only volume":  {[]string{"f", "closed:/ro"}, `mounted volume is marked read-only`},
		"stdin is no archive": {[]string{"-", "one:/tmp"}, `not a tar archive`},
	} {
		t.Run(name, func(t *testing.T) {
			got := b.do(call{args: append([]string{"cp"}, tc.args...), stdin: strings.NewReader(strings.Repeat("text ", 1000))})
			want{stderr: tc.stderr, status: got.status}.checkFailed(t, got)
		})
	}
}

// Archives in and out, with all that files can be.
func TestCpStreams(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	for state, name := range b.states("mkdir /d; cd /d; echo x >'new\nline'; ln 'new\nline' hard; chown 12:34 hard; truncate -s 300G sparse; ln -s /etc l; mkdir -m 1777 e; head -c 5000000 /dev/urandom >big; setfattr 2>/dev/null; touch -d 2001-02-03 e") {
		t.Run(state, func(t *testing.T) {
			out := b.rbox("cp", name+":/d", "-")
			if out.status != 0 || len(out.stdout) > 8<<20 {
				t.Fatalf("status %d, %d bytes: %s", out.status, len(out.stdout), out.stderr)
			}
			entries := map[string]*tar.Header{}
			for r := tar.NewReader(strings.NewReader(out.stdout)); ; {
				h, err := r.Next()
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				entries[h.Name] = h
				if h.Name == "d/sparse" {
					break // archive/tar would read all of its zeros
				}
			}
			if h := entries["d/hard"]; h == nil || h.Uid != 12 || h.Gid != 34 {
				t.Errorf("d/hard is %+v", h)
			}
			if h := entries["d/sparse"]; h == nil || h.Size != 300<<30 {
				t.Errorf("d/sparse is %+v", h)
			}
			dir := b.fresh("")
			b.must("cp", name+":/d", dir)
			want{stdout: "300\n2 x\n2 x\n/etc\n1777 2001-02-03\n"}.check(t, b.do(call{prog: "sh", dir: dir + "/d", args: []string{"-c",
				`echo $(($(stat -c %s sparse) / 1024 / 1024 / 1024)); for f in hard 'new
line'; do echo $(stat -c %h "$f") $(cat "$f"); done; readlink l; stat -c '%a %.10y' e`}}))
			// What came out goes in again, into another place.
			small := b.do(call{prog: "sh", dir: dir, args: []string{"-c", "rm d/sparse; tar -czf small.tar.gz --owner=7 --group=8 d"}})
			if small.status != 0 {
				t.Fatal(small)
			}
			packed, err := os.ReadFile(dir + "/small.tar.gz")
			if err != nil {
				t.Fatal(err)
			}
			for flag, ids := range map[string]string{"-q": "0/0", "-a": "7/8"} {
				got := b.do(call{args: []string{"cp", flag, "-", name + ":/tmp/."}, stdin: bytes.NewReader(packed)})
				want{}.check(t, got)
				list := b.do(call{prog: "tar", args: []string{"-tv", "--numeric-owner"}, stdin: strings.NewReader(b.rbox("cp", name+":/tmp/d/big", "-").stdout)})
				if !strings.Contains(list.stdout, " "+ids+" ") || !strings.Contains(list.stdout, " 5000000 ") {
					t.Errorf("%s: %v", flag, list)
				}
			}
		})
	}
}

// Links of a container lead nowhere but in it, and what comes from it stays
// where it was put.
func TestCpHostileLinks(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	secret := b.file("secret", "of the host\n", 0o600)
	script := fmt.Sprintf(`mv /etc /real; ln -s ../../../../../../../../etc /etc 2>/dev/null
		ln -s %[1]s /link; ln -s %[2]s /home-link; mkdir /d; ln -s %[2]s /d/sub; ln -s /proc/1/root /d/root; ln -s ../../../../.. /d/up; echo inside >/inside`, secret, b.home)
	for state, name := range b.states(script) {
		for what, tc := range map[string]struct {
			args  []string
			fails string
		}{
			"a link's target":      {[]string{"-L", name + ":/link", "x"}, `could not find`},
			"through a link":       {[]string{name + ":/home-link/secret", "x"}, `could not find`},
			"through up":           {[]string{name + ":/d/up" + secret, "x"}, `could not find`},
			"through proc":         {[]string{name + ":/d/root" + secret, "x"}, `.`},
			"through proc, a file": {[]string{name + ":/proc/self/root" + secret, "x"}, `.`},
			"a loop":               {[]string{name + ":/etc/passwd", "x"}, `.`},
			"into a link":          {[]string{secret, name + ":/home-link/new"}, `could not find`},
			"into proc":            {[]string{secret, name + ":/proc/1/root/new"}, `.`},
			"into the kernel":      {[]string{secret, name + ":/proc/sys/kernel/core_pattern"}, `.`},
		} {
			t.Run(state+": "+what, func(t *testing.T) {
				got := b.do(call{args: append([]string{"cp"}, tc.args...), dir: b.fresh("")})
				want{status: 125, stderr: `^rbox: .*` + tc.fails}.checkFailed(t, got)
			})
		}
		t.Run(state+": links inside", func(t *testing.T) {
			dir := b.fresh("")
			b.must("cp", name+":/d/up/inside", dir+"/x")
			if text, _ := os.ReadFile(dir + "/x"); string(text) != "inside\n" {
				t.Errorf("got %q", text)
			}
			// The directory is written over one of the same names, with a link of ours in it.
			b.must("cp", name+":/d", dir)
			b.must("cp", name+":/d", dir)
		})
	}
	if _, err := os.Stat(b.home + "/new"); err == nil {
		t.Error("a copy came out of the container")
	}
}

// While a container swaps a directory for a link, again and again, copies in
// and out stay in it.
func TestCpRaces(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	secrets := b.fresh("echo of the host >f; mkdir sub; echo of the host >sub/f")
	b.removed("swap")
	b.must("run", "-d", "--name", "swap", "-v", buildProbe(t, b)+":/probe:ro", "alpine", "sh", "-c", fmt.Sprintf(`
		mkdir -p /a/d/sub; echo inside >/a/d/f; echo inside >/a/d/sub/f; ln -s %s /a/l
		mkdir -p %[1]s/sub; echo inside >%[1]s/f; echo inside >%[1]s/sub/f
		echo ready >/ready; exec /probe swap /a/d,/a/l`, secrets))
	if !eventually(callLimit, func() bool { return b.rbox("cp", "swap:/ready", "-").status == 0 }) {
		t.Fatal("the container does not get ready")
	}
	b.file("mine/f", "mine\n", 0o644)
	b.file("mine/sub/f", "mine\n", 0o644)
	outs := 0
	for range 40 {
		dir := b.fresh("")
		if b.rbox("cp", "swap:/a/d/.", dir+"/out").status == 0 {
			outs++
		}
		b.rbox("cp", "-L", "swap:/a/d/f", dir+"/f")
		for _, file := range []string{"out/f", "out/sub/f", "f"} {
			if text, err := os.ReadFile(filepath.Join(dir, file)); err == nil && string(text) != "inside\n" && string(text) != "mine\n" && len(text) > 0 {
				t.Fatalf("%s came out with %q", file, text)
			}
		}
		b.rbox("cp", "./mine/.", "swap:/a/d")
		b.rbox("cp", "./mine/f", "swap:/a/d/sub/new")
		for _, file := range []string{"f", "sub/f"} {
			if text, err := os.ReadFile(filepath.Join(secrets, file)); err != nil || string(text) != "of the host\n" {
				t.Fatalf("the host's %s holds %q, %v", file, text, err)
			}
		}
	}
	if outs == 0 {
		t.Error("no copy out succeeded")
	}
	if left, _ := filepath.Glob(secrets + "/sub/*"); len(left) != 1 {
		t.Errorf("the host has %v", left)
	}
}

// What would block or never end does not.
func TestCpOfWhatBlocks(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	names := b.states("mkdir /d; mkfifo /d/p; truncate -s 2T /d/big 2>/dev/null || truncate -s 1T /d/big; echo x >/d/f; nc -l -s /d/sock 2>/dev/null & ln -s /dev/zero /d/zero")
	dir := b.fresh("")
	want{}.check(t, b.rbox("cp", names["running"]+":/d", dir))
	want{status: 125, stderr: `device or socket`}.checkFailed(t, b.rbox("cp", "-L", names["running"]+":/d/zero", dir))
	want{status: 125, stderr: `kernel's answer`}.checkFailed(t, b.rbox("cp", names["running"]+":/proc/kmsg", dir))
	// Of the kernel's file systems there are empty directories.
	want{}.check(t, b.rbox("cp", names["running"]+":/proc", dir))
	if entries, err := os.ReadDir(dir + "/proc"); err != nil || len(entries) > 0 {
		t.Errorf("%v, %v", entries, err)
	}
}

func TestCpVolumes(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	data := b.own(filepath.Join(b.home, "data"))
	b.file("data/f", "bound\n", 0o644)
	b.file("new", "new\n", 0o644)
	for state, name := range b.states("echo kept >/vol/f", "-v", data+":/data", "-v", "vol-of-test:/vol") {
		t.Run(state, func(t *testing.T) {
			for path, text := range map[string]string{"/data/f": "bound\n", "/vol/f": "kept\n"} {
				if got := untar(t, b.must("cp", name+":"+path, "-")); got != text {
					t.Errorf("%s holds %q", path, got)
				}
			}
			b.must("cp", "new", name+":/data/"+name)
			if text, _ := os.ReadFile(filepath.Join(data, name)); string(text) != "new\n" {
				t.Errorf("the bound directory has %q", text)
			}
			b.must("cp", "new", name+":/vol/"+name)
			want{stdout: "new\n"}.check(t, b.sh("cat /vol/"+name, "-v", "vol-of-test:/vol"))
		})
	}
	b.rbox("rm", "-f", "up", "down")
	b.must("volume", "rm", "vol-of-test")
}

// With one id alone, owners are kept in an attribute.
func TestCpSingleID(t *testing.T) {
	t.Parallel()
	b := newBox(t, as(single(t)), noImage)
	b.rbox("import", run.alpine, "alpine")
	b.removed("one")
	b.must("create", "--name", "one", "alpine", "cat", "/f")
	dir := b.fresh("echo x >f; tar -cf t.tar --owner=7 --group=8 f")
	archive, err := os.ReadFile(dir + "/t.tar")
	if err != nil {
		t.Fatal(err)
	}
	want{}.check(t, b.do(call{args: []string{"cp", "-a", "-", "one:/"}, stdin: bytes.NewReader(archive)}))
	list := b.do(call{prog: "tar", args: []string{"-tv", "--numeric-owner"}, stdin: strings.NewReader(b.rbox("cp", "one:/f", "-").stdout)})
	want{match: " 7/8 "}.check(t, list)
	want{stdout: "x\n"}.check(t, b.rbox("start", "-a", "one"))
}

// Copies into one container that does not run, and its start, at one time.
func TestCpWaitsItsTurn(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.removed("one")
	b.must("create", "--name", "one", "alpine", "sh", "-c", "ls /tmp | wc -l")
	b.file("f", "x\n", 0o644)
	var all []*process
	for i := range 6 {
		all = append(all, b.start(call{args: []string{"cp", "f", fmt.Sprint("one:/tmp/", i)}}))
		all = append(all, b.start(call{args: []string{"cp", "one:/etc/passwd", "-"}}))
	}
	for _, p := range all {
		want{}.check(t, p.wait())
	}
	want{stdout: "6\n"}.check(t, b.rbox("start", "-a", "one"))
}

// A copy that is killed leaves a container that starts.
func TestCpKilled(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.removed("one")
	b.must("create", "--name", "one", "alpine", "ls", "/tmp")
	for range 5 {
		r, w := io.Pipe()
		p := b.start(call{args: []string{"cp", "-", "one:/tmp"}, stdin: r})
		tw := tar.NewWriter(w)
		if err := tw.WriteHeader(&tar.Header{Name: "half", Size: 1 << 20, Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write(make([]byte, 1<<19)); err != nil {
			t.Fatal(err)
		}
		p.signal(9)
		w.Close()
		p.wait()
		want{stdout: "half\n"}.check(t, b.rbox("start", "-a", "one"))
	}
}

// Attributes go in and out; layers that a reboot has put in doubt are made again.
func TestCpAttributesAfterReboot(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.removed("one")
	b.must("run", "--name", "one", "alpine", "sh", "-c", "echo x >/f; rm /etc/motd")
	records, err := filepath.Glob(filepath.Join(b.root, "layers/*/*/layer.json"))
	if err != nil || len(records) == 0 {
		t.Fatalf("%v %v", records, err)
	}
	for _, record := range records {
		text, err := os.ReadFile(record)
		if err != nil {
			t.Fatal(err)
		}
		other := regexp.MustCompile(`"Boot":"[^"]*"`).ReplaceAll(text, []byte(`"Boot":"another"`))
		if err := os.WriteFile(record, other, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want{stdout: "D /etc/motd\n"}.check(t, result{stdout: grep(b.must("diff", "one"), "motd")})
	file := b.file("g", "y\n", 0o640)
	if err := unix.Setxattr(file, "user.test", []byte("a\nb"), 0); err != nil {
		t.Skip(err)
	}
	b.must("cp", "g", "one:/g")
	b.must("cp", "one:/g", "h")
	value := make([]byte, 10)
	n, err := unix.Getxattr(filepath.Join(b.home, "h"), "user.test", value)
	if err != nil || string(value[:n]) != "a\nb" {
		t.Errorf("the attribute came back as %q, %v", value[:max(n, 0)], err)
	}
	if st, err := os.Stat(filepath.Join(b.home, "h")); err != nil || st.Mode() != 0o640 {
		t.Errorf("%v, %v", st, err)
	}
	want{stdout: "x\n"}.check(t, b.rbox("run", "--rm", b.must("commit", "one"), "cat", "/f"))
}

// grep returns the lines of text that have word in them.
func grep(text, word string) string {
	var found strings.Builder
	for line := range strings.Lines(text + "\n") {
		if strings.Contains(line, word) {
			found.WriteString(line)
		}
	}
	return found.String()
}
