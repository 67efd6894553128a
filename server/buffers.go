package server

import "sync"

// buffers lends byte slices in powers of two. It retains only a few of each size: memory that idles in a pool would otherwise be
// shared by all connections as if each of them held some (twenty buffers of 64 KiB are 80 bytes a connection at 16,000).
type buffers struct {
	classes [bufferClasses]bufferClass
}

const (
	bufferBytesLeast  = 64
	bufferClasses     = 12       // 64 bytes to 128 KiB; larger ones are the collector's
	bufferRetainBytes = 64 << 10 // of each class, but at least two buffers
)

type bufferClass struct {
	// mu guards free. A class has a lock of its own since loops, workers and senders all come here.
	mu   sync.Mutex
	free [][]byte
}

// class is the smallest class whose buffers hold so many bytes, or bufferClasses.
func class(bytes int) int {
	n := 0
	for size := bufferBytesLeast; size < bytes && n < bufferClasses; size <<= 1 {
		n++
	}
	return n
}

// get returns an empty buffer with room for so many bytes.
func (b *buffers) get(bytes int) []byte {
	n := class(bytes)
	if n == bufferClasses {
		return make([]byte, 0, bytes)
	}
	c := &b.classes[n]
	c.mu.Lock()
	if last := len(c.free) - 1; last >= 0 {
		buf := c.free[last]
		c.free[last] = nil
		c.free = c.free[:last]
		c.mu.Unlock()
		return buf
	}
	c.mu.Unlock()
	return make([]byte, 0, bufferBytesLeast<<n)
}

// put takes a buffer back; the caller and everybody it lent it to are done with it.
func (b *buffers) put(buf []byte) {
	n := class(cap(buf))
	if n == bufferClasses || cap(buf) != bufferBytesLeast<<n {
		return // not one of ours, or too large to keep
	}
	scribble(buf)
	c := &b.classes[n]
	c.mu.Lock()
	if len(c.free) < max(2, bufferRetainBytes/(bufferBytesLeast<<n)) {
		c.free = append(c.free, buf[:0])
	}
	c.mu.Unlock()
}

// grow returns the content of buf in a buffer with room for so many bytes in all, and takes the old one back.
func (b *buffers) grow(buf []byte, bytes int) []byte {
	if cap(buf) >= bytes {
		return buf
	}
	larger := append(b.get(bytes), buf...)
	if buf != nil {
		b.put(buf)
	}
	return larger
}

// extend is grow for who appends again and again: beyond the classes too the room at least doubles, or each of many small appends to
// a long backlog would copy all of it.
func (b *buffers) extend(buf []byte, bytes int) []byte {
	if cap(buf) >= bytes {
		return buf
	}
	return b.grow(buf, max(bytes, 2*cap(buf)))
}

// appendTo is append with extend.
func (b *buffers) appendTo(buf, data []byte) []byte {
	return append(b.extend(buf, len(buf)+len(data)), data...)
}
