package stage

import (
	"errors"
	"io/fs"
	"reflect"
	"strings"
	"testing"
)

const (
	passwd = `root:x:0:0:root:/root:/bin/sh
# a comment
kim:x:1000:1000:Kim:/home/kim:/bin/sh
broken
nogid:x:5:
word:x:five:5::/:
100:x:2000:2001:digits:/home/100:
first:x:3000:3000::/home/first:
second:x:3000:3001::/home/second:
homeless:x:4000:4000
none:x:4294967295:0::/:
last:x:5000:5000::/home/last:/bin/sh`
	group = `root:x:0:root
wheel:x:10:root,kim
audio:x:63:kim
video:x:44:notkim,kimono
short:x:77
bad:x:many:kim
kim:x:1000:
twice:x:90:kim,kim
200:x:300:`
)

// image reads the files of an image that has these texts; "-" is no file.
func image(passwd, group string) func(string) ([]byte, error) {
	return func(name string) ([]byte, error) {
		text := map[string]string{"/etc/passwd": passwd, "/etc/group": group}[name]
		if text == "-" {
			return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
		}
		return []byte(text), nil
	}
}

func TestLookup(t *testing.T) {
	for name, tc := range map[string]struct {
		spec    string
		extra   []string
		passwd  string
		group   string
		want    Account
		wantErr string
	}{
		"none is root":            {spec: "", want: Account{0, 0, []uint32{0, 10}, "/root"}},
		"name":                    {spec: "kim", want: Account{1000, 1000, []uint32{10, 63, 90}, "/home/kim"}},
		"number with an entry":    {spec: "1000", want: Account{1000, 1000, []uint32{10, 63, 90}, "/home/kim"}},
		"number without":          {spec: "1234", want: Account{UID: 1234, Home: "/"}},
		"two of one number":       {spec: "3000", want: Account{3000, 3000, nil, "/home/first"}},
		"name made of digits":     {spec: "100", want: Account{2000, 2001, nil, "/home/100"}},
		"last line, no newline":   {spec: "last", want: Account{5000, 5000, nil, "/home/last"}},
		"no home":                 {spec: "homeless", want: Account{4000, 4000, nil, "/"}},
		"user and group":          {spec: "kim:audio", want: Account{1000, 63, nil, "/home/kim"}},
		"user and gid":            {spec: "kim:1234", want: Account{1000, 1234, nil, "/home/kim"}},
		"uid and group":           {spec: "7:wheel", want: Account{7, 10, nil, "/"}},
		"group named by digits":   {spec: "7:200", want: Account{7, 300, nil, "/"}},
		"group with three fields": {spec: "7:short", want: Account{7, 77, nil, "/"}},
		"empty group":             {spec: "kim:", want: Account{1000, 1000, []uint32{10, 63, 90}, "/home/kim"}},
		"group alone":             {spec: ":audio", want: Account{0, 63, nil, "/root"}},
		"more groups":             {spec: "7", extra: []string{"audio", "99"}, want: Account{7, 0, []uint32{63, 99}, "/"}},
		"no files":                {spec: "7:8", passwd: "-", group: "-", want: Account{7, 8, nil, "/"}},
		"no files, root":          {spec: "", passwd: "-", group: "-", want: Account{0, 0, nil, "/"}},

		"unknown user":        {spec: "lee", wantErr: "unable to find user lee: no matching entries in /etc/passwd of the image"},
		"unknown, no files":   {spec: "kim", passwd: "-", wantErr: "unable to find user kim: no matching entries in /etc/passwd of the image"},
		"unknown group":       {spec: "kim:lee", wantErr: "unable to find group lee: no matching entries in /etc/group of the image"},
		"unknown more group":  {spec: "kim", extra: []string{"lee"}, wantErr: "unable to find group lee: no matching entries in /etc/group of the image"},
		"id of a bad line":    {spec: "word", wantErr: "unable to find user word: no matching entries in /etc/passwd of the image"},
		"gid missing":         {spec: "nogid", wantErr: "unable to find user nogid: no matching entries in /etc/passwd of the image"},
		"bad gid":             {spec: "kim:bad", wantErr: "unable to find group bad: no matching entries in /etc/group of the image"},
		"a part of a member":  {spec: "kimono", wantErr: "unable to find user kimono: no matching entries in /etc/passwd of the image"},
		"no id at all":        {spec: "none", wantErr: "unable to find user none: no matching entries in /etc/passwd of the image"},
		"the id that is none": {spec: "4294967295", wantErr: "unable to find user 4294967295: no matching entries in /etc/passwd of the image"},
		"beyond all ids":      {spec: "4294967296", wantErr: "unable to find user 4294967296: no matching entries in /etc/passwd of the image"},
		"negative":            {spec: "-1", wantErr: "unable to find user -1: no matching entries in /etc/passwd of the image"},
		"negative group":      {spec: "7:-1", wantErr: "unable to find group -1: no matching entries in /etc/group of the image"},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.passwd == "" {
				tc.passwd = passwd
			}
			if tc.group == "" {
				tc.group = group
			}
			got, err := Lookup(tc.spec, tc.extra, image(tc.passwd, tc.group))
			if tc.wantErr != "" {
				var unknown *NoUserError
				if !errors.As(err, &unknown) || err.Error() != tc.wantErr || unknown.Hint() == "" {
					t.Errorf("got %+v, %v; want %s", got, err, tc.wantErr)
				}
				return
			}
			if err != nil || !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got %+v, %v; want %+v", got, err, tc.want)
			}
		})
	}
}

// A file that is there and cannot be read is no missing file.
func TestLookupUnreadable(t *testing.T) {
	for _, file := range []string{"/etc/passwd", "/etc/group"} {
		_, err := Lookup("7", nil, func(name string) ([]byte, error) {
			if name == file {
				return nil, fs.ErrPermission
			}
			return nil, nil
		})
		if !errors.Is(err, fs.ErrPermission) {
			t.Errorf("%s: %v", file, err)
		}
		a, err := Lookup("7:8", []string{"9"}, func(name string) ([]byte, error) { return nil, fs.ErrPermission })
		if want := (Account{UID: 7, GID: 8, Groups: []uint32{9}, Home: "/"}); err != nil || !reflect.DeepEqual(a, want) {
			t.Errorf("numbers alone: %+v, %v", a, err)
		}
	}
}

func TestHasID(t *testing.T) {
	for name, tc := range map[string]struct {
		text string
		id   uint32
		want bool
	}{
		"passwd":        {passwd, 1000, true},
		"group":         {group, 63, true},
		"another":       {passwd, 1001, false},
		"another field": {"kim:7:8:9::/:\n", 7, false},
		"no number":     {"kim:x:y:7::/:\n", 7, false},
		"a cut line":    {"kim:x:7\n", 7, false},
		"nothing":       {"", 0, false},
	} {
		if got := HasID(tc.text, tc.id); got != tc.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func TestLogin(t *testing.T) {
	l := Login{Name: "kim", Home: "/home/kim", UID: 1000, GID: 100}
	a, err := Lookup("kim", nil, image(l.PasswdLine(), l.GroupLine()))
	if err != nil || a.UID != 1000 || a.GID != 100 || a.Home != "/home/kim" {
		t.Errorf("its own line reads as %+v, %v", a, err)
	}
	if l.Number("/etc/passwd") != 1000 || l.Number("/etc/group") != 100 {
		t.Errorf("numbers %d, %d", l.Number("/etc/passwd"), l.Number("/etc/group"))
	}
}

// Whatever the image's files hold, a lookup ends with an account or an error,
// and never makes somebody root who is not in its file.
func FuzzLookup(f *testing.F) {
	for _, spec := range []string{"", "kim", "1000", "kim:audio", "100", ":", "a:b:c", "-1", "4294967295"} {
		f.Add(spec, passwd, group)
	}
	f.Add("x", "x:x:0", "x::")
	f.Add("x", ":::\n::::::::", ",,,")
	f.Fuzz(func(t *testing.T, spec, passwd, group string) {
		a, err := Lookup(spec, nil, image(passwd, group))
		if err != nil {
			if err.Error() == "" || !reflect.DeepEqual(a, Account{}) {
				t.Fatalf("%+v, %v", a, err)
			}
			return
		}
		if a.Home == "" || a.UID == 1<<32-1 || a.GID == 1<<32-1 {
			t.Fatalf("%+v", a)
		}
		name, _, _ := strings.Cut(spec, ":")
		if id, numeric := number(name); a.UID == 0 && name != "" && !(numeric && id == 0) && !strings.Contains(passwd, name) {
			t.Fatalf("%q became root", spec)
		}
		HasID(passwd, a.UID)
	})
}
