// Package layer writes the layers of images to disk and deletes them: archives
// become directories that overlayfs can stack. It runs as root of the user
// namespace whose ids the files get, in a process of its own.
package layer

import "rbox/rootfs/image"

const (
	// DefaultMaxBytes bounds one unpacked layer: several times the largest that
	// are in common use (of machine-learning images, some 10 GiB).
	DefaultMaxBytes = 64 << 30
	// DefaultMaxEntries bounds the files of one layer, since a file system runs
	// out of inodes too. Large Python environments have some 500,000.
	DefaultMaxEntries = 4 << 20
)

// Options says how a layer is unpacked.
type Options struct {
	UIDs, GIDs []IDRange // the image's ids → ids of this namespace; none leaves them as they are
	Single     bool      // there is one id: every file is ours, true owners are kept in OwnerXattr
	MaxBytes   int64     // of the unpacked archive; 0 is DefaultMaxBytes
	MaxEntries int64     // in the archive; 0 is DefaultMaxEntries
	Sync       bool      // return only when all is on the disk
}

// Result tells what was unpacked.
type Result struct {
	DiffID  image.Digest // of the plain archive
	Packed  Compression
	Bytes   int64 // in regular files
	Plain   int64 // of the plain archive
	Entries int64 // in the archive

	OpaqueRoot    bool  // the layer hides all layers below it, which overlay cannot know of its root
	Unmapped      int64 // files whose owner has no id here; it is root's, the true one in OwnerXattr
	Devices       int64 // devices, for which empty files stand, with the device in OwnerXattr
	LostXattrs    int64 // attributes that the file system or the namespace refused
	FileWhiteouts int64 // deletions marked by .wh. files, where the file system refused overlay's own
}

// An IDRange maps Count ids of an image from From on to those from To on.
type IDRange struct{ From, To, Count uint32 }

// Compression is how an archive is packed.
type Compression int

const (
	Plain Compression = iota
	Gzip
	Zstd
	Xz
	Bzip2
)

func (c Compression) String() string {
	return [...]string{"plain", "gzip", "zstd", "xz", "bzip2"}[c]
}
