//go:build !front

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"rbox/rootfs/layer"
)

// CpCmd copies files between a container and here.
type CpCmd struct {
	Archive    bool   `short:"a" help:"Keep the numbers of the owners of what is copied into the container."`
	FollowLink bool   `short:"L" help:"If SRC is a symbolic link, copy what it leads to."`
	Quiet      bool   `short:"q" help:"Do not tell what was copied."`
	Source     string `arg:"" name:"SRC" help:"CONTAINER:PATH, a path here, or - for a tar archive from stdin."`
	Target     string `arg:"" name:"DST" help:"A path here, CONTAINER:PATH, or - for a tar archive to stdout."`
}

// Run copies in the direction that the arguments say.
func (c *CpCmd) Run(app *App) error {
	if c.Source == "" {
		return errors.New("source can not be empty")
	}
	if c.Target == "" {
		return errors.New("destination can not be empty")
	}
	from, src := splitPath(c.Source)
	to, dst := splitPath(c.Target)
	ctx, stop := interruptible()
	defer stop()
	switch {
	case from != "" && to != "":
		return &adviceError{errors.New("copying between containers is not supported"), fmt.Sprintf("rbox cp %s - | rbox cp - %s", c.Source, c.Target)}
	case from != "":
		return orInterrupted(ctx, c.out(ctx, app, from, src, dst))
	case to != "":
		return orInterrupted(ctx, c.in(ctx, app, to, src, dst))
	}
	return &adviceError{errors.New("must specify at least one container source"), "rbox cp CONTAINER:PATH DST, or rbox cp SRC CONTAINER:PATH"}
}

// splitPath splits CONTAINER:PATH. A path here with a colon in it begins with
// / or a dot.
func splitPath(arg string) (name, path string) {
	if filepath.IsAbs(arg) {
		return "", arg
	}
	name, path, ok := strings.Cut(arg, ":")
	if !ok || strings.HasPrefix(name, ".") {
		return "", arg
	}
	return name, path
}

// assertsDirectory says that a path is meant to be a directory's.
func assertsDirectory(p string) bool {
	return strings.HasSuffix(p, "/") || path.Base(p) == "."
}

// A destination is where a copy goes, in a container or here.
type destination struct {
	path     string // clean
	asserted bool   // it is meant to be a directory
	exists   bool
	dir      bool // it is a directory
}

// place says into which directory a copy goes and what it is called there:
// Docker's rules.
func place(src localSource, dst destination) (dir, name string, err error) {
	switch {
	case dst.exists && dst.dir:
		return dst.path, string(src.Name), nil
	case dst.exists && src.Dir:
		return "", "", fmt.Errorf("cannot copy directory: %s is a file", dst.path)
	case dst.exists && dst.asserted:
		return "", "", fmt.Errorf("%s: not a directory", dst.path)
	case !dst.exists && !src.Dir && dst.asserted:
		return "", "", fmt.Errorf("no such directory: %s", dst.path)
	}
	return path.Dir(dst.path), path.Base(dst.path), nil
}

// in copies src into the container.
func (c *CpCmd) in(ctx context.Context, app *App, name, src, dst string) error {
	files, err := openFiles(ctx, app, name, "put")
	if err != nil {
		return err
	}
	defer files.stop()
	files.job.Path, files.job.Owners = rawText(dst), c.Archive
	if src == "-" {
		in, err := openArchive("-", "")
		if err != nil {
			return err
		}
		files.job.Stream = true
		if err := files.start(ctx, in, nil); err != nil {
			return err
		}
		return files.finish("copy")
	}
	local, err := openSource(src, c.FollowLink)
	if err != nil {
		return err
	}
	defer local.dir.Close()
	files.job.Source = local.localSource
	r, w, err := archivePipe()
	if err != nil {
		return err
	}
	defer w.Close()
	err = files.start(ctx, r, nil)
	r.Close()
	if err != nil {
		return err
	}
	ready, err := files.answer()
	if err != nil {
		return err
	}
	a := layer.NewArchiver(ctx, w, layer.ArchiveOptions{Caps: true, Pipe: true, Notice: app.Notice})
	sent := a.Add(int(local.dir.Fd()), local.base, string(ready.Name))
	if sent == nil {
		sent = a.Close()
	}
	if sent != nil && !errors.Is(sent, unix.EPIPE) {
		return sent // the process is killed before it takes the cut for the end
	}
	w.Close()
	if err := files.finish("copy"); err != nil {
		return err
	}
	c.tell(app, a.Bytes, name+":"+dst)
	return nil
}

// tell says on a terminal what was copied, in Docker's words.
func (c *CpCmd) tell(app *App, n int64, to string) {
	if !c.Quiet && isTerminal(2) {
		fmt.Fprintln(app.Stderr, "Successfully copied", humanSize(n, 3), "to", to)
	}
}

// An openedSource is a file here that is to be copied.
type openedSource struct {
	localSource
	dir  *os.File // where it is
	base string   // what it is called there
}

// openSource finds a file here. A link is one unless follow or a slash behind
// it says otherwise.
func openSource(src string, follow bool) (*openedSource, error) {
	full, err := filepath.Abs(src)
	if err != nil {
		return nil, err
	}
	asserted := assertsDirectory(src)
	look := os.Lstat
	if follow || asserted {
		look = os.Stat
	}
	st, err := look(full)
	if err != nil {
		return nil, err
	}
	if asserted && !st.IsDir() {
		return nil, &fs.PathError{Op: "open", Path: src, Err: unix.ENOTDIR}
	}
	s := &openedSource{base: filepath.Base(full), localSource: localSource{Name: rawText(filepath.Base(full)), Dir: st.IsDir()}}
	if st.Mode()&os.ModeSocket != 0 {
		return nil, fmt.Errorf("%s is a socket, which cannot be copied", src)
	}
	at := filepath.Dir(full)
	if follow || st.IsDir() {
		if full, err = filepath.EvalSymlinks(full); err != nil {
			return nil, err
		}
		at, s.base = filepath.Dir(full), filepath.Base(full)
	}
	if st.IsDir() {
		at, s.base = full, "."
	}
	if path.Base(src) == "." || string(s.Name) == "/" {
		s.Name = rawText(".")
	}
	s.dir, err = os.Open(at)
	return s, err
}

// out copies src out of the container.
func (c *CpCmd) out(ctx context.Context, app *App, name, src, dst string) error {
	if dst == "-" && isTerminal(1) {
		return &adviceError{errors.New("cannot write an archive to a terminal"), "redirect stdout"}
	}
	var to destination
	var err error
	if dst != "-" {
		if to, err = localDestination(dst); err != nil {
			return err
		}
	}
	files, err := openFiles(ctx, app, name, "get")
	if err != nil {
		return err
	}
	defer files.stop()
	files.job.Path, files.job.Follow, files.job.Stream = rawText(src), c.FollowLink, dst == "-"
	if dst == "-" {
		if err := files.start(ctx, nil, os.Stdout); err != nil {
			return err
		}
		return files.finish("copy")
	}
	r, w, err := archivePipe()
	if err != nil {
		return err
	}
	defer r.Close()
	err = files.start(ctx, nil, w)
	w.Close()
	if err != nil {
		return err
	}
	n, err := c.receive(ctx, app, files, r, to)
	if err == nil {
		c.tell(app, n, dst)
	}
	return err
}

// receive unpacks what comes from the container.
func (c *CpCmd) receive(ctx context.Context, app *App, files *containerFiles, r *os.File, to destination) (int64, error) {
	ready, err := files.answer()
	if err != nil {
		return 0, err
	}
	dir, name, err := place(localSource{Name: ready.Name, Dir: ready.Dir}, to)
	if err != nil {
		return 0, err
	}
	target, err := os.Open(dir)
	if err != nil {
		return 0, err
	}
	defer target.Close()
	// Our umask is for what we make up, not for what we copy.
	res, err := layer.Extract(ctx, layer.Folder(target.Fd()), r, layer.ExtractOptions{
		Rename: renaming(string(ready.Name), name), NoSetID: !c.Archive, Notice: app.Notice,
	})
	if failed := files.finish("copy"); failed != nil {
		return 0, failed // and that is why the archive was cut off
	}
	return res.Bytes, err
}

// renaming returns what calls the archive's first entry, from, to.
func renaming(from, to string) func(string) string {
	return func(entry string) string {
		switch {
		case from == "." && to == ".":
			return entry
		case entry == from:
			return to
		case from == ".":
			return path.Join(to, entry)
		}
		rest, ok := strings.CutPrefix(entry, from+"/")
		if !ok {
			return ""
		}
		return path.Join(to, rest)
	}
}

// localDestination looks at what dst is here.
func localDestination(dst string) (destination, error) {
	full, err := filepath.Abs(dst)
	if err != nil {
		return destination{}, err
	}
	parent := filepath.Dir(full)
	if _, err := os.Stat(parent); errors.Is(err, os.ErrNotExist) {
		return destination{}, fmt.Errorf("invalid output path: directory %q does not exist", parent)
	}
	const maxLinks = 40
	for range maxLinks {
		st, err := os.Lstat(full)
		d := destination{path: full, asserted: assertsDirectory(dst)}
		switch {
		case errors.Is(err, os.ErrNotExist):
			return d, nil
		case err != nil:
			return d, err
		case st.Mode()&os.ModeSymlink == 0:
			d.exists, d.dir = true, st.IsDir()
			if st.Mode()&os.ModeDevice != 0 {
				return d, fmt.Errorf("invalid output path: %q must be a directory or a regular file: got a device", full)
			}
			return d, nil
		}
		link, err := os.Readlink(full)
		if err != nil {
			return d, err
		}
		if !filepath.IsAbs(link) {
			link = filepath.Join(filepath.Dir(full), link)
		}
		full = link
	}
	return destination{}, &fs.PathError{Op: "open", Path: dst, Err: unix.ELOOP}
}
