package events

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"path/filepath"
	"time"

	"rbox/userns/container/logfile"
)

// Read calls each with the events in the folder dir that happened between since
// and until, where the zero time is no bound. It returns what each returns.
func Read(dir string, since, until time.Time, each func(Event) error) error {
	lines, err := logfile.OpenLines(filepath.Join(dir, fileName), false)
	if err != nil {
		return err
	}
	defer lines.Close()
	return read(lines, since, until, each)
}

// Follow is Read and goes on with what happens, until the time until or until
// ctx is done. Without since it begins now.
func Follow(ctx context.Context, dir string, since, until time.Time, each func(Event) error) error {
	lines, err := logfile.OpenLines(filepath.Join(dir, fileName), true)
	if err != nil {
		return err
	}
	defer lines.Close()
	if since.IsZero() {
		if err := lines.SeekEnd(); err != nil {
			return err
		}
	}
	if !until.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, until)
		defer cancel()
	}
	for ended := false; ; {
		if err := read(lines, since, until, each); err != nil || ended {
			return err
		}
		ended = lines.Wait(ctx.Done())
	}
}

// read passes on the lines that are there. One that is no event is passed over.
func read(lines *logfile.Lines, since, until time.Time, each func(Event) error) error {
	var long []byte
	for {
		line, whole, err := lines.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if !whole || long != nil {
			long = append(long, line...)
			line = long
		}
		if !whole {
			continue
		}
		e, ok := parse(line)
		long = nil
		if !ok || e.Time.Before(since) || !until.IsZero() && e.Time.After(until) {
			continue
		}
		if err := each(e); err != nil {
			return err
		}
	}
}

func parse(line []byte) (e Event, ok bool) {
	var m struct {
		Type, Action string
		Actor        struct {
			ID         string
			Attributes map[string]string
		}
		TimeNano int64 `json:"timeNano"`
	}
	if json.Unmarshal(line, &m) != nil {
		return e, false
	}
	return Event{time.Unix(0, m.TimeNano), m.Type, m.Action, m.Actor.ID, m.Actor.Attributes}, true
}
