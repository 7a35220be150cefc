//go:build !front

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"rbox/rootfs"
	"rbox/rootfs/layer"
	"rbox/rootfs/store"
	"rbox/userns"
	"rbox/userns/container"
)

// containerFiles is one look at a container's files, or one change of them.
type containerFiles struct {
	app   *App
	home  *container.Home
	info  container.Info
	job   filesJob
	image *store.Image // nil for a container of a directory
	locks []*os.File   // of the container and its image: the process has them too

	cmd     *userns.Cmd
	answers *json.Decoder
	from    *os.File // what answers come from
	bytes   int64    // that the process copied
}

// openFiles prepares the job op for the container that the user calls name.
func openFiles(ctx context.Context, app *App, name, op string) (*containerFiles, error) {
	home, err := app.Home()
	if err != nil {
		return nil, err
	}
	c := &containerFiles{app: app, home: home}
	if c.info, err = findContainer(home, name); err != nil {
		return nil, err
	}
	p := &c.info.Config.Plan
	c.job = filesJob{
		Op: op, Name: name, Root: p.Root, Scratch: home.Scratch(), ReadOnly: p.ReadOnly, Unused: c.info.State.Started.IsZero(),
		UIDs: p.Namespaces.UIDs, GIDs: p.Namespaces.GIDs, Single: p.Namespaces.Single,
	}
	copies := op == "get" || op == "put"
	if copies && c.info.Running && c.info.State.Pid != 0 {
		c.job.Pid, c.job.StartTime = c.info.State.Pid, c.info.State.StartTime
		return c, nil
	}
	if copies {
		for _, m := range p.Mounts {
			if m.Type == "bind" || m.Type == "volume" {
				c.job.Binds = append(c.job.Binds, m)
			}
		}
	}
	if op == "put" {
		folder, _, err := home.Reopen(c.info.Config.ID)
		if err != nil {
			return nil, err
		}
		c.locks = append(c.locks, folder.Lock())
	}
	if err := c.info.Config.CheckWritings(c.info.Dir, c.info.Name()); err != nil {
		c.close()
		return nil, err
	}
	c.job.Diff = c.diffOptions()
	if err := c.lowers(ctx); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// diffOptions says what of the container's files is not its own doing.
func (c *containerFiles) diffOptions() layer.DiffOptions {
	p := &c.info.Config.Plan
	o := layer.DiffOptions{
		Whole: p.Root.Driver == "dir", Fuse: p.Root.Driver == string(rootfs.Fuse),
		Own: map[string]bool{"/dev": true, "/proc": true, "/sys": true},
	}
	for _, f := range p.Files {
		o.Own[f.Target] = true
	}
	return o
}

// lowers finds the image's layers, unpacked anew if need be.
func (c *containerFiles) lowers(ctx context.Context) error {
	if c.info.Config.ImageID == "" {
		return nil
	}
	s, err := c.app.Images()
	if err != nil {
		return err
	}
	if c.image, err = s.Lookup(c.info.Config.ImageID); err != nil {
		return err
	}
	unpacking, done, err := c.app.Unpacking()
	if err != nil {
		return err
	}
	defer done()
	n := &c.info.Config.Plan.Namespaces
	if l := c.info.Config.Plan.Process.Login; l != nil && !n.Single { // --userns keep-id
		unpacking.Mapping.Key = keepKey(unpacking.Mapping.Key, l.UID, l.GID)
		unpacking.Mapping.UIDs, unpacking.Mapping.GIDs = layerIDs(n.UIDs), layerIDs(n.GIDs)
	}
	dirs, hold, err := s.Layers(ctx, c.image, unpacking)
	if err != nil {
		return err
	}
	c.job.Root.Lowers = dirs
	c.locks = append(c.locks, hold.File)
	return nil
}

func (c *containerFiles) close() {
	for _, f := range append(c.locks, c.from) {
		if f != nil {
			f.Close()
		}
	}
}

// start starts the process with stdin and stdout.
func (c *containerFiles) start(ctx context.Context, stdin, stdout *os.File) error {
	outer, err := c.app.Outer()
	if err != nil {
		return err
	}
	job, err := json.Marshal(c.job)
	if err != nil {
		return err
	}
	in, jobs, err := os.Pipe()
	if err != nil {
		return err
	}
	defer in.Close()
	go func() {
		jobs.Write(job) // fails only if the process is gone, which answers tell
		jobs.Close()
	}()
	from, to, err := os.Pipe()
	if err != nil {
		return err
	}
	defer to.Close()
	cmd := outer.Command("/proc/self/exe")
	cmd.Args = []string{filesName}
	cmd.NewMount = true
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, os.Stderr
	cmd.ExtraFiles = append([]*os.File{in, to}, c.locks...)
	runtime.LockOSThread() // the process dies with this thread
	if err := cmd.Start(); err != nil {
		from.Close()
		return err
	}
	context.AfterFunc(ctx, func() { cmd.Kill() })
	c.cmd, c.from, c.answers = cmd, from, json.NewDecoder(from)
	return nil
}

// answer waits for the next answer that is no notice. The last is an error
// unless all went well.
func (c *containerFiles) answer() (filesReply, error) {
	for {
		var r filesReply
		if err := c.answers.Decode(&r); err != nil {
			return r, errors.New("the process that reads the container's files was killed")
		}
		switch {
		case r.Notice != "":
			c.app.Notice(r.Notice)
			continue
		case r.Error != "" && r.Hint != "":
			return r, &adviceError{errors.New(r.Error), r.Hint}
		case r.Error != "":
			return r, errors.New(r.Error)
		}
		c.bytes = r.Bytes
		return r, nil
	}
}

// end waits for the last answer.
func (c *containerFiles) end() error {
	for {
		r, err := c.answer()
		if err != nil || r.Done {
			return err
		}
	}
}

// finish waits for the last answer and writes down as an event what was done.
func (c *containerFiles) finish(action string) error {
	err := c.end()
	if err == nil {
		container.Record(c.home, c.info, action, nil)
	}
	return err
}

// stop ends the process, whatever it does, and frees what it had.
func (c *containerFiles) stop() {
	if c.cmd != nil {
		c.cmd.Kill()
		c.cmd.Wait()
	}
	c.close()
}

// archivePipe is os.Pipe with room for what archives come in.
func archivePipe() (r, w *os.File, err error) {
	if r, w, err = os.Pipe(); err == nil {
		unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, pipeSize)
	}
	return r, w, err
}

// noImage is the error of what takes an image for a container that has none.
func (c *containerFiles) noImage(why string) error {
	what := "was started from the directory " + c.info.Config.Plan.Root.Dir
	if c.info.Config.Image == hostImage {
		what = "has this machine's own files"
	}
	return fmt.Errorf("container %s %s: there is no image %s", c.job.Name, what, why)
}
