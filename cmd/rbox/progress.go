//go:build !front

package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/term"

	"rbox/rootfs/image"
	"rbox/rootfs/store"
)

const (
	redrawEvery = 100 * time.Millisecond
	rateWindow  = 5 * time.Second // over which a rate is measured
)

// progress shows how a pull gets on: on a terminal a bar for each layer,
// redrawn in place; elsewhere a line for each layer that is complete. It is a
// store.Progress.
type progress struct {
	out    io.Writer
	window func() (columns, rows int) // of the terminal; nil: there is none
	color  bool
	now    func() time.Time

	mu     sync.Mutex
	layers []layerProgress
	drawn  []int // widths of the lines on the screen that are ours, in columns
	ended  bool
	stop   chan struct{} // closed to end the redrawing
	done   chan struct{} // closed when it has ended
}

// layerProgress is one layer's line.
type layerProgress struct {
	id         string
	size, have int64
	state      store.LayerState
	rate       rateMeter
}

// newProgress returns a progress that prints to out: bars if that is a
// terminal that can move its cursor.
func newProgress(out io.Writer) *progress {
	p := &progress{out: out, now: time.Now}
	file, ok := out.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) || os.Getenv("TERM") == "dumb" {
		return p
	}
	p.color = os.Getenv("NO_COLOR") == ""
	p.window = func() (columns, rows int) {
		columns, rows, err := term.GetSize(int(file.Fd()))
		if err != nil || columns < 1 || rows < 1 {
			return 80, 24
		}
		return columns, rows
	}
	return p
}

// Start begins to draw.
func (p *progress) Start(layers []image.Descriptor) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.layers = make([]layerProgress, len(layers))
	for i, d := range layers {
		p.layers[i] = layerProgress{id: d.Digest.Short(), size: d.Size}
	}
	if p.window == nil || p.stop != nil {
		return
	}
	p.stop, p.done = make(chan struct{}), make(chan struct{})
	go p.redraw()
}

func (p *progress) redraw() {
	defer close(p.done)
	ticker := time.NewTicker(redrawEvery)
	defer ticker.Stop()
	for {
		select {
		case <-p.stop:
			return
		case <-ticker.C:
			p.mu.Lock()
			p.draw()
			p.mu.Unlock()
		}
	}
}

// Layer notes the state of layer i.
func (p *progress) Layer(i int, state store.LayerState, have int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := &p.layers[i]
	changed := state != l.state
	l.state, l.have = state, have
	if state == store.LayerLoading {
		l.rate.add(p.now(), have)
	}
	if p.window != nil || !changed {
		return
	}
	switch state {
	case store.LayerExists:
		fmt.Fprintf(p.out, "%s: already here\n", l.id)
	case store.LayerDone:
		fmt.Fprintf(p.out, "%s: done, %s\n", l.id, sizeText(l.size))
	}
}

// Write prints text of others above the bars, whole lines each time.
func (p *progress) Write(text []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.window == nil || len(p.drawn) == 0 {
		return p.out.Write(text)
	}
	columns, _ := p.window()
	if _, err := io.WriteString(p.out, p.erase(columns)); err != nil {
		return 0, err
	}
	n, err := p.out.Write(text)
	if !p.ended {
		p.draw()
	}
	return n, err
}

// end stops drawing. keep leaves the bars as they are at last; else they are
// erased. The cursor is at the start of a line after it.
func (p *progress) end(keep bool) {
	p.mu.Lock()
	stop := p.stop
	p.mu.Unlock()
	if stop == nil {
		return
	}
	close(stop)
	<-p.done
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stop, p.ended = nil, true
	if keep {
		p.draw()
	} else if len(p.drawn) > 0 {
		columns, _ := p.window()
		io.WriteString(p.out, p.erase(columns))
	}
	p.drawn = nil
}

// erase returns what moves the cursor to the first of our lines and clears the
// screen from there. Where the window has become narrower, a terminal has
// broken those lines into more.
func (p *progress) erase(columns int) string {
	up := 0
	for _, width := range p.drawn {
		up += 1 + max(0, width-1)/columns
	}
	p.drawn = nil
	if up == 0 {
		return ""
	}
	return fmt.Sprintf("\r\x1b[%dA\x1b[J", up)
}

// draw brings the screen up to date with one write. Lines are overwritten in
// place and cleared only behind their end, so that nothing flickers.
func (p *progress) draw() {
	columns, rows := p.window()
	lines := p.lines(columns, rows)
	var b strings.Builder
	switch {
	case len(p.drawn) > len(lines) || p.wrapped(columns):
		b.WriteString(p.erase(columns))
	case len(p.drawn) > 0:
		fmt.Fprintf(&b, "\r\x1b[%dA", len(p.drawn))
	}
	p.drawn = p.drawn[:0]
	for _, line := range lines {
		b.WriteString(line.text)
		b.WriteString("\x1b[K\n")
		p.drawn = append(p.drawn, line.width)
	}
	io.WriteString(p.out, b.String())
}

func (p *progress) wrapped(columns int) bool {
	for _, width := range p.drawn {
		if width > columns {
			return true
		}
	}
	return false
}

// line is one line of the screen: width columns wide, with colors in text.
type line struct {
	text  string
	width int
}

// lines returns what to show in a window: all layers, or where they are too
// many those on which there is something to see, and below them the sum.
func (p *progress) lines(columns, rows int) []line {
	room := max(1, rows-2) // one for the sum, one for the cursor
	var lines []line
	for _, i := range p.visible(room) {
		lines = append(lines, p.layerLine(&p.layers[i], columns))
	}
	return append(lines, p.sumLine(columns))
}

// visible chooses room layers: those being worked on first, then those that
// wait, then those that are complete, and returns them in their order.
func (p *progress) visible(room int) []int {
	var all []int
	if len(p.layers) <= room {
		for i := range p.layers {
			all = append(all, i)
		}
		return all
	}
	chosen := make([]bool, len(p.layers))
	for _, want := range []func(store.LayerState) bool{
		func(s store.LayerState) bool { return s == store.LayerLoading || s == store.LayerUnpacking },
		func(s store.LayerState) bool { return s == store.LayerWaiting },
		func(s store.LayerState) bool { return true },
	} {
		for i := range p.layers {
			if room > 0 && !chosen[i] && want(p.layers[i].state) {
				chosen[i] = true
				room--
			}
		}
	}
	for i, c := range chosen {
		if c {
			all = append(all, i)
		}
	}
	return all
}

const (
	dim   = "\x1b[2m"
	green = "\x1b[32m"
	plain = "\x1b[0m"
)

func (p *progress) layerLine(l *layerProgress, columns int) line {
	switch {
	case l.state == store.LayerWaiting:
		return p.fit(columns, dim, l.id, "waiting")
	case l.state == store.LayerExists:
		return p.fit(columns, dim, l.id, "already here")
	case l.state == store.LayerDone:
		return p.fit(columns, green, l.id, "done", sizeText(l.size))
	case l.state == store.LayerUnpacking || l.have >= l.size:
		return p.fit(columns, "", l.id, "unpacking", sizeText(l.size))
	}
	return p.bar(columns, l.id, l.have, l.size, l.rate.perSecond(p.now()))
}

// sumLine adds up what is yet to be transferred and what of it has been.
func (p *progress) sumLine(columns int) line {
	var have, size, rate int64
	complete := 0
	for i := range p.layers {
		l := &p.layers[i]
		switch l.state {
		case store.LayerExists:
			complete++
			continue
		case store.LayerDone:
			complete++
		case store.LayerLoading:
			if l.have < l.size {
				rate += l.rate.perSecond(p.now())
			}
		}
		have += min(l.have, l.size)
		size += l.size
	}
	name := fmt.Sprintf("%d of %d", complete, len(p.layers))
	if have == size {
		return p.fit(columns, "", name, "layers", sizeText(size))
	}
	return p.bar(columns, name, have, size, rate)
}

// idWidth is that of the first column.
const idWidth = 12

// fit joins parts into a line, leaving out what has no room.
func (p *progress) fit(columns int, color string, parts ...string) line {
	text := fmt.Sprintf("%-*s", idWidth, parts[0])
	for _, part := range parts[1:] {
		if len(text)+2+len(part) < columns {
			text += "  " + part
		}
	}
	return p.colored(columns, color, text)
}

// colored cuts text, plain ASCII, to less than a line, so that the terminal
// never breaks it.
func (p *progress) colored(columns int, color, text string) line {
	text = text[:min(len(text), max(0, columns-1))]
	width := utf8.RuneCountInString(text)
	if p.color && color != "" {
		text = color + text + plain
	}
	return line{text, width}
}

// bar draws a transfer: name, bar, bytes, rate and time left, as many of them
// as there is room for; at least the percentage.
func (p *progress) bar(columns int, name string, have, size, rate int64) line {
	share := 0.0
	if size > 0 {
		share = min(1, float64(have)/float64(size))
	}
	percent := fmt.Sprintf("%3d%%", int(share*100))
	if columns < 40 {
		if columns < idWidth+8 {
			return p.colored(columns, "", percent+" "+name)
		}
		return p.fit(columns, "", name, percent)
	}
	bytes := fmt.Sprintf("%15s", sizeText(have)+"/"+sizeText(size))
	speed, left := strings.Repeat(" ", 10), strings.Repeat(" ", 6)
	if rate > 0 {
		speed = fmt.Sprintf("%10s", sizeText(rate)+"/s")
		left = fmt.Sprintf("%6s", timeText(time.Duration(float64(size-have)/float64(rate)*float64(time.Second))))
	}
	if room := columns - idWidth - len(bytes) - len(speed) - len(left) - 11; room >= 10 {
		full := int(share * float64(min(room, 40)))
		drawing := strings.Repeat("=", full)
		if full < min(room, 40) {
			drawing += ">" + strings.Repeat(" ", min(room, 40)-full-1)
		}
		return p.colored(columns, "", fmt.Sprintf("%-*s  [%s]  %s  %s  %s", idWidth, name, drawing, bytes, speed, left))
	}
	return p.fit(columns, "", name, percent, bytes, speed, left)
}

// sizeText shows n bytes with three digits: bars change too often for more.
func sizeText(n int64) string { return humanSize(n, 3) }

// timeText shows d as minutes and seconds, or hours and minutes.
func timeText(d time.Duration) string {
	s := int64(d/time.Second) + 1
	switch {
	case s < 3600:
		return fmt.Sprintf("%d:%02d", s/60, s%60)
	case s < 100*3600:
		return fmt.Sprintf("%dh%02dm", s/3600, s/60%60)
	}
	return ">99h"
}

// rateMeter measures how fast a count grows.
type rateMeter struct {
	samples []sample // the oldest first, over rateWindow
}

type sample struct {
	at    time.Time
	count int64
}

// minSampleGap keeps the samples few.
const minSampleGap = rateWindow / 20

func (m *rateMeter) add(at time.Time, count int64) {
	if n := len(m.samples); n > 1 && at.Sub(m.samples[n-2].at) < minSampleGap {
		m.samples[n-1] = sample{at, count}
	} else {
		m.samples = append(m.samples, sample{at, count})
	}
	for len(m.samples) > 2 && at.Sub(m.samples[0].at) > rateWindow {
		m.samples = m.samples[1:]
	}
}

// perSecond returns the rate as of now, 0 while it is too early to tell.
func (m *rateMeter) perSecond(now time.Time) int64 {
	if len(m.samples) < 2 {
		return 0
	}
	first, last := m.samples[0], m.samples[len(m.samples)-1]
	d := now.Sub(first.at)
	if d < rateWindow/10 || last.count <= first.count {
		return 0
	}
	return int64(float64(last.count-first.count) / d.Seconds())
}
