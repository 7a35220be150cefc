package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"time"

	"rbox/userns/container"
	"rbox/userns/container/logfile"
)

// LogsCmd shows what a container wrote.
type LogsCmd struct {
	Follow     bool   `short:"f" help:"Go on with what it writes, until it ends."`
	Timestamps bool   `short:"t" help:"Show when each line was written."`
	Tail       string `short:"n" help:"Show only so many lines at the end, or all." default:"all" placeholder:"LINES"`
	Since      string `help:"Show what was written since a time (2026-11-22T17:00, or seconds since 1970), or for so long (10m)." placeholder:"TIME"`
	Until      string `help:"Show what was written before a time, of the same forms." placeholder:"TIME"`
	ID         string `arg:"" name:"CONTAINER" help:"Name or id."`
}

// Run copies stdout to stdout and stderr to stderr.
func (c *LogsCmd) Run(app *App) error {
	o, err := c.options(time.Now())
	if err != nil {
		return err
	}
	home, err := app.Home()
	if err != nil {
		return err
	}
	id, err := home.Find(c.ID)
	if err != nil {
		return err
	}
	path := home.LogPath(id)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) { // there is none, or nothing in it
		if err := c.whyNone(home, id); err != nil {
			return err
		}
	}
	p := &logPrinter{stdout: forReader(app.Stdout), stderr: forReader(app.Stderr), stamps: c.Timestamps}
	if c.Follow {
		done := make(chan struct{})
		go func() {
			defer close(done)
			awaitLast(home, id)
		}()
		o.Done, o.Idle = done, func() { p.flush() }
	}
	return p.print(path, o)
}

// options reads the flags.
func (c *LogsCmd) options(now time.Time) (o logfile.Options, err error) {
	if c.Tail != "all" {
		n, err := strconv.Atoi(c.Tail)
		if err != nil {
			return o, &adviceError{fmt.Errorf("--tail %s: that is no number of lines", c.Tail), "a number, or all"}
		}
		o.Last, o.Tail = n >= 0, n // Docker takes -1 for all
	}
	if o.Since, err = parseWhen("--since", c.Since, now); err != nil {
		return o, err
	}
	o.Until, err = parseWhen("--until", c.Until, now)
	return o, err
}

// whyNone returns an error for a container whose output is not kept.
func (c *LogsCmd) whyNone(home *container.Home, id string) error {
	info, err := home.Inspect(id)
	if err != nil {
		return err
	}
	switch info.Config.Log.Driver {
	case logNone:
		return &adviceError{
			errors.New("configured logging driver does not support reading"),
			"give rbox run another --log-driver than none: file",
		}
	case passthrough:
		return &adviceError{
			fmt.Errorf("the output of container %s went to the rbox that ran it", c.ID),
			"to keep it: rbox run -d, or rbox run --log-driver file",
		}
	}
	return nil
}

// awaitLast waits until the container has ended and is not to be started again.
func awaitLast(home *container.Home, id string) {
	for {
		client, err := home.Dial(id)
		if err != nil {
			return
		}
		for again := true; again && err == nil; {
			_, _, again, err = client.Ended(-1)
		}
		client.Close()
		if err == nil {
			return
		}
	}
}

// logPrinter writes entries to the streams they are of.
type logPrinter struct {
	stdout, stderr io.WriteCloser
	stamps         bool

	buf    []byte // of stream, not written yet
	stream logfile.Stream
	within [logfile.Stderr + 1]bool // the stream's line is not ended
	err    error
}

// printLen is how much is written at once.
const printLen = 64 << 10

func (p *logPrinter) print(path string, o logfile.Options) error {
	r, err := logfile.NewReader(path, o)
	if err != nil {
		return err
	}
	defer r.Close()
	for p.err == nil {
		e, err := r.Next()
		if err != nil {
			if p.flush(); errors.Is(err, io.EOF) {
				err = nil
			}
			return errors.Join(err, p.err, p.stdout.Close(), p.stderr.Close())
		}
		p.add(e)
	}
	return p.err
}

func (p *logPrinter) add(e logfile.Entry) {
	if e.Stream != p.stream || len(p.buf) > printLen {
		p.flush()
		p.stream = e.Stream
	}
	if p.stamps && !p.within[e.Stream] {
		p.buf = append(logfile.AppendTime(p.buf, e.Time), ' ')
	}
	p.within[e.Stream] = e.Partial
	p.buf = append(p.buf, e.Text...)
	if !e.Partial {
		p.buf = append(p.buf, '\n')
	}
}

func (p *logPrinter) flush() {
	w := p.stdout
	if p.stream == logfile.Stderr {
		w = p.stderr
	}
	if len(p.buf) > 0 && p.err == nil {
		_, p.err = w.Write(p.buf)
	}
	p.buf = p.buf[:0]
}
