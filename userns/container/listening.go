package container

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Messages of sock_diag(7), for unix domain sockets (linux/unix_diag.h).
const (
	diagByFamily  = 20      // SOCK_DIAG_BY_FAMILY
	diagListening = 1 << 10 // the state TCP_LISTEN, of all families
	diagShowVFS   = 2       // UDIAG_SHOW_VFS
	diagVFS       = 1       // UNIX_DIAG_VFS: inode and device, 32 bits each
	diagHeader    = 16      // bytes of struct unix_diag_msg
)

// A socketFile is the file of a unix domain socket as sock_diag shows it: its
// device and the lower half of its inode's number. 0 is none.
type socketFile uint64

func socketFileOf(dev, inode uint64) socketFile {
	// Not in the encoding of stat(2), but with 20 bits of the minor number (linux/kdev_t.h).
	return socketFile(unix.Major(dev)<<20|unix.Minor(dev))<<32 | socketFile(uint32(inode))
}

// listeningSockets are the files of all sockets of this network namespace that
// somebody listens on. Where the kernel does not tell, there are none.
func listeningSockets() map[socketFile]bool {
	found := map[socketFile]bool{}
	sock, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return found
	}
	defer unix.Close(sock)
	b := binary.NativeEndian.AppendUint32(nil, unix.SizeofNlMsghdr+24) // of all that follows
	b = binary.NativeEndian.AppendUint16(b, diagByFamily)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	b = append(b, make([]byte, 8)...)    // its number, and whose it is
	b = append(b, unix.AF_UNIX, 0, 0, 0) // struct unix_diag_req
	b = binary.NativeEndian.AppendUint32(b, diagListening)
	b = binary.NativeEndian.AppendUint32(b, 0) // of any inode
	b = binary.NativeEndian.AppendUint32(b, diagShowVFS)
	b = append(b, make([]byte, 8)...) // no cookie
	if unix.Sendto(sock, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}) != nil {
		return found
	}
	for b = make([]byte, 32<<10); ; { // as much as the kernel gives at once
		n, err := unix.Read(sock, b)
		if err != nil || n == 0 || !diagMessages(b[:n], found) {
			return found
		}
	}
}

// diagMessages adds the sockets of a reply to found. It returns false once there
// are no more to come.
func diagMessages(b []byte, found map[socketFile]bool) bool {
	for len(b) >= unix.SizeofNlMsghdr {
		size := int(binary.NativeEndian.Uint32(b))
		if binary.NativeEndian.Uint16(b[4:]) != diagByFamily || size < unix.SizeofNlMsghdr+diagHeader || size > len(b) {
			return false // NLMSG_DONE, NLMSG_ERROR
		}
		if file := diagFile(b[unix.SizeofNlMsghdr+diagHeader : size]); file != 0 {
			found[file] = true
		}
		b = b[min((size+3)&^3, len(b)):] // NLMSG_ALIGN
	}
	return len(b) == 0
}

// diagFile finds the socket's file among the attributes (rtnetlink(7)) of a message.
func diagFile(b []byte) socketFile {
	for len(b) >= unix.SizeofRtAttr {
		size := int(binary.NativeEndian.Uint16(b))
		if size < unix.SizeofRtAttr || size > len(b) {
			break
		}
		if binary.NativeEndian.Uint16(b[2:]) == diagVFS && size >= unix.SizeofRtAttr+8 {
			return socketFile(binary.NativeEndian.Uint32(b[8:]))<<32 | socketFile(binary.NativeEndian.Uint32(b[4:]))
		}
		b = b[min((size+3)&^3, len(b)):]
	}
	return 0
}
