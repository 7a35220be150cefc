package logfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// output is what a log gives back of each stream.
type output [Stderr + 1]bytes.Buffer

func (o *output) add(e Entry) {
	o[e.Stream].Write(e.Text)
	if !e.Partial {
		o[e.Stream].WriteByte('\n')
	}
}

// readAll reads a log to its end.
func readAll(t testing.TB, path string, o Options) (out output) {
	t.Helper()
	r, err := NewReader(path, o)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for {
		e, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		out.add(e)
	}
}

// write writes pieces of stdout as one container.
func write(t testing.TB, path string, pieces ...string) {
	t.Helper()
	w := Open(path, 0, 0)
	for _, p := range pieces {
		if err := w.Write(Stdout, []byte(p)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func newLog(t testing.TB) string { return filepath.Join(t.TempDir(), "log") }

func TestFormat(t *testing.T) {
	path := newLog(t)
	w := Open(path, 0, 0)
	before := time.Now()
	w.Write(Stdout, []byte("one\ntwo\npie"))
	w.Write(Stderr, []byte("oops\n"))
	w.Write(Stdout, []byte("ce\n"))
	w.Close()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, line := range strings.Split(strings.TrimSuffix(string(b), "\n"), "\n") {
		stamp, rest, _ := strings.Cut(line, " ")
		at, err := time.Parse(time.RFC3339Nano, stamp)
		if err != nil || len(stamp) != 30 || at.Before(before) || time.Since(at) < 0 {
			t.Errorf("stamp %q: %v", stamp, err)
		}
		got = append(got, rest)
	}
	want := "stdout F one|stdout F two|stdout P pie|stderr F oops|stdout F ce"
	if strings.Join(got, "|") != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if st, _ := os.Stat(path); st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", st.Mode())
	}
}

func TestSilentContainerMakesNoFile(t *testing.T) {
	path := newLog(t)
	write(t, path, "")
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("lstat: %v", err)
	}
	if out := readAll(t, path, Options{}); out[Stdout].Len() > 0 {
		t.Errorf("read %q", out[Stdout].String())
	}
}

// noise is output as programs make it and as they do not.
func noise(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	switch r.Intn(4) {
	case 0:
		r.Read(b)
	case 1:
		for i := range b {
			b[i] = "\n a\x00"[r.Intn(4)]
		}
	default:
		for i := range b {
			b[i] = byte(' ' + r.Intn(90))
			if r.Intn(80) == 0 {
				b[i] = '\n'
			}
		}
	}
	return b
}

func TestRotationLosesNothing(t *testing.T) {
	for name, tc := range map[string]struct {
		size    int64
		n, most int
	}{
		"no limit":     {0, 400, 20000},
		"small":        {1000, 100, 3000},
		"tiny":         {1, 10, 200},
		"large pieces": {1 << 20, 10, 3 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			path, rnd := newLog(t), rand.New(rand.NewSource(1))
			w := Open(path, tc.size, 1<<20)
			var want [Stderr + 1]bytes.Buffer
			for range tc.n {
				s, b := Stdout+Stream(rnd.Intn(2)), noise(rnd, 1+rnd.Intn(tc.most))
				want[s].Write(b)
				if err := w.Write(s, b); err != nil {
					t.Fatal(err)
				}
				if rnd.Intn(10) == 0 { // as after a restart
					w.Close()
				}
			}
			w.Close()
			got := readAll(t, path, Options{})
			for s := Stdout; s <= Stderr; s++ {
				if !bytes.Equal(got[s].Bytes(), want[s].Bytes()) {
					t.Errorf("stream %d: %d bytes came back of %d", s, got[s].Len(), want[s].Len())
				}
			}
			sizesUnder(t, path, tc.size)
		})
	}
}

// sizesUnder checks that no file of more than one entry is larger than limit.
func sizesUnder(t *testing.T, path string, limit int64) {
	files, _ := filepath.Glob(path + "*")
	for _, f := range files {
		b, _ := os.ReadFile(f)
		if limit > 0 && int64(len(b)) > limit && bytes.Count(b, []byte("\n")) > 1 {
			t.Errorf("%s has %d bytes", f, len(b))
		}
		if len(b) == 0 || b[len(b)-1] != '\n' {
			t.Errorf("%s is empty or cut", f)
		}
	}
}

func TestRotationKeepsSoManyFiles(t *testing.T) {
	for maxFile, want := range map[int]string{0: "log", 1: "log", 2: "log log.1", 3: "log log.1 log.2"} {
		path := newLog(t)
		w := Open(path, 100, maxFile)
		for i := range 20 {
			fmt.Fprintf(stdoutOf{w}, "line %d\n", i)
		}
		w.Close()
		files, _ := filepath.Glob(path + "*")
		for i, f := range files {
			files[i] = filepath.Base(f)
		}
		if got := strings.Join(files, " "); got != want {
			t.Errorf("of %d files there are %s", maxFile, got)
		}
		out := readAll(t, path, Options{})
		if got := out[Stdout].String(); !strings.HasSuffix(got, "line 18\nline 19\n") {
			t.Errorf("of %d files: %q", maxFile, got)
		}
	}
}

type stdoutOf struct{ *Writer }

func (w stdoutOf) Write(b []byte) (int, error) { return len(b), w.Writer.Write(Stdout, b) }

func TestFollowThroughRotations(t *testing.T) {
	path := newLog(t)
	done := make(chan struct{})
	r, err := NewReader(path, Options{Done: done}) // there is no file yet
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var want [Stderr + 1]bytes.Buffer
	w := Open(path, 20000, 1<<20)
	var writers sync.WaitGroup
	for s := Stdout; s <= Stderr; s++ {
		writers.Go(func() {
			rnd := rand.New(rand.NewSource(int64(s)))
			for range 3000 {
				b := noise(rnd, 1+rnd.Intn(500))
				want[s].Write(b)
				if err := w.Write(s, b); err != nil {
					t.Error(err)
				}
			}
		})
	}
	go func() {
		writers.Wait()
		close(done)
	}()
	var got output
	for {
		e, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got.add(e)
	}
	for s := Stdout; s <= Stderr; s++ {
		if !bytes.Equal(got[s].Bytes(), want[s].Bytes()) {
			t.Errorf("stream %d: %d bytes came back of %d", s, got[s].Len(), want[s].Len())
		}
	}
	w.Close()
}
