package logfile

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// benchSize is how much is in one file of a benchmark: it stays in memory.
const benchSize = 256 << 20

// BenchmarkWriter writes 64 KiB at a time, in lines of so many bytes.
func BenchmarkWriter(b *testing.B) {
	for _, length := range []int{10, 80, 1000, 16 << 10, 64 << 10} {
		b.Run(strconv.Itoa(length), func(b *testing.B) {
			piece := bytes.Repeat(append(bytes.Repeat([]byte{'x'}, length-1), '\n'), 64<<10/length)
			w := Open(filepath.Join(b.TempDir(), "log"), benchSize, 1)
			defer w.Close()
			b.SetBytes(int64(len(piece)))
			b.ReportAllocs()
			for b.Loop() {
				if err := w.Write(Stdout, piece); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkCopy is what there is to compare with: the same bytes, written as they are.
func BenchmarkCopy(b *testing.B) {
	piece := bytes.Repeat([]byte{'x'}, 64<<10)
	f, err := os.OpenFile(filepath.Join(b.TempDir(), "copy"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	b.SetBytes(int64(len(piece)))
	for n := 0; b.Loop(); n += len(piece) {
		if n > benchSize {
			n = 0
			f.Truncate(0)
		}
		f.Write(piece)
	}
}

// BenchmarkSmallWrites is a line at a time, as most programs write.
func BenchmarkSmallWrites(b *testing.B) {
	w := Open(filepath.Join(b.TempDir(), "log"), benchSize, 1)
	defer w.Close()
	line := append(bytes.Repeat([]byte{'x'}, 79), '\n')
	b.SetBytes(int64(len(line)))
	b.ReportAllocs()
	for b.Loop() {
		w.Write(Stdout, line)
	}
}

// BenchmarkReader reads 64 MiB of output, in lines of so many bytes.
func BenchmarkReader(b *testing.B) {
	for _, length := range []int{80, 16 << 10} {
		b.Run(strconv.Itoa(length), func(b *testing.B) {
			path := filepath.Join(b.TempDir(), "log")
			w := Open(path, 0, 0)
			piece := bytes.Repeat(append(bytes.Repeat([]byte{'x'}, length-1), '\n'), 64<<10/length)
			for range 1024 {
				w.Write(Stdout, piece)
			}
			w.Close()
			b.SetBytes(int64(len(piece)) * 1024)
			for b.Loop() {
				readThrough(b, path, Options{})
			}
		})
	}
}

// BenchmarkTail reads the last ten lines of 256 MiB.
func BenchmarkTail(b *testing.B) {
	path := filepath.Join(b.TempDir(), "log")
	w := Open(path, 0, 0)
	piece := bytes.Repeat([]byte("a line of the usual length, which is about eighty characters, says the terminal\n"), 800)
	for range benchSize / len(piece) {
		w.Write(Stdout, piece)
	}
	w.Close()
	b.ReportAllocs()
	for b.Loop() {
		readThrough(b, path, Options{Last: true, Tail: 10})
	}
}

func readThrough(b *testing.B, path string, o Options) {
	r, err := NewReader(path, o)
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	for {
		if _, err := r.Next(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			b.Fatal(err)
		}
	}
}
