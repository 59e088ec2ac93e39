package exec

import (
	"slices"

	"github.com/shardyard/shardyard/router/wire"
)

// source is one shard's portal.
type source struct {
	x      *Executor
	portal Portal
	seen   Description
	// statement is the name of the statement there, bind its values and formats for that shard.
	statement string
	bind      *wire.Bind
	shift     int    // characters in front of the statement in the client's text
	raw       []byte // the last row's frame
	// chunk is the number of rows asked for at a time, 0: all. Chunks are read to their end, so that the
	// connection is free for other statements while the portal is suspended.
	chunk  int32
	chunks [][]byte // frames of the chunk that were not returned yet
	asked  bool     // an Execute is under way
	done   bool     // the server has no more rows
}

// maxChunk bounds the rows of one shard that wait in memory.
const maxChunk = 1000

// ask sends an Execute for the next rows.
func (src *source) ask() error {
	l := src.portal.link
	l.out = wire.AppendExecute(l.out, src.portal.name, src.chunk)
	l.out = wire.AppendFlush(l.out)
	l.pipelined = true
	if err := src.x.send(l); err != nil {
		return err
	}
	src.asked = true
	return nil
}

// Next implements merge.Source.
func (src *source) Next() (row []byte, ok bool, err error) {
	for {
		if len(src.chunks) > 0 {
			src.raw, src.chunks = src.chunks[0], src.chunks[1:]
			return src.raw[5:], true, nil
		}
		if src.done {
			return nil, false, nil
		}
		if !src.asked {
			if err := src.ask(); err != nil {
				return nil, false, err
			}
		}
		if src.chunk > 0 {
			if err := src.readChunk(); err != nil {
				return nil, false, err
			}
			continue
		}
		if row, ok, err = src.read(); ok || err != nil {
			return row, ok, err
		}
	}
}

// readChunk reads the Execute under way to its end.
func (src *source) readChunk() error {
	src.chunks = nil
	for {
		_, ok, err := src.read()
		if err != nil || !ok {
			return err
		}
		src.chunks = append(src.chunks, slices.Clone(src.raw))
	}
}

// read takes one row of the Execute under way; ok is false at its end.
func (src *source) read() (row []byte, ok bool, err error) {
	l := src.portal.link
	for {
		frame, err := l.conn.Next()
		if err != nil {
			src.asked, src.done = false, true
			return nil, false, err
		}
		switch frame.Type {
		case wire.TypeDataRow:
			if err := src.translate(frame.Body); err != nil {
				return nil, false, err
			}
			src.raw = frame.Raw
			return frame.Body, true, nil
		case wire.TypeNotice:
			if err := src.x.passNotice(l, frame.Raw); err != nil {
				return nil, false, err
			}
		case wire.TypeErrorResponse:
			src.asked, src.done = false, true
			l.skipping = true
			return nil, false, l.serverError(frame.Body, &step{noPosition: src.portal.noPosition, shift: src.shift})
		case wire.TypePortalSuspended:
			src.asked = false
			return nil, false, nil
		case wire.TypeCommandComplete, wire.TypeEmptyQuery:
			src.asked, src.done = false, true
			return nil, false, nil
		}
	}
}

// translate rewrites OIDs of the shard within a row, in place.
func (src *source) translate(body []byte) error {
	rows := &src.portal.rows
	if !rows.active {
		return nil
	}
	return src.x.translateRow(src.portal.link, rows, body)
}
