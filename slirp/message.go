package slirp

import (
	"encoding/json"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// A packet between a monitor and the network process is a byte that says how
// its value comes, then the value as JSON, or nothing: the value is in a file in
// memory, whose descriptor is the packet's last.
const (
	inPacket = 'p'
	inFile   = 'f'
)

// maxPacket bounds what goes in a packet, bytes. A range of published ports may be longer.
const maxPacket = 32 << 10

// maxRights is more descriptors than any packet of ours brings.
const maxRights = 16

// ErrMalformed says that a packet is none of ours.
var ErrMalformed = errors.New("malformed message")

// Send writes v, and descriptors with it, to sock, a socket of type SOCK_SEQPACKET.
func Send(sock int, v any, fds ...int) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	packet := append([]byte{inPacket}, text...)
	if len(text) > maxPacket {
		file, err := inMemory(text)
		if err != nil {
			return err
		}
		defer unix.Close(file)
		packet, fds = []byte{inFile}, append(fds[:len(fds):len(fds)], file)
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	for {
		err := unix.Sendmsg(sock, packet, rights, nil, unix.MSG_NOSIGNAL)
		if err != unix.EINTR {
			return os.NewSyscallError("sendmsg", err)
		}
	}
}

// inMemory returns the descriptor of a file that holds text.
func inMemory(text []byte) (int, error) {
	fd, err := unix.MemfdCreate("rbox-message", unix.MFD_CLOEXEC)
	if err != nil {
		return -1, os.NewSyscallError("memfd_create", err)
	}
	for len(text) > 0 {
		n, err := unix.Write(fd, text)
		if err != nil {
			unix.Close(fd)
			return -1, os.NewSyscallError("write", err)
		}
		text = text[n:]
	}
	return fd, nil
}

// Receive reads what Send wrote into v, and returns the descriptors that came,
// which close on exec. The end of the other side is io.EOF.
func Receive(sock int, v any) (fds []int, err error) {
	packet, oob := make([]byte, 1+maxPacket), make([]byte, unix.CmsgSpace(4*maxRights))
	var n, oobn, flags int
	for {
		n, oobn, flags, _, err = unix.Recvmsg(sock, packet, oob, unix.MSG_CMSG_CLOEXEC)
		if err != unix.EINTR {
			break
		}
	}
	if err == unix.ECONNRESET || err == nil && n == 0 {
		return nil, io.EOF
	}
	if err != nil {
		return nil, os.NewSyscallError("recvmsg", err)
	}
	if messages, err := unix.ParseSocketControlMessage(oob[:oobn]); err == nil && len(messages) > 0 {
		fds, _ = unix.ParseUnixRights(&messages[0])
	}
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		err = ErrMalformed
	} else {
		fds, err = parse(packet[:n], fds, v)
	}
	if err != nil {
		for _, fd := range fds {
			unix.Close(fd)
		}
		return nil, err
	}
	return fds, nil
}

// parse reads a packet and the file that may have come with it, as the last of
// fds; it returns those that are the caller's.
func parse(packet []byte, fds []int, v any) ([]int, error) {
	text := packet[1:]
	switch packet[0] {
	case inPacket:
	case inFile:
		if len(fds) == 0 {
			return fds, ErrMalformed
		}
		last := len(fds) - 1
		file := os.NewFile(uintptr(fds[last]), "message")
		defer file.Close()
		var err error
		if text, err = readAll(file); err != nil {
			return fds[:last], err
		}
		fds = fds[:last]
	default:
		return fds, ErrMalformed
	}
	if json.Unmarshal(text, v) != nil {
		return fds, ErrMalformed
	}
	return fds, nil
}

// readAll returns what is in file, whatever its offset, which is shared with its sender.
func readAll(file *os.File) ([]byte, error) {
	st, err := file.Stat()
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.NewSectionReader(file, 0, st.Size()))
}
