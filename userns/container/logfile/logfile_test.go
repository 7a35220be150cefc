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

// However often files are rotated while they are looked for, they are found in
// the order in which they were written.
func TestFilesInOrder(t *testing.T) {
	path := newLog(t)
	done := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		w := Open(path, 1, 6) // a line a file
		defer w.Close()
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			default:
			}
			if err := w.Write(Stdout, fmt.Appendf(nil, "%d\n", i)); err != nil {
				t.Error(err)
			}
		}
	})
	defer writer.Wait()
	defer close(done)
	for range 2000 {
		l := &Lines{path: path}
		files, err := l.newer(nil)
		if err != nil {
			t.Fatal(err)
		}
		before := -1
		for _, f := range files {
			text, err := io.ReadAll(f)
			if err != nil {
				t.Fatal(err)
			}
			n := before + 1
			if _, _, _, line := split(text); len(line) > 0 { // the newest may be empty yet
				fmt.Sscan(string(line), &n)
			}
			if n <= before {
				t.Fatalf("line %d comes after line %d", n, before)
			}
			before = n
		}
		closeAll(files)
	}
}

// logOf writes a log by hand: a line is the seconds of its time, stream, tag and text.
func logOf(t testing.TB, files ...string) string {
	t.Helper()
	path := newLog(t)
	for i, lines := range files {
		var b bytes.Buffer
		for _, line := range strings.Split(lines, "|") {
			second, rest, _ := strings.Cut(line, " ")
			fmt.Fprintf(&b, "2026-11-22T17:00:%s.000000000Z std%s\n", second, rest)
		}
		if err := os.WriteFile(numbered(path, len(files)-1-i), b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func at(second int) time.Time { return time.Date(2026, 11, 22, 17, 0, second, 0, time.UTC) }

func TestWhichEntries(t *testing.T) {
	files := []string{"01 out F a|02 out P b", "03 out P c|04 err F x|05 out F d", "06 out F e|07 err P y"}
	for name, tc := range map[string]struct {
		o        Options
		out, err string
	}{
		"all":                   {Options{}, "a\nbcd\ne\n", "x\ny"},
		"since":                 {Options{Since: at(4)}, "d\ne\n", "x\ny"},
		"since, more precisely": {Options{Since: at(4).Add(1)}, "d\ne\n", "y"},
		"until":                 {Options{Until: at(5)}, "a\nbcd\n", "x\n"},
		"nothing since":         {Options{Since: at(30)}, "", ""},
		"since and until":       {Options{Since: at(4), Until: at(4)}, "", "x\n"},
		"tail 0":                {Options{Last: true}, "", ""},
		"tail 1":                {Options{Last: true, Tail: 1}, "", "y"},
		"tail 2":                {Options{Last: true, Tail: 2}, "e\n", "y"},
		"tail 3":                {Options{Last: true, Tail: 3}, "d\ne\n", "y"},
		"tail 4":                {Options{Last: true, Tail: 4}, "bcd\ne\n", "x\ny"},
		"tail 5":                {Options{Last: true, Tail: 5}, "a\nbcd\ne\n", "x\ny"},
		"tail of more":          {Options{Last: true, Tail: 99}, "a\nbcd\ne\n", "x\ny"},
		"tail until":            {Options{Last: true, Tail: 1, Until: at(6)}, "e\n", ""},
		"tail since":            {Options{Last: true, Tail: 4, Since: at(5)}, "d\ne\n", "y"},
	} {
		t.Run(name, func(t *testing.T) {
			got := readAll(t, logOf(t, files...), tc.o)
			if got[Stdout].String() != tc.out || got[Stderr].String() != tc.err {
				t.Errorf("got %q and %q, want %q and %q", got[Stdout].String(), got[Stderr].String(), tc.out, tc.err)
			}
		})
	}
}

// TestTailIsTheEndOfAll compares tails of many lengths with the whole, with
// lines on both sides of what is read at once.
func TestTailIsTheEndOfAll(t *testing.T) {
	path, rnd := newLog(t), rand.New(rand.NewSource(3))
	w := Open(path, 300<<10, 100)
	for i := range 3000 {
		long := bytes.Repeat([]byte{'x'}, rnd.Intn(900))
		if i%500 == 0 {
			long = bytes.Repeat([]byte{'y'}, backLen*2)
		}
		w.Write(Stdout, append(long, '\n'))
	}
	w.Close()
	whole := readAll(t, path, Options{})
	lines := bytes.SplitAfter(whole[Stdout].Bytes(), []byte("\n"))
	lines = lines[:len(lines)-1]
	for n := 0; n <= len(lines); n += 1 + n/7 {
		want := bytes.Join(lines[len(lines)-n:], nil)
		if got := readAll(t, path, Options{Last: true, Tail: n}); !bytes.Equal(got[Stdout].Bytes(), want) {
			t.Fatalf("tail %d has %d bytes, want %d", n, got[Stdout].Len(), len(want))
		}
	}
}

func TestVeryLongLineComesInPieces(t *testing.T) {
	path := newLog(t)
	long := strings.Repeat("0123456789", pieceLen/3)
	write(t, path, "short\n", long+"\n", "last\n")
	out := readAll(t, path, Options{})
	if out[Stdout].String() != "short\n"+long+"\nlast\n" {
		t.Errorf("%d bytes came back", out[Stdout].Len())
	}
}

func TestOtherRuntimesLogs(t *testing.T) {
	path := newLog(t)
	text := "2026-11-22T18:00:01.5+01:00 stdout F conmon\n" +
		"2026-11-22T17:00:02Z stderr P:x tagged\n" +
		"2026-11-22T17:00:03.000000000Z stdout F\n" +
		"no log at all\n" +
		"2026-99-22T17:00:03.000000000X stdout F no time\n" +
		"2026-11-22T17:00:03Z stdin F x\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := NewReader(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var got []string
	for {
		e, err := r.Next()
		if err != nil {
			break
		}
		got = append(got, fmt.Sprintf("%s %d %v %s", e.Time.UTC().Format("05.0"), e.Stream, e.Partial, e.Text))
	}
	want := []string{"01.5 1 false conmon", "02.0 2 true tagged", "03.0 1 false ", "03.0 1 false no log at all",
		"03.0 1 false 2026-99-22T17:00:03.000000000X stdout F no time", "03.0 1 false 2026-11-22T17:00:03Z stdin F x"}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestWhatWasCutOffIsRemoved(t *testing.T) {
	for name, tc := range map[string]struct{ found, want string }{
		"in an entry":  {"2026-11-22T17:00:03Z stdout F whole\n2026-11-22T17:0", "whole\nnew\n"},
		"in the first": {"2026-11-22T17:0", "new\n"},
		"not at all":   {"2026-11-22T17:00:03Z stdout F whole\n", "whole\nnew\n"},
	} {
		path := newLog(t)
		if err := os.WriteFile(path, []byte(tc.found), 0o600); err != nil {
			t.Fatal(err)
		}
		before := readAll(t, path, Options{})
		write(t, path, "new\n")
		after := readAll(t, path, Options{})
		if got := after[Stdout].String(); got != tc.want || !strings.HasPrefix(got, before[Stdout].String()) {
			t.Errorf("%s: got %q, want %q", name, got, tc.want)
		}
	}
}

func TestEmptiedByHandWhileFollowed(t *testing.T) {
	path, done := newLog(t), make(chan struct{})
	w := Open(path, 0, 0)
	w.Write(Stdout, []byte("before\n"))
	r, err := NewReader(path, Options{Done: done})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if e, err := r.Next(); err != nil || string(e.Text) != "before" {
		t.Fatalf("%q, %v", e.Text, err)
	}
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	w.Write(Stdout, []byte("then\n"))
	close(done)
	if e, err := r.Next(); err != nil || string(e.Text) != "then" {
		t.Errorf("%q, %v", e.Text, err)
	}
}

func TestUntilEndsFollowing(t *testing.T) {
	path := newLog(t)
	write(t, path, "x\n")
	r, err := NewReader(path, Options{Done: make(chan struct{}), Until: time.Now().Add(50 * time.Millisecond)})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	r.Next()
	if e, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("%+v, %v", e, err)
	}
}

// FuzzReader holds that any file can be read, in any way.
func FuzzReader(f *testing.F) {
	f.Add([]byte("2026-11-22T17:00:03.000000000Z stdout F a\n"), []byte("\n\n2026 stdout P"), 1)
	f.Add([]byte("2026-11-22T17:00:03.123456789Z stderr P a\nx"), []byte(" \n stdout F \n"), 0)
	f.Fuzz(func(t *testing.T, old, now []byte, n int) {
		path := newLog(t)
		os.WriteFile(numbered(path, 1), old, 0o600)
		os.WriteFile(path, now, 0o600)
		all := readAll(t, path, Options{})
		tail := readAll(t, path, Options{Last: true, Tail: n})
		if !bytes.HasSuffix(all[Stdout].Bytes(), tail[Stdout].Bytes()) || !bytes.HasSuffix(all[Stderr].Bytes(), tail[Stderr].Bytes()) {
			t.Errorf("the last %d lines are not the end", n)
		}
		readAll(t, path, Options{Since: at(0), Until: at(10), Last: true, Tail: n})
	})
}
