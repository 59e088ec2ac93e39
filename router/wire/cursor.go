package wire

import (
	"encoding/binary"
	"unsafe"
)

// View returns the bytes as a string without copying. It is valid only as long as the frame that b views is;
// clone it to keep it.
func View(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// cursor reads a message's body from front to back. After the first read past the end, bad is set and every read
// returns the zero value, so a decoder checks once, at its end.
type cursor struct {
	rest []byte
	bad  bool
	text bool // what is bad is a string
}

func (c *cursor) take(n int) []byte {
	if n < 0 || n > len(c.rest) || c.bad {
		c.bad = true
		return nil
	}
	b := c.rest[:n:n]
	c.rest = c.rest[n:]
	return b
}

func (c *cursor) byte() byte {
	if b := c.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (c *cursor) int16() int16 {
	if b := c.take(2); b != nil {
		return int16(binary.BigEndian.Uint16(b))
	}
	return 0
}

func (c *cursor) uint32() uint32 {
	if b := c.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (c *cursor) int32() int32 { return int32(c.uint32()) }

func (c *cursor) string() []byte {
	value, rest, ok := cutString(c.rest)
	if !ok || c.bad {
		c.text = c.text || !c.bad
		c.bad = true
		return nil
	}
	c.rest = rest
	return value
}

// count reads a number of elements of at least size bytes each, so that it bounds what is allocated for them.
func (c *cursor) count(size int) int {
	n := int(uint16(c.int16()))
	if n*size > len(c.rest) {
		c.bad = true
		return 0
	}
	return n
}

// value reads a length and as many bytes; nil stands for NULL (length -1), an empty value is not nil.
func (c *cursor) value() []byte {
	n := c.int32()
	if n == -1 {
		return nil
	}
	if b := c.take(int(n)); !c.bad {
		if b == nil {
			return []byte{}
		}
		return b
	}
	return nil
}

// end reports a message that was too short or too long, in Postgres's words.
func (c *cursor) end() error {
	switch {
	case c.text:
		return malformed("invalid string in message")
	case c.bad:
		return malformed("insufficient data left in message")
	case len(c.rest) != 0:
		return malformed("invalid message format")
	}
	return nil
}

func appendString(dst []byte, s string) []byte {
	dst = append(dst, s...)
	return append(dst, 0)
}

// begin appends the header of a message whose length finish sets.
func begin(dst []byte, kind byte) (_ []byte, at int) {
	return append(dst, kind, 0, 0, 0, 0), len(dst)
}

func finish(dst []byte, at int) []byte {
	binary.BigEndian.PutUint32(dst[at+1:], uint32(len(dst)-at-1))
	return dst
}

func appendInt16(dst []byte, v int) []byte { return binary.BigEndian.AppendUint16(dst, uint16(v)) }

func appendUint32(dst []byte, v uint32) []byte { return binary.BigEndian.AppendUint32(dst, v) }

func appendValue(dst, value []byte) []byte {
	if value == nil {
		return append(dst, 0xff, 0xff, 0xff, 0xff)
	}
	dst = appendUint32(dst, uint32(len(value)))
	return append(dst, value...)
}
