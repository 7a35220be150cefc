package main

import (
	"fmt"
	"io"
)

// cpio writes an archive of the form that the kernel unpacks as the initial RAM
// disk: "newc" of Documentation/driver-api/early-userspace/buffer-format.rst.
type cpio struct {
	w       io.Writer
	inode   int
	written int
	err     error // the first
}

// Modes of cpio members, as in stat(2).
const (
	modeDir  = 0o040755
	modeProg = 0o100755
)

// add writes a member. Folders come before what is in them.
func (c *cpio) add(name string, mode int, data []byte) {
	c.inode++
	links := 1
	if mode == modeDir {
		links = 2
	}
	c.header(c.inode, mode, links, len(data), name)
	c.write(data)
	c.pad()
}

// close ends the archive and returns the first error there was.
func (c *cpio) close() error {
	c.header(0, 0, 1, 0, "TRAILER!!!")
	return c.err
}

// header has, in hexadecimal: inode, mode, uid, gid, links, time, size, the four
// numbers of two devices, the length of the name with its NUL, and no checksum.
func (c *cpio) header(inode, mode, links, size int, name string) {
	c.write([]byte("070701"))
	for _, n := range []int{inode, mode, 0, 0, links, 0, size, 0, 0, 0, 0, len(name) + 1, 0} {
		c.write(fmt.Appendf(nil, "%08x", n))
	}
	c.write(append([]byte(name), 0))
	c.pad()
}

// pad fills up to a multiple of four.
func (c *cpio) pad() { c.write(make([]byte, -c.written&3)) }

func (c *cpio) write(data []byte) {
	if c.err == nil {
		_, c.err = c.w.Write(data)
		c.written += len(data)
	}
}
