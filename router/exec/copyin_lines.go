package exec

import (
	"encoding/binary"
	"strconv"
	"strings"
)

// lineMap knows for the last lines that a shard got which lines of the client's data they are. A shard names lines only that it
// reads, or has read among its last thousand rows, so what is older than all buffers on the way is forgotten.
type lineMap struct {
	shard, client int64 // numbers of the last line
	chunks        []lineChunk
}

// lineChunk is a run of rows: a byte for each, in the rule, with how far the client's line is behind that of the row before.
type lineChunk struct {
	shard, client int64 // the line before its first row
	steps         []byte
}

const (
	lineChunkSize = 32 << 10
	// maxLineChunks bounds the memory of one shard, to 4 MiB: more rows than the buffers of the network hold.
	maxLineChunks = 128
	// longStep is the step of a row that takes several lines, or is far behind the one before: two numbers follow.
	longStep = 0xff
)

// add notes a row that takes so many lines at the shard and ends at a line of the client's data.
func (m *lineMap) add(lines, client int64) {
	if n := len(m.chunks); n == 0 || len(m.chunks[n-1].steps) >= lineChunkSize {
		if n == maxLineChunks {
			m.chunks = m.chunks[:copy(m.chunks, m.chunks[1:])]
		}
		m.chunks = append(m.chunks, lineChunk{shard: m.shard, client: m.client})
	}
	chunk := &m.chunks[len(m.chunks)-1]
	if step := client - m.client; lines == 1 && step >= 0 && step < longStep {
		chunk.steps = append(chunk.steps, byte(step))
	} else {
		chunk.steps = append(chunk.steps, longStep)
		chunk.steps = binary.AppendVarint(chunk.steps, lines)
		chunk.steps = binary.AppendVarint(chunk.steps, step)
	}
	m.shard += lines
	m.client = client
}

// find returns the client's line of a line of the shard. A line behind the last row is the one behind it.
func (m *lineMap) find(line int64) (int64, bool) {
	if line > m.shard {
		return m.client + line - m.shard, true
	}
	for i := len(m.chunks) - 1; i >= 0; i-- {
		if chunk := &m.chunks[i]; line > chunk.shard {
			return chunk.find(line)
		}
	}
	return 0, false
}

func (k *lineChunk) find(line int64) (int64, bool) {
	shard, client := k.shard, k.client
	for rest := k.steps; len(rest) > 0; {
		lines, step := int64(1), int64(rest[0])
		rest = rest[1:]
		if step == longStep {
			var n int
			lines, n = binary.Varint(rest)
			rest = rest[n:]
			step, n = binary.Varint(rest)
			rest = rest[n:]
		}
		shard += lines
		client += step
		if line <= shard {
			return client - (shard - line), true
		}
	}
	return 0, false
}

// translated is the context of an error or notice of a shard, "COPY t, line 5, column …", with the client's line, and that line.
// named is false if it names none. A line that is forgotten is told as the shard's.
func (m *lineMap) translated(where, table string) (text string, line int64, named bool) {
	prefix := "COPY " + table + ", "
	at := 0
	if !strings.HasPrefix(where, prefix) {
		if at = strings.Index(where, "\n"+prefix) + 1; at == 0 {
			return where, 0, false
		}
	}
	// The word for "line" is in the language of lc_messages.
	from := strings.IndexAny(where[at+len(prefix):], "0123456789\n")
	if from < 0 {
		return where, 0, false
	}
	from += at + len(prefix)
	end := from
	for end < len(where) && where[end] >= '0' && where[end] <= '9' {
		end++
	}
	n, err := strconv.ParseInt(where[from:end], 10, 64)
	if err != nil {
		return where, 0, false
	}
	line, ok := m.find(n)
	if !ok {
		return where[:end] + " of the rows for this shard" + where[end:], 0, true
	}
	return where[:from] + strconv.FormatInt(line, 10) + where[end:], line, true
}
