package tcp

// maxPayload is the most that one segment carries: with the largest headers still a frame
// below gso_max_size, 64 KiB. A larger one the kernel would cut before it gives it to a veth,
// and for a packet socket that skips the queue it drops it (net/core/dev.c, __dev_direct_xmit).
const maxPayload = 65535 - sizeEthernet - sizeIPv6 - sizeTCP

// chunk is a piece of a queue: with room for what one segment may carry in either direction,
// so that what is read at once is sent at once.
type chunk struct {
	read, written int
	bytes         [64<<10 - 16]byte // with what is before it, whole pages
}

// pool keeps chunks that are free. What was used last is used next, while the processor has
// it in its cache.
type pool struct {
	free []*chunk
	used int // those that are not free
}

// maxFree is how many chunks a pool keeps, 4 MiB: what a few busy connections have on the way.
const maxFree = 64

// maxUsed is how many chunks all connections may use, 256 MiB: what containers' peers do not
// take is no memory of the containers', so that nothing else limits it. With more in use,
// each connection that needs any is left what one segment carries.
const (
	maxUsed    = 4096
	leastShare = 64 << 10
)

// share returns how many bytes a connection may have on its way in one direction: most, or
// less while all have too much.
func (p *pool) share(most int) int {
	if p.used < maxUsed {
		return most
	}
	return min(most, leastShare)
}

func (p *pool) get() *chunk {
	p.used++
	if n := len(p.free); n > 0 {
		c := p.free[n-1]
		p.free = p.free[:n-1]
		return c
	}
	return new(chunk)
}

func (p *pool) put(c *chunk) {
	p.used--
	if len(p.free) < maxFree {
		c.read, c.written = 0, 0
		p.free = append(p.free, c)
	}
}

// queue is bytes on their way. An empty one holds no memory to speak of.
type queue struct {
	chunks []*chunk // all but the last are written to their ends
	size   int
}

// room returns where the next bytes may be written; wrote says how many were.
func (q *queue) room(p *pool) []byte {
	const worthwhile = 4 << 10 // less is left over
	if n := len(q.chunks); n > 0 {
		if last := q.chunks[n-1]; len(last.bytes)-last.written >= worthwhile {
			return last.bytes[last.written:]
		}
	}
	c := p.get()
	q.chunks = append(q.chunks, c)
	return c.bytes[:]
}

func (q *queue) wrote(n int, p *pool) {
	last := q.chunks[len(q.chunks)-1]
	last.written += n
	q.size += n
	if last.written == 0 {
		q.chunks = q.chunks[:len(q.chunks)-1]
		p.put(last)
	}
}

func (q *queue) append(b []byte, p *pool) {
	for len(b) > 0 {
		n := copy(q.room(p), b)
		q.wrote(n, p)
		b = b[n:]
	}
}

// at returns the bytes that lie together from offset on.
func (q *queue) at(offset int) []byte {
	for _, c := range q.chunks {
		if n := c.written - c.read; offset < n {
			return c.bytes[c.read+offset : c.written]
		} else {
			offset -= n
		}
	}
	return nil
}

// drop forgets the first n bytes.
func (q *queue) drop(n int, p *pool) {
	q.size -= n
	done := 0
	for _, c := range q.chunks {
		if rest := c.written - c.read; n < rest {
			c.read += n
			break
		} else {
			n -= rest
		}
		p.put(c)
		done++
	}
	left := copy(q.chunks, q.chunks[done:])
	clear(q.chunks[left:])
	q.chunks = q.chunks[:left]
}

func (q *queue) release(p *pool) { q.drop(q.size, p) }
