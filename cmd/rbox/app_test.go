package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestDataRoot(t *testing.T) {
	cwd := t.TempDir()
	t.Chdir(cwd)
	for name, tc := range map[string]struct{ root, xdg, home, want string }{
		"RBOX_ROOT":          {"/r", "/x", "/h", "/r"},
		"relative RBOX_ROOT": {"r", "/x", "/h", cwd + "/r"},
		"XDG_DATA_HOME":      {"", "/x", "/h", "/x/rbox"},
		"relative XDG":       {"", "x", "/h", "/h/.local/share/rbox"},
		"home":               {"", "", "/h", "/h/.local/share/rbox"},
		"nothing":            {"", "", "", "/nonexistent/.local/share/rbox"},
	} {
		t.Setenv("RBOX_ROOT", tc.root)
		t.Setenv("XDG_DATA_HOME", tc.xdg)
		t.Setenv("HOME", tc.home)
		if got := dataRoot(); got != tc.want {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
	}
}

func TestRuntimeDir(t *testing.T) {
	host, _ := os.Hostname()
	for name, tc := range map[string]struct {
		runtime, xdg string // names below the test's directory
		mode         fs.FileMode
		want         string
		wantErr      bool
	}{
		"RBOX_RUNTIME":               {runtime: "run", xdg: "xdg", mode: 0o700, want: "run"},
		"RBOX_RUNTIME, missing":      {runtime: "new/run", want: "new/run"},
		"RBOX_RUNTIME, not ours":     {runtime: "run", mode: 0o777, wantErr: true},
		"XDG_RUNTIME_DIR":            {xdg: "xdg", mode: 0o700, want: "xdg/rbox"},
		"XDG_RUNTIME_DIR, not ours":  {xdg: "xdg", mode: 0o770, want: "root/run/" + host},
		"XDG_RUNTIME_DIR is missing": {xdg: "missing", want: "root/run/" + host},
		"none":                       {want: "root/run/" + host},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			below := func(name string) string {
				if name == "" {
					return ""
				}
				return filepath.Join(dir, name)
			}
			for _, sub := range []string{"run", "xdg"} {
				if err := errors.Join(os.Mkdir(below(sub), 0o700), os.Chmod(below(sub), max(tc.mode, 0o700))); err != nil {
					t.Fatal(err)
				}
			}
			t.Setenv("RBOX_RUNTIME", below(tc.runtime))
			t.Setenv("XDG_RUNTIME_DIR", below(tc.xdg))
			got, err := (&App{Root: below("root")}).runtimeDir()
			if tc.wantErr != (err != nil) || err == nil && got != below(tc.want) {
				t.Fatalf("got %s, %v; want %s", got, err, tc.want)
			}
			if err != nil && !strings.Contains(err.Error(), below(tc.runtime)) {
				t.Errorf("%v does not name the directory", err)
			}
			if st, err := os.Stat(got); err == nil && st.Mode().Perm() != 0o700 {
				t.Errorf("mode %v", st.Mode())
			}
		})
	}
}

func TestRootError(t *testing.T) {
	err := &RootError{"/x", &fs.PathError{Op: "mkdir", Path: "/x/y", Err: fs.ErrPermission}}
	if text(err) != "cannot use /x: permission denied" || !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Hint(), "RBOX_ROOT") {
		t.Errorf("%v, hint %s", err, err.Hint())
	}
	app := &App{Root: "/proc/nothing"}
	if _, err := app.Home(); !errors.As(err, new(*RootError)) {
		t.Errorf("a home that cannot be made: %v", err)
	}
}

func TestKeeperIdle(t *testing.T) {
	for in, want := range map[string]time.Duration{"": 5 * time.Minute, "1s": time.Second, "x": 5 * time.Minute, "-1s": 5 * time.Minute, "0": 5 * time.Minute} {
		t.Setenv("RBOX_KEEPER_IDLE", in)
		if got := keeperIdle(); got != want {
			t.Errorf("%q: %v, want %v", in, got, want)
		}
	}
}

func TestNotice(t *testing.T) {
	var b strings.Builder
	app := &App{Stderr: &b}
	app.Notice("one")
	app.Quiet = true
	app.Notice("two")
	if b.String() != "rbox: one\n" {
		t.Errorf("%q", b.String())
	}
}
