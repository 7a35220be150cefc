package main

import (
	"bytes"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"rbox/rootfs/image"
	"rbox/rootfs/store"
)

// screen is a terminal of rows that understands what progress prints.
type screen struct {
	columns int
	rows    []string
	row     int
	broken  bool // a line was longer than the terminal is wide
}

var controls = regexp.MustCompile(`^\x1b\[(\d*)([AJKm])`)

func (s *screen) Write(p []byte) (int, error) {
	for text := string(p); text != ""; {
		if m := controls.FindStringSubmatch(text); m != nil {
			n, _ := strconv.Atoi(m[1])
			switch m[2] {
			case "A":
				s.row -= n
			case "J":
				s.rows = s.rows[:s.row]
			}
			text = text[len(m[0]):]
			continue
		}
		end := strings.IndexAny(text, "\x1b\n")
		if end < 0 {
			end = len(text)
		}
		chunk := strings.Trim(text[:end], "\r")
		if utf8.RuneCountInString(chunk) >= s.columns {
			s.broken = true
		}
		for len(s.rows) <= s.row {
			s.rows = append(s.rows, "")
		}
		if chunk != "" {
			s.rows[s.row] = chunk
		}
		text = text[end:]
		if strings.HasPrefix(text, "\n") {
			s.row++
			text = text[1:]
		}
	}
	return len(p), nil
}

func testLayers(n int) []image.Descriptor {
	var list []image.Descriptor
	for i := range n {
		list = append(list, image.Descriptor{Digest: image.DigestOf([]byte(fmt.Sprint(i))), Size: int64(i+1) * 10_000_000})
	}
	return list
}

// onScreen returns a progress whose clock and drawing the test has in hand.
func onScreen(s *screen, rows *int, layers []image.Descriptor) (*progress, *time.Time) {
	clock := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	p := &progress{out: s, now: func() time.Time { return clock }}
	p.Start(layers) // before it has a window: nothing draws but the test
	p.window = func() (int, int) { return s.columns, *rows }
	return p, &clock
}

func TestProgressOnTerminal(t *testing.T) {
	rows := 24
	s := &screen{columns: 100}
	layers := testLayers(4)
	p, clock := onScreen(s, &rows, layers)
	p.Layer(0, store.LayerExists, layers[0].Size)
	p.Layer(1, store.LayerLoading, 0)
	*clock = clock.Add(time.Second)
	p.Layer(1, store.LayerLoading, 5_000_000)
	p.Layer(2, store.LayerUnpacking, layers[2].Size)
	p.draw()
	want := []string{
		`already here$`,
		`\[=+> +\] +5MB/20MB +5MB/s +0:04$`,
		`unpacking  30MB$`,
		`waiting$`,
		`1 of 4 .*35MB/90MB`,
	}
	check := func() {
		t.Helper()
		if len(s.rows) < len(want) {
			t.Fatalf("screen %q", s.rows)
		}
		for i, w := range want {
			if !regexp.MustCompile(w).MatchString(s.rows[i]) {
				t.Errorf("line %d is %q, not like %q", i, s.rows[i], w)
			}
		}
	}
	check()
	p.draw() // in place
	check()
	if s.row != len(want) {
		t.Errorf("the cursor is on line %d after two drawings", s.row)
	}
	fmt.Fprintln(p, "rbox: a notice")
	if s.rows[0] != "rbox: a notice" {
		t.Errorf("screen %q: no notice above the bars", s.rows)
	}
	want = append([]string{"notice"}, want...)
	check()
}

func TestProgressFitsAnyWindow(t *testing.T) {
	for _, layerCount := range []int{0, 1, 5, 60} {
		for columns := 1; columns < 130; columns++ {
			rows := 10
			s := &screen{columns: columns}
			layers := testLayers(layerCount)
			p, clock := onScreen(s, &rows, layers)
			for i := range layers {
				state := store.LayerState(i % 5)
				p.Layer(i, state, 0)
				*clock = clock.Add(time.Second)
				p.Layer(i, state, layers[i].Size/3)
			}
			p.draw()
			if s.broken && columns > 1 || len(s.rows) > rows-1 {
				t.Fatalf("%d layers in %d columns: %q", layerCount, columns, s.rows)
			}
		}
	}
}

func TestProgressShowsWhatMoves(t *testing.T) {
	rows := 6
	s := &screen{columns: 80}
	p, _ := onScreen(s, &rows, testLayers(50))
	for i := range 20 {
		p.Layer(i, store.LayerDone, 1)
	}
	p.Layer(40, store.LayerLoading, 1)
	p.Layer(30, store.LayerUnpacking, 1)
	if got := fmt.Sprint(p.visible(4)); got != "[20 21 30 40]" {
		t.Errorf("visible are %s", got)
	}
}

func TestProgressAfterResize(t *testing.T) {
	rows := 24
	s := &screen{columns: 100}
	p, _ := onScreen(s, &rows, testLayers(2))
	p.Layer(0, store.LayerLoading, 5_000_000)
	p.draw()
	width := p.drawn[0]
	s.columns = 30 // terminals break the long lines into several
	if got, want := p.erase(s.columns), fmt.Sprintf("\r\x1b[%dA\x1b[J", (width+29)/30+1+(width+29)/30); p.drawn != nil || got != want {
		t.Errorf("erases with %q, not %q", got, want)
	}
}

func TestProgressElsewhere(t *testing.T) {
	var out bytes.Buffer
	p := newProgress(&out)
	layers := testLayers(3)
	p.Start(layers)
	for have := range int64(100) {
		p.Layer(0, store.LayerLoading, have)
	}
	p.Layer(0, store.LayerDone, layers[0].Size)
	p.Layer(1, store.LayerExists, layers[1].Size)
	p.Layer(2, store.LayerUnpacking, layers[2].Size)
	p.end(true)
	want := layers[0].Digest.Short() + ": done, 10MB\n" + layers[1].Digest.Short() + ": already here\n"
	if out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}

func TestProgressNoColor(t *testing.T) {
	for _, color := range []bool{true, false} {
		p := &progress{color: color}
		if got := p.fit(80, green, "x", "done"); strings.Contains(got.text, "\x1b") != color || got.width != 18 {
			t.Errorf("color %v: %+v", color, got)
		}
	}
}

func TestRateMeter(t *testing.T) {
	var m rateMeter
	at := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	if m.perSecond(at) != 0 {
		t.Error("a rate of nothing")
	}
	var count int64
	for range 1000 { // 20 s at 1000 a second, then 20 s at 3000
		count += 20
		at = at.Add(20 * time.Millisecond)
		m.add(at, count)
	}
	if got := m.perSecond(at); got < 950 || got > 1050 {
		t.Errorf("rate %d", got)
	}
	for range 1000 {
		count += 60
		at = at.Add(20 * time.Millisecond)
		m.add(at, count)
	}
	if got := m.perSecond(at); got < 2900 || got > 3100 {
		t.Errorf("rate %d after it grew", got)
	}
	if len(m.samples) > 50 {
		t.Errorf("%d samples", len(m.samples))
	}
	if got := m.perSecond(at.Add(time.Minute)); got > 400 {
		t.Errorf("rate %d after a minute of silence", got)
	}
}

func TestTimeText(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "0:01", 59 * time.Second: "1:00", time.Hour: "1h00m", 1000 * time.Hour: ">99h"} {
		if got := timeText(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}
