package idmap

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os/exec"
	"reflect"
	"strings"
	"testing"
)

const (
	initialMap = "         0          0 4294967295\n"
	rootCaps   = 1<<6 | 1<<7 | 1<<31
)

// fakeHost is a host with these files, an installed newuidmap, and no
// getsubids.
func fakeHost(uid uint32, files map[string]string) Host {
	for _, name := range []string{"/proc/self/uid_map", "/proc/self/gid_map"} {
		if _, ok := files[name]; !ok {
			files[name] = initialMap
		}
	}
	return Host{
		UID: uid, GID: uid, PageSize: 4096,
		User: func() string { return "kim" },
		ReadFile: func(name string) ([]byte, error) {
			s, ok := files[name]
			if !ok {
				return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
			}
			return []byte(s), nil
		},
		Helper: func(name string) (string, error) { return "/usr/bin/" + name, nil },
		SubIDs: func(...string) ([]byte, error) { return nil, exec.ErrNotFound },
	}
}

func subFiles(uids, gids string) map[string]string {
	return map[string]string{"/etc/subuid": uids, "/etc/subgid": gids}
}

func TestPlan(t *testing.T) {
	full := []Mapping{{0, 1000, 1}, {1, 100000, 65536}}
	single := []Mapping{{0, 1000, 1}}
	for name, tc := range map[string]struct {
		host       Host
		change     func(*Host)
		uids, gids []Mapping
		skipped    []string
	}{
		"files": {
			host: fakeHost(1000, subFiles("kim:100000:65536\n", "1000:100000:65536\n")),
			uids: full, gids: full,
		},
		"uids and gids differ": {
			host: fakeHost(1000, subFiles("kim:100000:65536\n", "kim:5:2\nkim:10:3\n")),
			uids: full, gids: []Mapping{{0, 1000, 1}, {1, 5, 2}, {3, 10, 3}},
		},
		"one bad line": {
			host: fakeHost(1000, subFiles("kim:lots:1\nkim:100000:65536\n", "kim:100000:65536\n")),
			uids: full, gids: full, skipped: []string{"/etc/subuid line 1: first id"},
		},
		"no line": {
			host: fakeHost(1000, subFiles("lee:100000:65536\n", "kim:100000:65536\n")),
			uids: single, gids: single, skipped: []string{"/etc/subuid has no line for kim"},
		},
		"no subgid file": {
			host: fakeHost(1000, map[string]string{"/etc/subuid": "kim:100000:65536\n"}),
			uids: single, gids: single, skipped: []string{"/etc/subgid has no line for kim"},
		},
		"only a bad line": {
			host: fakeHost(1000, subFiles("kim:1:0\n", "kim:100000:65536\n")),
			uids: single, gids: single, skipped: []string{"/etc/subuid line 1: count is zero", "/etc/subuid has no line"},
		},
		"nothing but the own id": {
			host: fakeHost(1000, subFiles("kim:1000:1\n", "kim:100000:65536\n")),
			uids: single, gids: single, skipped: []string{"/etc/subuid has no line for kim"},
		},
		"a directory, as nsswitch says": {
			host: fakeHost(1000, map[string]string{"/etc/subuid": "kim:7:7\n", "/etc/subgid": "kim:7:7\n", "/etc/nsswitch.conf": "subid: sss\n"}),
			change: func(h *Host) {
				h.SubIDs = func(args ...string) ([]byte, error) { return []byte("0: kim 100000 65536\n"), nil }
			},
			uids: full, gids: full,
		},
		"a directory without us": {
			host:   fakeHost(1000, map[string]string{"/etc/nsswitch.conf": "subid: sss\n"}),
			change: func(h *Host) { h.SubIDs = func(...string) ([]byte, error) { return nil, errors.New("exit status 1") } },
			uids:   single, gids: single, skipped: []string{"getsubids kim knows no ids for kim"},
		},
		"a directory but no getsubids": {
			host: fakeHost(1000, map[string]string{"/etc/subuid": "kim:100000:65536\n", "/etc/subgid": "kim:100000:65536\n", "/etc/nsswitch.conf": "subid: sss\n"}),
			uids: full, gids: full,
		},
		"files silent, getsubids not": {
			host: fakeHost(1000, subFiles("", "")),
			change: func(h *Host) {
				h.SubIDs = func(args ...string) ([]byte, error) {
					if strings.Join(args, " ") == "-g kim" {
						return []byte("0: kim 200000 5\n"), nil
					}
					return []byte("0: kim 100000 65536\n"), nil
				}
			},
			uids: full, gids: []Mapping{{0, 1000, 1}, {1, 200000, 5}},
		},
		"no helper": {
			host: fakeHost(1000, subFiles("kim:100000:65536\n", "kim:100000:65536\n")),
			change: func(h *Host) {
				h.Helper = func(name string) (string, error) { return "", errors.New(name + " is gone") }
			},
			uids: single, gids: single, skipped: []string{"newuidmap is gone"},
		},
		"nobody knows the name": {
			host:   fakeHost(1000, subFiles("", "")),
			change: func(h *Host) { h.User = func() string { return "" } },
			uids:   single, gids: single, skipped: []string{"/etc/subuid has no line for 1000"},
		},
		"in a container, ranges beyond its own": {
			host: fakeHost(1000, map[string]string{
				"/etc/subuid": "kim:100000:65536\n", "/etc/subgid": "kim:100000:65536\n",
				"/proc/self/uid_map": "0 1000 1\n1 100000 65536\n",
			}),
			uids: single, gids: single, skipped: []string{"/etc/subuid: ids 100000 to 165535 do not exist in this user namespace"},
		},
		"root of the host": {
			host:   fakeHost(0, subFiles("", "")),
			change: func(h *Host) { h.Caps = rootCaps },
			uids:   []Mapping{{0, 0, 4294967295}}, gids: []Mapping{{0, 0, 4294967295}},
		},
		"root of a container": {
			host: fakeHost(0, map[string]string{
				"/proc/self/uid_map": "0 1000 1\n1 100000 65536\n", "/proc/self/gid_map": "0 1000 1\n1 100000 10\n",
			}),
			change: func(h *Host) { h.Caps = rootCaps },
			uids:   []Mapping{{0, 0, 1}, {1, 1, 65536}}, gids: []Mapping{{0, 0, 1}, {1, 1, 10}},
		},
		"root of one id": {
			host:   fakeHost(0, map[string]string{"/proc/self/uid_map": "0 1000 1\n", "/proc/self/gid_map": "0 1000 1\n"}),
			change: func(h *Host) { h.Caps = rootCaps },
			uids:   []Mapping{{0, 0, 1}}, gids: []Mapping{{0, 0, 1}},
			skipped: []string{"has one id"},
		},
		"root without capabilities": {
			host:   fakeHost(0, subFiles("", "")),
			change: func(h *Host) { h.Caps = 1 << 6 },
			uids:   []Mapping{{0, 0, 1}}, gids: []Mapping{{0, 0, 1}},
			skipped: []string{"root here lacks CAP_SETUID, CAP_SETFCAP"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.change != nil {
				tc.change(&tc.host)
			}
			m, err := Plan(tc.host)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(m.UIDs, tc.uids) || !reflect.DeepEqual(m.GIDs, tc.gids) {
				t.Errorf("uids %v, gids %v; want %v and %v", m.UIDs, m.GIDs, tc.uids, tc.gids)
			}
			if m.Single != (len(tc.uids) == 1 && tc.uids[0].Count == 1) {
				t.Errorf("Single is %v", m.Single)
			}
			checkSkipped(t, m.Skipped, tc.skipped)
		})
	}
}

func checkSkipped(t *testing.T, got []error, want []string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("skipped %v, want %q", got, want)
	}
	for i := range want {
		checkError(t, got[i], want[i])
	}
}

func TestPlanUnmapped(t *testing.T) {
	h := fakeHost(65534, map[string]string{"/proc/self/uid_map": "0 1000 1\n"})
	_, err := Plan(h)
	var unmapped *UnmappedError
	if !errors.As(err, &unmapped) || unmapped.Kind != "uid" || unmapped.ID != 65534 {
		t.Errorf("got %v, want that uid 65534 is unmapped", err)
	}
}

// The keeper's record carries Maps as JSON.
func TestMapsSurviveJSON(t *testing.T) {
	m := Maps{UIDs: []Mapping{{0, 1000, 1}}, GIDs: []Mapping{{0, 4294967294, 1}}, Single: true, Skipped: []error{errors.New("x")}}
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var got Maps
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	m.Skipped = nil
	if !reflect.DeepEqual(got, m) {
		t.Errorf("got %+v, want %+v", got, m)
	}
}

func TestHints(t *testing.T) {
	for want, err := range map[string]interface{ Hint() string }{
		"usermod --add-subuids 100000-165535 --add-subgids 100000-165535 kim": &NoSubIDsError{"kim", "/etc/subuid", 100000},
		"nsswitch.conf":                       &NoSubIDsError{"kim", "getsubids kim", 100000},
		"--cap-add SETUID --cap-add SETFCAP":  &RootCapsError{[]string{"CAP_SETUID", "CAP_SETFCAP"}},
		"write line 3 of /etc/subuid as NAME": &LineError{File: "/etc/subuid", Line: 3},
		"map more ids in the outer container": &AbsentError{Range{1, 2}},
		"map uid 1000 in the outer container": &UnmappedError{"uid", 1000, "/proc/self/uid_map"},
	} {
		if got := err.Hint(); !strings.Contains(got, want) {
			t.Errorf("%T: hint %q lacks %q", err, got, want)
		}
	}
}
