package main

import (
	"bufio"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"rbox/rootfs"
	"rbox/rootfs/image"
	"rbox/userns/stage"
)

// text is err's, or "".
func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// hint is what main would print under err.
func hint(err error) string {
	var hinted interface{ Hint() string }
	if errors.As(err, &hinted) {
		return hinted.Hint()
	}
	return ""
}

func TestParseVolume(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	bind := func(m rootfs.Mount) rootfs.Mount {
		m.Type, m.Source, m.Target = "bind", dir, "/data"
		return m
	}
	for spec, tc := range map[string]struct {
		want    rootfs.Mount
		wantErr string
		hint    string
	}{
		dir + ":/data":                {want: bind(rootfs.Mount{})},
		dir + "/:/data/":              {want: bind(rootfs.Mount{})},
		".:/data":                     {want: bind(rootfs.Mount{})},
		"./:/x/../data":               {want: bind(rootfs.Mount{})},
		dir + ":/data:ro":             {want: bind(rootfs.Mount{ReadOnly: true})},
		dir + ":/data:rw,z":           {want: bind(rootfs.Mount{})},
		dir + ":/data:ro,Z,rprivate":  {want: bind(rootfs.Mount{ReadOnly: true})},
		dir + ":/data:bind":           {want: bind(rootfs.Mount{Flat: true})},
		dir + ":/data:nosuid,noexec":  {want: bind(rootfs.Mount{Flags: unix.MS_NOSUID | unix.MS_NOEXEC})},
		dir + ":/data:nodev":          {want: bind(rootfs.Mount{Flags: unix.MS_NODEV})},
		"/vol/./ume":                  {want: rootfs.Mount{Type: "volume", Target: "/vol/ume"}},
		"name:/data":                  {want: rootfs.Mount{Type: "volume", Source: "name", Target: "/data"}},
		"name:/data/:ro,nocopy":       {want: rootfs.Mount{Type: "volume", Source: "name", Target: "/data", ReadOnly: true, NoCopy: true}},
		"name:data":                   {wantErr: `the target "data" is not absolute`},
		"/":                           {wantErr: "the target cannot be /"},
		"n:/data":                     {wantErr: `"n": volume name is too short, names should be at least two alphanumeric characters`, hint: "for a directory write ./n"},
		"_name:/data":                 {wantErr: `"_name" includes invalid characters for a local volume name, only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed`, hint: "for a directory write ./_name"},
		dir + ":/data:nocopy":         {wantErr: "nocopy is for volumes: nothing is copied to a directory of yours"},
		dir + ":/data:rw,fast":        {wantErr: `unknown option "fast"`},
		dir + ":data":                 {wantErr: `the target "data" is not absolute`},
		dir + ":/..":                  {wantErr: "the target cannot be /"},
		dir + ":":                     {wantErr: `the target "" is not absolute`},
		":/data":                      {wantErr: "want SOURCE:TARGET[:OPTIONS]"},
		"relative":                    {wantErr: "want SOURCE:TARGET[:OPTIONS]"},
		dir + ":/data:ro:rw":          {wantErr: "want SOURCE:TARGET[:OPTIONS]"},
		dir + "/new:/data":            {wantErr: dir + "/new does not exist", hint: "mkdir -p " + dir + "/new"},
		"./new:/data":                 {wantErr: dir + "/new does not exist", hint: "mkdir -p " + dir + "/new"},
		dir + ":/data:" + "ro,shared": {wantErr: `unknown option "shared"`},
	} {
		got, err := parseVolume(spec)
		if text(err) != tc.wantErr || hint(err) != tc.hint || err == nil && got != tc.want {
			t.Errorf("%s:\n got %+v, %v (%s)\nwant %+v, %s (%s)", spec, got, err, hint(err), tc.want, tc.wantErr, tc.hint)
		}
	}
}

func TestParseMount(t *testing.T) {
	dir := t.TempDir()
	for spec, tc := range map[string]struct {
		want    rootfs.Mount
		wantErr string
	}{
		"type=bind,source=" + dir + ",target=/data":                {want: rootfs.Mount{Type: "bind", Source: dir, Target: "/data"}},
		"type=bind,src=" + dir + ",dst=/data,readonly":             {want: rootfs.Mount{Type: "bind", Source: dir, Target: "/data", ReadOnly: true}},
		"type=bind,src=" + dir + ",destination=/data,ro=true":      {want: rootfs.Mount{Type: "bind", Source: dir, Target: "/data", ReadOnly: true}},
		"type=bind,src=" + dir + ",dst=/data,ro=false":             {want: rootfs.Mount{Type: "bind", Source: dir, Target: "/data"}},
		"type=bind,src=" + dir + ",dst=/data,bind-nonrecursive":    {want: rootfs.Mount{Type: "bind", Source: dir, Target: "/data", Flat: true}},
		"dst=/data,type=bind,bind-propagation=rprivate,src=" + dir: {want: rootfs.Mount{Type: "bind", Source: dir, Target: "/data"}},
		"type=tmpfs,target=/t,tmpfs-size=64m,tmpfs-mode=1770":      {want: rootfs.Mount{Type: "tmpfs", Target: "/t", Size: 64 << 20, Mode: 0o1770}},
		"type=tmpfs,dst=/t/":                                           {want: rootfs.Mount{Type: "tmpfs", Target: "/t"}},
		"type=bind,dst=/data":                                          {wantErr: "source is missing"},
		"type=bind,src=" + dir:                                         {wantErr: `the target "" is not absolute`},
		"type=bind,src=" + dir + ",dst=/":                              {wantErr: "the target cannot be /"},
		"type=bind,src=" + dir + "/x,dst=/data":                        {wantErr: dir + "/x does not exist"},
		"type=tmpfs":                                                   {wantErr: `the target "" is not an absolute path below /`},
		"type=tmpfs,dst=/":                                             {wantErr: `the target "/" is not an absolute path below /`},
		"type=tmpfs,dst=/t,tmpfs-size=much":                            {wantErr: `"much" is not a size, as 64m is`},
		"type=tmpfs,dst=/t,tmpfs-mode=rwx":                             {wantErr: `mode "rwx" is not octal`},
		"type=tmpfs,dst=/t,tmpfs-mode=77777":                           {wantErr: `mode "77777" is not octal`},
		"type=volume,src=xy,dst=/data":                                 {want: rootfs.Mount{Type: "volume", Source: "xy", Target: "/data"}},
		"src=xy,dst=/data,volume-nocopy,readonly":                      {want: rootfs.Mount{Type: "volume", Source: "xy", Target: "/data", ReadOnly: true, NoCopy: true}},
		"type=volume,dst=/data,volume-driver=local":                    {want: rootfs.Mount{Type: "volume", Target: "/data"}},
		"src=" + dir + ",dst=/data":                                    {wantErr: `"` + dir + `" is not the name of a volume`},
		"type=volume,src=xy,dst=/":                                     {wantErr: "the target cannot be /"},
		"type=volume,src=.xy,dst=/data":                                {wantErr: `".xy" includes invalid characters for a local volume name, only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed`},
		"type=volume,dst=/data,volume-driver=nfs":                      {wantErr: "volume-driver nfs: there is local alone"},
		"type=volume,dst=/data,volume-opt=o=bind":                      {wantErr: "volume-opt: a volume gets it when it is made"},
		"type=floppy,dst=/data":                                        {wantErr: `type "floppy": there are bind, volume and tmpfs`},
		"type=bind,colour=red":                                         {wantErr: `unknown field "colour"`},
		"type=bind,src=" + dir + ",dst=/data,bind-propagation=rshared": {wantErr: "bind-propagation rshared: a user namespace has private mounts only"},
		"": {wantErr: `unknown field ""`},
		"type=bind,source=" + dir + ",target=/data,consistency=delegated": {want: rootfs.Mount{Type: "bind", Source: dir, Target: "/data"}},
	} {
		got, err := parseMount(spec)
		if text(err) != tc.wantErr || err == nil && got != tc.want {
			t.Errorf("%s:\n got %+v, %v\nwant %+v, %s", spec, got, err, tc.want, tc.wantErr)
		}
	}
}

func TestParseTmpfs(t *testing.T) {
	for spec, tc := range map[string]struct {
		want    rootfs.Mount
		wantErr string
	}{
		"/t":                          {want: rootfs.Mount{Target: "/t", Flags: unix.MS_NOEXEC}},
		"/t:rw,nosuid,nodev,noexec":   {want: rootfs.Mount{Target: "/t", Flags: unix.MS_NOEXEC}},
		"/t:exec,size=1g,mode=755":    {want: rootfs.Mount{Target: "/t", Size: 1 << 30, Mode: 0o755}},
		"/t:ro":                       {want: rootfs.Mount{Target: "/t", Flags: unix.MS_NOEXEC, ReadOnly: true}},
		"/t:nr_inodes=5,nr_blocks=4k": {want: rootfs.Mount{Target: "/t", Flags: unix.MS_NOEXEC, Data: "nr_inodes=5,nr_blocks=4k"}},
		"/t:nr_inodes":                {wantErr: `nr_inodes: "" is not a number, as 64k is`},
		"/t:nr_blocks=k":              {wantErr: `nr_blocks: "k" is not a number, as 64k is`},
		"/t:uid=0":                    {wantErr: `unknown option "uid=0"`},
		"/t:size=":                    {wantErr: `"" is not a size, as 64m is`},
		"t":                           {wantErr: `the target "t" is not an absolute path below /`},
		"/":                           {wantErr: `the target "/" is not an absolute path below /`},
		"":                            {wantErr: `the target "" is not an absolute path below /`},
	} {
		tc.want.Type = "tmpfs"
		got, err := parseTmpfs(spec)
		if text(err) != tc.wantErr || err == nil && got != tc.want {
			t.Errorf("%s:\n got %+v, %v\nwant %+v, %s", spec, got, err, tc.want, tc.wantErr)
		}
	}
}

func TestMounts(t *testing.T) {
	dir := t.TempDir()
	from := &base{
		mounts: []rootfs.Mount{{Type: "tmpfs", Target: "/tmp"}},
		config: image.ContainerConfig{Volumes: map[string]struct{}{"/var/lib/data": {}, "/data": {}, "relative": {}}},
	}
	c := &RunCmd{}
	c.Volume = []string{dir + ":/data", dir + ":/tmp"}
	c.Tmpfs = []string{"/data/scratch"}
	c.Mount = []string{"type=tmpfs,dst=/run"}
	got, err := c.mounts(from)
	if err != nil {
		t.Fatal(err)
	}
	kinds, order := map[string]string{}, []string{}
	for _, m := range got {
		kinds[m.Target], order = m.Type, append(order, m.Target)
	}
	want := map[string]string{"/data": "bind", "/tmp": "bind", "/data/scratch": "tmpfs", "/run": "tmpfs", "/var/lib/data": "volume"}
	if !reflect.DeepEqual(kinds, want) || len(order) != len(want) || slices.Index(order, "/data") > slices.Index(order, "/data/scratch") {
		t.Errorf("got %v in the order %v, want %v", kinds, order, want)
	}
	c.Tmpfs = []string{"x"}
	if _, err := c.mounts(from); !strings.HasPrefix(text(err), "--tmpfs x: ") {
		t.Errorf("the flag is not named: %v", err)
	}
}

func TestParseSize(t *testing.T) {
	for in, want := range map[string]int64{
		"0": 0, "512": 512, "512b": 512, "1k": 1 << 10, "64m": 64 << 20, "64M": 64 << 20, "64mb": 64 << 20, "64MiB": 64 << 20,
		"1.5g": 3 << 29, "0.5k": 512, "1.25MiB": 5 << 18, "2g": 2 << 30, "1t": 1 << 40, "4194304t": 1 << 62,
		"": -1, "b": -1, "m": -1, "-1": -1, "-1m": -1, "1x": -1, "m1": -1, "1 m": -1, "1mm": -1, "4194305t": -1, "9223372036854775808": -1, "0x10": -1,
		"64i": -1, "64bb": -1, "1.": -1, ".5g": -1, "1.5.5g": -1, "1e3": -1, "1.5e3k": -1, "+1": -1,
	} {
		got, err := parseSize(in)
		if want >= 0 && (got != want || err != nil) || want < 0 && err == nil {
			t.Errorf("%q: %d, %v; want %d", in, got, err, want)
		}
	}
}

func TestDevices(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for spec, tc := range map[string]struct {
		want    stage.Device
		wantErr string
	}{
		"/dev/null":             {want: stage.Device{Source: "/dev/null", Target: "/dev/null"}},
		"/dev/null:/dev/x":      {want: stage.Device{Source: "/dev/null", Target: "/dev/x"}},
		"/dev/./null:rw":        {want: stage.Device{Source: "/dev/null", Target: "/dev/null"}},
		"/dev/null:/dev/x:rwm":  {want: stage.Device{Source: "/dev/null", Target: "/dev/x"}},
		"/dev/null:/dev/x:rwx":  {wantErr: "--device /dev/null:/dev/x:rwx: want SOURCE[:TARGET][:rwm]"},
		"/dev/null:x":           {wantErr: "--device /dev/null:x: want SOURCE[:TARGET][:rwm]"},
		"/dev/null:x:r":         {wantErr: "--device /dev/null:x:r: want SOURCE[:TARGET][:rwm]"},
		"null":                  {wantErr: "--device null: want SOURCE[:TARGET][:rwm]"},
		"/dev/null:/dev/x:r:w":  {wantErr: "--device /dev/null:/dev/x:r:w: want SOURCE[:TARGET][:rwm]"},
		"/dev/rbox-nonexistent": {wantErr: "--device: stat /dev/rbox-nonexistent: no such file or directory"},
		file:                    {wantErr: "--device " + file + ": not a device node"},
	} {
		got, err := devices([]string{spec}, func(string) {})
		if text(err) != tc.wantErr || err == nil && (len(got) != 1 || got[0] != tc.want) {
			t.Errorf("%s:\n got %+v, %v\nwant %+v, %s", spec, got, err, tc.want, tc.wantErr)
		}
	}
}

// As docker run(1) and moby's tests have it.
func TestCommand(t *testing.T) {
	str := func(s string) *string { return &s }
	for name, tc := range map[string]struct {
		entry, cmd []string // the image's
		flag       *string
		words      []string
		want       []string
		wantErr    string
	}{
		"the image's":                 {entry: []string{"e"}, cmd: []string{"c"}, want: []string{"e", "c"}},
		"a command of the image":      {cmd: []string{"c", "d"}, want: []string{"c", "d"}},
		"another command":             {cmd: []string{"c"}, words: []string{"x", "y"}, want: []string{"x", "y"}},
		"arguments of an entry point": {entry: []string{"e", "f"}, cmd: []string{"c"}, words: []string{"x"}, want: []string{"e", "f", "x"}},
		"another entry point":         {entry: []string{"e"}, cmd: []string{"c"}, flag: str("x"), want: []string{"x"}},
		"both":                        {entry: []string{"e"}, cmd: []string{"c"}, flag: str("x"), words: []string{"y"}, want: []string{"x", "y"}},
		"no entry point":              {entry: []string{"e"}, cmd: []string{"c"}, flag: str(""), words: []string{"y"}, want: []string{"y"}},
		"with blanks":                 {flag: str("a b"), want: []string{"a b"}},
		"a list":                      {entry: []string{"e"}, flag: str(`["a","b c"]`), words: []string{"y"}, want: []string{"a", "b c", "y"}},
		"no list after all":           {flag: str(`[a`), want: []string{"[a"}},
		"a list of something else":    {flag: str(`[1]`), want: []string{"[1]"}},
		"nothing":                     {wantErr: "img: no command specified, and the image has none"},
		"nothing left":                {entry: []string{"e"}, cmd: []string{"c"}, flag: str(""), wantErr: "img: no command specified, and the image has none"},
		"an empty word":               {words: []string{""}, wantErr: "img: the command is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			c := &RunCmd{Words: append([]string{"img"}, tc.words...)}
			c.Entrypoint = tc.flag
			got, err := c.command(image.ContainerConfig{Entrypoint: image.Words(tc.entry), Cmd: image.Words(tc.cmd)})
			if text(err) != tc.wantErr || !slices.Equal(got, tc.want) {
				t.Errorf("got %q, %v; want %q, %s", got, err, tc.want, tc.wantErr)
			}
		})
	}
}

func TestEnvironment(t *testing.T) {
	file := filepath.Join(t.TempDir(), "env")
	if err := os.WriteFile(file, []byte("\ufeff# comment\nFILE=1\n\n  INDENTED= two words \nOURS\nUNSET\nBOTH=file\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("OURS", "from here")
	os.Unsetenv("UNSET")
	for name, tc := range map[string]struct {
		image, flags, files []string
		want                []string
		wantErr             string
	}{
		"nothing":          {want: []string{"container=rbox", "HOSTNAME=box"}},
		"image":            {image: []string{"A=1", "HOSTNAME=x"}, want: []string{"container=rbox", "HOSTNAME=x", "A=1"}},
		"flag over image":  {image: []string{"A=1", "B=2"}, flags: []string{"A=3"}, want: []string{"container=rbox", "HOSTNAME=box", "A=3", "B=2"}},
		"our own":          {flags: []string{"OURS"}, want: []string{"container=rbox", "HOSTNAME=box", "OURS=from here"}},
		"not set here":     {flags: []string{"UNSET"}, want: []string{"container=rbox", "HOSTNAME=box"}},
		"empty":            {flags: []string{"A=", "B=="}, want: []string{"container=rbox", "HOSTNAME=box", "A=", "B=="}},
		"file":             {files: []string{file}, want: []string{"container=rbox", "HOSTNAME=box", "FILE=1", "INDENTED= two words ", "OURS=from here", "BOTH=file"}},
		"flag over file":   {files: []string{file}, flags: []string{"BOTH=flag", "FILE=", "INDENTED=", "OURS="}, want: []string{"container=rbox", "HOSTNAME=box", "FILE=", "INDENTED=", "OURS=", "BOTH=flag"}},
		"no name":          {flags: []string{"=x"}, wantErr: `invalid environment variable "=x": it has no name`},
		"nothing at all":   {flags: []string{""}, wantErr: `invalid environment variable "": it has no name`},
		"no file":          {files: []string{file + "x"}, wantErr: "--env-file: open " + file + "x: no such file or directory"},
		"last of the same": {flags: []string{"A=1", "A=2"}, want: []string{"container=rbox", "HOSTNAME=box", "A=2"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := &RunCmd{}
			c.Env, c.EnvFile = tc.flags, tc.files
			got, err := c.environment(tc.image, "box")
			if text(err) != tc.wantErr || !slices.Equal(got, tc.want) {
				t.Errorf("got %q, %v; want %q, %s", got, err, tc.want, tc.wantErr)
			}
		})
	}
}

func TestParseEnvErrors(t *testing.T) {
	for in, want := range map[string]string{
		"A=1\n=2\n":                  `f line 2: "" is not a variable's name`,
		"two words=1":                `f line 1: "two words" is not a variable's name`,
		"A =1":                       `f line 1: "A " is not a variable's name`,
		strings.Repeat("x", 1<<20+1): "f: bufio.Scanner: token too long",
	} {
		if _, err := parseEnv("f", bufio.NewScanner(strings.NewReader(in))); text(err) != want {
			t.Errorf("%.20q: %v, want %s", in, err, want)
		}
	}
}

func FuzzParseEnv(f *testing.F) {
	for _, seed := range []string{"A=1\nB\n", "# comment\n\n", "\ufeffA=1\r\n", "=x", " \t A=b c", "A==\x00", "export A=1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		env, err := parseEnv("f", bufio.NewScanner(strings.NewReader(in)))
		if err != nil {
			return
		}
		for _, kv := range env {
			name, _, _ := strings.Cut(kv, "=")
			if name == "" || strings.ContainsAny(name, " \t\n") || strings.ContainsRune(kv, '\n') {
				t.Errorf("%q", kv)
			}
		}
		seen := map[string]bool{}
		for _, kv := range lastOfEach(env) {
			name, _, ok := strings.Cut(kv, "=")
			if !ok || seen[name] {
				t.Errorf("%q is no variable, or one twice", kv)
			}
			seen[name] = true
		}
	})
}

func FuzzParseVolume(f *testing.F) {
	for _, seed := range []string{"/:/data", ".:/x:ro", "/a", "name:/x", "::", "/:/../..", "/:/x:ro,rw,z", "/a/../b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, spec string) {
		m, err := parseVolume(spec)
		if err == nil && (!filepath.IsAbs(m.Target) || filepath.Clean(m.Target) != m.Target || m.Type == "bind" && (m.Target == "/" || !filepath.IsAbs(m.Source))) {
			t.Errorf("%q gives %+v", spec, m)
		}
	})
}

// FuzzParseMount reads --mount, and --tmpfs: what passes has a clean place below
// the container's root, and nothing of the text gets into options of mount(2)
// but what is meant to.
func FuzzParseMount(f *testing.F) {
	for _, seed := range []string{
		"type=bind,source=/,target=/data,readonly", "type=bind,src=.,dst=/x,bind-propagation=rprivate", "type=tmpfs,dst=/t,tmpfs-size=64m,tmpfs-mode=1770",
		"src=name,dst=/data,volume-nocopy", "type=volume,dst=/data/../..", "dst=/", "type=bind,src=\x00,dst=/\x00", ",,=", "type=tmpfs,dst=/t,tmpfs-mode=-1",
		"/t:size=1g,mode=755,exec", "/t:nr_inodes=5,nr_blocks=4k", "/t:size=0", "/..:ro", "/t:mode=7777777777777777777777",
	} {
		f.Add(seed)
	}
	data := regexp.MustCompile(`^((nr_inodes|nr_blocks)=[0-9]+[kKmMgG]?(,|$))*$`)
	f.Fuzz(func(t *testing.T, spec string) {
		for name, parse := range map[string]func(string) (rootfs.Mount, error){"--mount": parseMount, "--tmpfs": parseTmpfs} {
			m, err := parse(spec)
			if err != nil {
				continue
			}
			if !filepath.IsAbs(m.Target) || filepath.Clean(m.Target) != m.Target || m.Target == "/" {
				t.Errorf("%s %q: the target is %q", name, spec, m.Target)
			}
			if m.Type == "bind" && !filepath.IsAbs(m.Source) || m.Type == "volume" && strings.Contains(m.Source, "/") || m.Type == "tmpfs" && m.Source != "" {
				t.Errorf("%s %q: the source is %q", name, spec, m.Source)
			}
			if m.Size < 0 || m.Mode&^0o7777 != 0 || !data.MatchString(m.Data) {
				t.Errorf("%s %q gives %+v", name, spec, m)
			}
		}
	})
}

func TestLabels(t *testing.T) {
	file := filepath.Join(t.TempDir(), "labels")
	if err := os.WriteFile(file, []byte("# these\n\ne=file\na=file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := &RunCmd{createFlags: createFlags{Label: []string{"a=flag", "c", "d=x=y"}, LabelFile: []string{file}}}
	got, err := c.labels(map[string]string{"a": "image", "b": "image"})
	want := map[string]string{"a": "flag", "b": "image", "c": "", "d": "x=y", "e": "file"}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
	c = &RunCmd{createFlags: createFlags{Label: []string{"=x"}}}
	if _, err := c.labels(nil); err == nil {
		t.Error("a label without a name was taken")
	}
}

func TestCheckHosts(t *testing.T) {
	for name, tc := range map[string]struct {
		add, dns []string
		want     string
	}{
		"good":          {add: []string{"a:1.2.3.4", "b=::1", "c:[::1]", "d:::1"}, dns: []string{"1.1.1.1", "::1"}},
		"no name":       {add: []string{":1.2.3.4"}, want: "--add-host :1.2.3.4: want NAME:IP"},
		"no address":    {add: []string{"a"}, want: "--add-host a: want NAME:IP"},
		"no IP":         {add: []string{"a:b"}, want: `--add-host a:b: "b" is not an IP address`},
		"no DNS IP":     {dns: []string{"dns.example"}, want: "--dns dns.example: not an IP address"},
		"a DNS newline": {dns: []string{"1.1.1.1\nnameserver 2.2.2.2"}, want: "--dns 1.1.1.1\nnameserver 2.2.2.2: not an IP address"},
	} {
		if got := text(checkNames(tc.add, tc.dns)); got != tc.want {
			t.Errorf("%s: got %q, want %q", name, got, tc.want)
		}
	}
}

func TestTimeOffsets(t *testing.T) {
	got, err := timeOffsets([]string{"boottime=86400", "monotonic=-5", "boottime=1"})
	if want := map[string]int64{"boottime": 1, "monotonic": -5}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
	for _, spec := range []string{"", "boottime", "boottime=", "boottime=1s", "realtime=5", "=5", "boottime=9223372036854775808"} {
		if _, err := timeOffsets([]string{spec}); err == nil {
			t.Errorf("%q was taken", spec)
		}
	}
}

func TestProcess(t *testing.T) {
	config := image.ContainerConfig{User: "kim", WorkingDir: "work/../dir", Cmd: image.Words{"sh"}}
	kept := ids{kept: &struct{ uid, gid uint32 }{1000, 100}}
	for name, tc := range map[string]struct {
		change  func(c *RunCmd)
		ids     ids
		check   func(p stage.Process) bool
		wantErr string
	}{
		"the image's":       {check: func(p stage.Process) bool { return p.User == "kim" && p.Cwd == "/dir" && p.Login == nil }},
		"keep-id":           {ids: kept, check: func(p stage.Process) bool { return p.User == "1000:100" && p.Login.UID == 1000 && p.Login.GID == 100 }},
		"keep-id and -u":    {ids: kept, change: func(c *RunCmd) { c.User = "0" }, check: func(p stage.Process) bool { return p.User == "0" }},
		"workdir":           {change: func(c *RunCmd) { c.Workdir = "/a/../b/" }, check: func(p stage.Process) bool { return p.Cwd == "/b" }},
		"relative workdir":  {change: func(c *RunCmd) { c.Workdir = "a" }, wantErr: `the working directory "a" is not absolute`},
		"groups":            {change: func(c *RunCmd) { c.GroupAdd = []string{"a", "5"} }, check: func(p stage.Process) bool { return slices.Equal(p.Groups, []string{"a", "5"}) && !p.KeepGroups }},
		"keep-groups":       {change: func(c *RunCmd) { c.GroupAdd = []string{"keep-groups"} }, check: func(p stage.Process) bool { return p.KeepGroups && len(p.Groups) == 0 }},
		"both":              {change: func(c *RunCmd) { c.GroupAdd = []string{"keep-groups", "a"} }, wantErr: "--group-add keep-groups excludes other groups: they can be kept or set, not both"},
		"limit":             {change: func(c *RunCmd) { c.Ulimit = []string{"nofile=5"} }, check: func(p stage.Process) bool { return len(p.Rlimits) == 1 && p.Rlimits[0].Soft == 5 }},
		"no limit":          {change: func(c *RunCmd) { c.Ulimit = []string{"x"} }, wantErr: `ulimit "x": want NAME=SOFT[:HARD]`},
		"init and terminal": {change: func(c *RunCmd) { c.Init, c.TTY = true, true }, check: func(p stage.Process) bool { return p.Init && p.Terminal }},
	} {
		t.Run(name, func(t *testing.T) {
			c := &RunCmd{Words: []string{"img"}}
			if tc.change != nil {
				tc.change(c)
			}
			p, err := c.process(config, tc.ids, "box")
			if text(err) != tc.wantErr || err == nil && !tc.check(p) {
				t.Errorf("got %+v, %v", p, err)
			}
		})
	}
}
