//go:build !front

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"rbox/rootfs/layer"
	"rbox/rootfs/store"
	"rbox/userns"
)

// Layers are written by a second rbox process, under the name unpackName, that
// is root of the outer user namespace: the files get owners that only it may
// give them. The two talk over a socket, one JSON message per packet, with the
// descriptor to read an archive from beside the job. One process does the jobs
// of one command, several at a time, and ends when the socket does.
const unpackName = "rbox-unpack"

// An unpackJob is what the process is asked to do.
type unpackJob struct {
	ID     int
	Op     string        // "unpack", "remove", "copy", "size" or "cancel"
	Dir    string        // to unpack or copy into, or to take the size of
	Dirs   []string      // to remove, or to copy, the lowest first
	Layer  layer.Options // for "unpack"
	Chunks int           // how many more packets carry Dirs
}

// An unpackReply is how a job ended.
type unpackReply struct {
	ID     int
	Result layer.Result
	Error  string            // empty after success
	Errno  unix.Errno        // within the error, if there was one
	Limit  *layer.LimitError // likewise
}

const (
	maxPacket = 128 << 10 // bytes; below what a socket takes at once (net.core.wmem_default)
	pipeSize  = 1 << 20   // bytes of an archive under way; the most that users may have (pipe(7))
	dirsChunk = 16        // directories in one packet: each name may be 4096 bytes long, and quoted
)

// unpackMain is the process. It returns its exit status.
func unpackMain() int {
	unix.Umask(0)
	unix.SetNonblock(3, false)
	s := &unpackServer{sock: 3, cancel: map[int]context.CancelFunc{}}
	for {
		job, file, err := s.receive()
		if err != nil {
			return 0 // whoever asked is gone, and with it what we were to do
		}
		if job.Op == "cancel" {
			s.end(job.ID)
			continue
		}
		ctx := s.begin(job.ID)
		go func() {
			s.reply(job.ID, s.do(ctx, job, file))
			s.end(job.ID)
		}()
	}
}

type unpackServer struct {
	sock   int
	sendMu sync.Mutex
	mu     sync.Mutex
	cancel map[int]context.CancelFunc
}

func (s *unpackServer) begin(id int) context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel[id] = cancel
	return ctx
}

func (s *unpackServer) end(id int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if cancel := s.cancel[id]; cancel != nil {
		cancel()
		delete(s.cancel, id)
	}
}

// receive waits for a job and the file that comes with it, if any.
func (s *unpackServer) receive() (*unpackJob, *os.File, error) {
	job := &unpackJob{}
	file, err := receivePacket(s.sock, job)
	if err != nil {
		return nil, nil, err
	}
	for range job.Chunks {
		var more []string
		if _, err := receivePacket(s.sock, &more); err != nil {
			return nil, nil, err
		}
		job.Dirs = append(job.Dirs, more...)
	}
	return job, file, nil
}

type unpackOutcome struct {
	result layer.Result
	err    error
}

func (s *unpackServer) do(ctx context.Context, job *unpackJob, file *os.File) unpackOutcome {
	if file != nil {
		defer file.Close()
	}
	switch job.Op {
	case "unpack":
		result, err := layer.Apply(ctx, job.Dir, file, job.Layer)
		return unpackOutcome{result, err}
	case "remove":
		var errs []error
		for _, dir := range job.Dirs {
			errs = append(errs, layer.Remove(dir))
		}
		return unpackOutcome{err: errors.Join(errs...)}
	case "copy":
		return unpackOutcome{err: layer.Copy(ctx, job.Dir, job.Dirs)}
	case "size":
		bytes, err := layer.Size(job.Dir)
		return unpackOutcome{layer.Result{Bytes: bytes}, err}
	}
	return unpackOutcome{err: fmt.Errorf("no such job: %q", job.Op)}
}

func (s *unpackServer) reply(id int, o unpackOutcome) {
	r := unpackReply{ID: id, Result: o.result}
	if o.err != nil {
		r.Error = o.err.Error()
		errors.As(o.err, &r.Errno)
		errors.As(o.err, &r.Limit)
	}
	s.sendMu.Lock()
	defer s.sendMu.Unlock()
	sendPacket(s.sock, r, -1) // fails only if nobody waits any more
}

// sendPacket sends v, with the descriptor fd unless that is -1.
func sendPacket(sock int, v any, fd int) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(data) > maxPacket {
		return fmt.Errorf("a message of %d bytes is too long", len(data))
	}
	var rights []byte
	if fd >= 0 {
		rights = unix.UnixRights(fd)
	}
	for {
		_, err := unix.SendmsgN(sock, data, rights, nil, unix.MSG_NOSIGNAL)
		if err != unix.EINTR {
			return err
		}
	}
}

// receivePacket receives into v, and the file that came along, if any.
func receivePacket(sock int, v any) (*os.File, error) {
	data, rights := make([]byte, maxPacket), make([]byte, unix.CmsgSpace(4))
	var n, rn int
	var err error
	for {
		n, rn, _, _, err = unix.Recvmsg(sock, data, rights, unix.MSG_CMSG_CLOEXEC)
		if err != unix.EINTR {
			break
		}
	}
	if err == nil && n == 0 {
		err = io.EOF
	}
	if err != nil {
		return nil, err
	}
	var file *os.File
	if rn > 0 {
		messages, err := unix.ParseSocketControlMessage(rights[:rn])
		if err != nil {
			return nil, err
		}
		fds, err := unix.ParseUnixRights(&messages[0])
		if err != nil {
			return nil, err
		}
		file = os.NewFile(uintptr(fds[0]), "archive")
	}
	return file, json.Unmarshal(data[:n], v)
}

// An unpackClient is the other end: a store.Unpacker. The process is started
// with the first job.
type unpackClient struct {
	outer func() (*userns.Outer, error)

	mu     sync.Mutex
	sock   *os.File      // nil while there is no process
	gone   chan struct{} // closed when the process is
	sendMu sync.Mutex
	lastID int
	wait   map[int]chan unpackReply
}

// An unpackError is what the process reports.
type unpackError struct {
	text  string
	inner error
}

func (e *unpackError) Error() string { return e.text }
func (e *unpackError) Unwrap() error { return e.inner }

// Unpack implements store.Unpacker.
func (c *unpackClient) Unpack(ctx context.Context, dst string, blob io.Reader, o layer.Options) (layer.Result, error) {
	job := unpackJob{Op: "unpack", Dir: dst, Layer: o}
	if file, ok := blob.(*os.File); ok {
		return c.call(ctx, job, file, func() {})
	}
	r, w, err := os.Pipe()
	if err != nil {
		return layer.Result{}, err
	}
	unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, pipeSize)
	fed := make(chan error, 1)
	go func() {
		_, err := io.CopyBuffer(struct{ io.Writer }{w}, blob, make([]byte, 128<<10))
		w.Close()
		fed <- err
	}()
	result, err := c.call(ctx, job, r, func() { r.Close() })
	if ferr := <-fed; ferr != nil && !errors.Is(ferr, unix.EPIPE) {
		err = ferr
	}
	return result, err
}

// Remove implements store.Unpacker.
func (c *unpackClient) Remove(ctx context.Context, dirs ...string) error {
	_, err := c.call(ctx, unpackJob{Op: "remove", Dirs: dirs}, nil, func() {})
	return err
}

// Copy is layer.Copy.
func (c *unpackClient) Copy(ctx context.Context, dst string, lowers []string) error {
	_, err := c.call(ctx, unpackJob{Op: "copy", Dir: dst, Dirs: lowers}, nil, func() {})
	return err
}

// Size is layer.Size.
func (c *unpackClient) Size(ctx context.Context, dir string) (int64, error) {
	result, err := c.call(ctx, unpackJob{Op: "size", Dir: dir}, nil, func() {})
	return result.Bytes, err
}

// Close ends the process.
func (c *unpackClient) Close() {
	c.mu.Lock()
	sock, gone := c.sock, c.gone
	c.mu.Unlock()
	if sock != nil {
		unix.Shutdown(int(sock.Fd()), unix.SHUT_RDWR)
		<-gone
	}
}

// call has job done, with file if there is one, and calls sent once the
// process has that.
func (c *unpackClient) call(ctx context.Context, job unpackJob, file *os.File, sent func()) (layer.Result, error) {
	id, answer, err := c.send(job, file)
	sent()
	if err != nil {
		return layer.Result{}, err
	}
	var r unpackReply
	select {
	case r = <-answer:
	case <-ctx.Done():
		c.packet(unpackJob{ID: id, Op: "cancel"}, -1)
		<-answer
		return layer.Result{}, ctx.Err()
	}
	if r.Error == "" {
		return r.Result, nil
	}
	e := &unpackError{text: r.Error}
	switch {
	case r.Limit != nil:
		e.inner = r.Limit
	case r.Errno != 0:
		e.inner = r.Errno
	case r.Error == store.ErrUnpackerDied.Error():
		e.inner = store.ErrUnpackerDied
	}
	return layer.Result{}, e
}

// send sends job and says where its answer will come.
func (c *unpackClient) send(job unpackJob, file *os.File) (int, chan unpackReply, error) {
	answer := make(chan unpackReply, 1)
	c.mu.Lock()
	if err := c.start(); err != nil {
		c.mu.Unlock()
		return 0, nil, err
	}
	c.lastID++
	job.ID = c.lastID
	c.wait[job.ID] = answer
	c.mu.Unlock()

	fd := -1
	if file != nil {
		fd = int(file.Fd())
	}
	rest := job.Dirs
	job.Dirs = nil
	job.Chunks = (len(rest) + dirsChunk - 1) / dirsChunk
	c.sendMu.Lock()
	defer c.sendMu.Unlock()
	err := c.packet(job, fd)
	for err == nil && len(rest) > 0 {
		n := min(dirsChunk, len(rest))
		err = c.packet(rest[:n], -1)
		rest = rest[n:]
	}
	if err != nil {
		c.mu.Lock()
		delete(c.wait, job.ID)
		c.mu.Unlock()
		return 0, nil, fmt.Errorf("%w: %w", store.ErrUnpackerDied, err)
	}
	return job.ID, answer, nil
}

func (c *unpackClient) packet(v any, fd int) error {
	c.mu.Lock()
	sock := c.sock
	c.mu.Unlock()
	if sock == nil {
		return store.ErrUnpackerDied
	}
	return sendPacket(int(sock.Fd()), v, fd)
}

// start starts the process unless it runs. The caller holds c.mu.
func (c *unpackClient) start() error {
	if c.sock != nil {
		return nil
	}
	outer, err := c.outer()
	if err != nil {
		return err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "unpack"), os.NewFile(uintptr(pair[1]), "unpack")
	defer theirs.Close()
	cmd := outer.Command("/proc/self/exe")
	cmd.Args = []string{unpackName}
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Survive = true // until its socket ends; the alternative ends it with one of our threads
	if err := cmd.Start(); err != nil {
		ours.Close()
		return err
	}
	c.sock, c.gone, c.wait = ours, make(chan struct{}), map[int]chan unpackReply{}
	go func(wait map[int]chan unpackReply, gone chan struct{}) {
		c.receive(ours, wait)
		cmd.Wait()
		close(gone)
	}(c.wait, c.gone)
	return nil
}

// receive hands out the answers on sock until it ends. Jobs without one then fail.
func (c *unpackClient) receive(sock *os.File, wait map[int]chan unpackReply) {
	for {
		var r unpackReply
		_, err := receivePacket(int(sock.Fd()), &r)
		c.mu.Lock()
		if err != nil {
			for _, answer := range wait {
				answer <- unpackReply{Error: store.ErrUnpackerDied.Error()}
			}
			clear(wait)
			c.sock = nil
			c.mu.Unlock()
			sock.Close()
			return
		}
		answer := wait[r.ID]
		delete(wait, r.ID)
		c.mu.Unlock()
		if answer != nil {
			answer <- r
		}
	}
}
