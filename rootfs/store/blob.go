package store

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"rbox/rootfs/image"
)

const (
	writeback    = 8 << 20            // bytes after which the disk is told to start writing
	blobChunk    = 128 << 10          // bytes read of a partial file at a time
	syncWorkers  = 16                 // files flushed at a time: they share the journal's commits
	partialLives = 7 * 24 * time.Hour // how long a download may wait to be resumed
	importPrefix = "import-"          // begins the names of partial files whose digest is not known yet
	maxSmallBlob = image.MaxConfigSize
)

// hasBlob says whether the blob is here, of the given size unless that is negative.
func (s *Store) hasBlob(d image.Digest, size int64) bool {
	st, err := os.Lstat(s.blobPath(d))
	return err == nil && st.Mode().IsRegular() && (size < 0 || st.Size() == size)
}

// ReadBlob returns a small blob: a manifest or a configuration, verified.
func (s *Store) ReadBlob(d image.Digest) ([]byte, error) {
	data, err := readSmall(s.blobPath(d))
	if err != nil {
		return nil, err
	}
	return data, d.Check(s.blobPath(d), data)
}

// putBlob keeps a small blob. It is not flushed: that waits for all that the
// file system has to write, and syncBlobs does it once for the whole image.
func (s *Store) putBlob(d image.Digest, data []byte) error {
	if err := d.Check("blob", data); err != nil {
		return err
	}
	if old, err := readSmall(s.blobPath(d)); err == nil && d.Check("", old) == nil {
		return nil
	}
	if err := os.MkdirAll(s.path("blobs", d.Algorithm()), 0o700); err != nil {
		return diskError(s.path("blobs"), err)
	}
	return replaceFile(s.blobPath(d), data, false)
}

// syncBlobs makes the blobs of m last across a power cut. Most are on the
// disk already, since writing started with the download.
func (s *Store) syncBlobs(m *Image) error {
	blobs := []image.Digest{m.ID, m.ManifestDigest}
	for _, l := range m.Layers {
		blobs = append(blobs, l.Digest)
	}
	var (
		wg   sync.WaitGroup
		busy = make(chan struct{}, syncWorkers)
		errs = make([]error, len(blobs))
		dirs = map[string]bool{}
	)
	for i, d := range blobs {
		dirs[s.path("blobs", d.Algorithm())] = true
		busy <- struct{}{}
		wg.Go(func() {
			errs[i] = syncFile(s.blobPath(d))
			<-busy
		})
	}
	wg.Wait()
	for dir := range dirs {
		errs = append(errs, syncDir(dir))
	}
	return errors.Join(errs...)
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return diskError(path, f.Sync())
}

// An ingest is a blob being written to a partial file, whose lock it holds.
type ingest struct {
	file   *os.File
	hash   hash.Hash
	size   int64 // bytes hashed, all of which are in the file
	synced int64 // bytes that the disk was told to write
}

// ingestBlob opens the partial file of d for this process alone, waiting for
// another that has it. It returns nil if the blob is here by then.
func (s *Store) ingestBlob(ctx context.Context, d image.Descriptor) (*ingest, error) {
	path := s.partialPath(d.Digest)
	f, err := lockFile(ctx, path, unix.LOCK_EX)
	if err != nil {
		return nil, err
	}
	if s.hasBlob(d.Digest, d.Size) {
		os.Remove(path)
		f.Close()
		return nil, nil
	}
	return &ingest{file: f, hash: d.Digest.Hash()}, nil
}

func (s *Store) partialPath(d image.Digest) string {
	return s.path("blobs", "partial", d.Algorithm()+"-"+d.Hex())
}

// ingestUnknown opens a new partial file for a blob whose digest its content will tell.
func (s *Store) ingestUnknown(ctx context.Context) (*ingest, error) {
	f, err := lockFile(ctx, s.path("blobs", "partial", importPrefix+random()), unix.LOCK_EX)
	if err != nil {
		return nil, err
	}
	return &ingest{file: f, hash: image.DigestOf(nil).Hash()}, nil
}

func (g *ingest) close() { g.file.Close() }

// discard closes g and deletes what it has.
func (g *ingest) discard() {
	os.Remove(g.file.Name())
	g.file.Close()
}

// restart forgets what was written.
func (g *ingest) restart() error {
	g.hash.Reset()
	g.size, g.synced = 0, 0
	if err := g.file.Truncate(0); err != nil {
		return err
	}
	_, err := g.file.Seek(0, io.SeekStart)
	return err
}

// Write adds b.
func (g *ingest) Write(b []byte) (int, error) {
	n, err := g.file.Write(b)
	g.add(b[:n])
	if g.size-g.synced >= writeback {
		// Flags alone start the writing and wait for nothing; where the file
		// system cannot, the sync at the end does it all.
		unix.SyncFileRange(int(g.file.Fd()), g.synced, g.size-g.synced, unix.SYNC_FILE_RANGE_WRITE)
		g.synced = g.size
	}
	return n, diskError(g.file.Name(), err)
}

func (g *ingest) add(b []byte) {
	g.hash.Write(b)
	g.size += int64(len(b))
}

// keep makes the partial file the blob d.
func (s *Store) keep(g *ingest, d image.Digest) error {
	if err := os.MkdirAll(s.path("blobs", d.Algorithm()), 0o700); err != nil {
		return diskError(s.path("blobs"), err)
	}
	if err := os.Rename(g.file.Name(), s.blobPath(d)); err != nil {
		return diskError(s.blobPath(d), err)
	}
	g.close()
	return nil
}

// A partialReader reads what an earlier attempt left in g's file, hashing it.
type partialReader struct{ g *ingest }

func (r partialReader) Read(p []byte) (int, error) {
	n, err := r.g.file.Read(p)
	r.g.add(p[:n])
	return n, err
}

// A blobReader reads a blob from its partial file as far as that goes, and
// then from where it is fetched, which fills the file. It ends only when the
// blob is complete and verified.
type blobReader struct {
	ctx      context.Context
	g        *ingest
	desc     image.Descriptor
	open     func(offset int64) (rc io.ReadCloser, from int64, err error)
	progress func(have int64)

	resumed bool // the partial file held something
	local   bool // its reading is over
	remote  io.ReadCloser
	err     error
}

// Read implements io.Reader.
func (r *blobReader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	n, err := r.read(p)
	if err == io.EOF {
		err = r.verify()
	}
	r.err = err
	if r.progress != nil {
		r.progress(r.g.size)
	}
	return n, err
}

func (r *blobReader) read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	if !r.local {
		n, err := partialReader{r.g}.Read(p)
		r.resumed = r.resumed || n > 0
		if n > 0 || err != io.EOF {
			return n, err
		}
		r.local = true
	}
	if r.g.size >= r.desc.Size {
		return 0, io.EOF
	}
	if r.remote == nil {
		if err := r.connect(); err != nil {
			return 0, err
		}
	}
	n, err := r.remote.Read(p)
	if n > 0 {
		if _, werr := r.g.Write(p[:n]); werr != nil {
			return 0, werr
		}
	}
	return n, err
}

// connect opens the rest of the blob.
func (r *blobReader) connect() error {
	offset := r.g.size
	rc, from, err := r.open(offset)
	if err != nil {
		return err
	}
	r.remote = rc
	if from > offset {
		return fmt.Errorf("%s: asked for byte %d on, the registry sends from %d on", r.desc.Digest, offset, from)
	}
	if _, err := io.CopyN(io.Discard, rc, offset-from); err != nil {
		return fmt.Errorf("%s: %w", r.desc.Digest, err)
	}
	return nil
}

func (r *blobReader) verify() error {
	switch got := r.desc.Digest.DigestFrom(r.g.hash); {
	case r.g.size < r.desc.Size:
		return fmt.Errorf("layer %s: %d of %d bytes: %w", r.desc.Digest.Short(), r.g.size, r.desc.Size, io.ErrUnexpectedEOF)
	case got != r.desc.Digest:
		return &image.DigestError{What: "layer " + r.desc.Digest.Short(), Want: r.desc.Digest, Got: got}
	}
	return io.EOF
}

func (r *blobReader) close() {
	if r.remote != nil {
		r.remote.Close()
	}
}

// checkBlob returns an error unless the blob is what its name says.
func (s *Store) checkBlob(d image.Digest) error {
	f, err := os.Open(s.blobPath(d))
	if err != nil {
		return err
	}
	defer f.Close()
	h := d.Hash()
	if _, err := io.CopyBuffer(h, f, make([]byte, blobChunk)); err != nil {
		return err
	}
	if got := d.DigestFrom(h); got != d {
		return &image.DigestError{What: s.blobPath(d), Want: d, Got: got}
	}
	return nil
}

// cleanPartial deletes imports that nobody works on any more, and downloads
// that nobody resumed for long.
func (s *Store) cleanPartial() {
	entries, _ := os.ReadDir(s.path("blobs", "partial"))
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			continue
		}
		if strings.HasPrefix(e.Name(), importPrefix) || time.Since(info.ModTime()) > partialLives {
			removeUnlocked(s.path("blobs", "partial", e.Name()))
		}
	}
	cleanOldTemp(s.path("blobs", "sha256"))
}

// cleanOldTemp deletes temporary files that are too old to be anyone's still:
// they are written at once.
func cleanOldTemp(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), tempPrefix) {
			continue
		}
		if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > time.Hour {
			os.Remove(dir + "/" + e.Name())
		}
	}
}

// removeUnlocked deletes path unless someone holds its lock.
func removeUnlocked(path string) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return
	}
	defer f.Close()
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil && isAt(f, path) {
		os.Remove(path)
	}
}
