package exec

import "encoding/binary"

// appendInteger appends an integer in the binary format of its type, which it fits into.
func appendInteger(dst []byte, oid uint32, n int64) []byte {
	switch oid {
	case 21:
		return binary.BigEndian.AppendUint16(dst, uint16(n))
	case 23:
		return binary.BigEndian.AppendUint32(dst, uint32(n))
	}
	return binary.BigEndian.AppendUint64(dst, uint64(n))
}
