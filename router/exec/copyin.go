package exec

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner"
	"github.com/shardyard/shardyard/router/copyrow"
	"github.com/shardyard/shardyard/router/pgerr"
	"github.com/shardyard/shardyard/router/wire"
)

// CopyInRequest is a COPY … FROM STDIN into a sharded table.
type CopyInRequest struct {
	// Shards are those that hold partitions of the table.
	Shards []directory.ShardID
	// SQL is the client's text; shards get that of Copy.Rows if it has one.
	SQL  string
	Copy *planner.CopyData
	// Shift is added to error positions.
	Shift int
	// Encoding is the session's client_encoding.
	Encoding string
	// RowBound is the largest number of bytes of a row. Defaults to DefaultCopyRow.
	RowBound int
	// Entries are those of DIRECTORY groups that are known; Resolve looks others up, or makes them.
	Entries *directory.Entries
	Resolve func(ctx context.Context, missing []directory.MissingEntry) (*directory.Entries, error)
	// Draw gives the next value of a number of Copy.Rows.
	Draw func(ctx context.Context, n *planner.Number) (int64, error)
	// Dirty: the statement may leave session state behind on the shards.
	Dirty bool
}

// DefaultCopyRow is the largest number of bytes of a row of a COPY FROM STDIN into a sharded table.
const DefaultCopyRow = copyrow.DefaultRowBound

// copyIn is a COPY FROM STDIN whose rows go to several shards. Between two calls the client's data is waited for; what was
// sent to shards may still be on its way. The rows of a shard go there as the client wrote them, so what is wrong with a row says
// Postgres; a row of which the shard cannot be told, as its key is no value, is sent to any.
type copyIn struct {
	x        *Executor
	r        CopyInRequest
	rows     *planner.CopyRows
	group    *directory.Group
	types    []directory.KeyType // of the key's columns
	fields   []int               // the wanted fields of a row, ascending
	keyAt    []int               // for each key column its place in fields, -1: its default
	oidAt    []int               // places in fields of those whose binary form may hold OIDs
	written  copyrow.Options
	splitter *copyrow.Splitter
	reader   *copyrow.Fields
	unsplit  int  // bytes that have not been looked at
	foreign  bool // the data is not in UTF-8
	prefix   []byte
	header   *copyrow.Row // the first line, which every shard gets
	parts    []*copyPart
	last     *copyPart // got the last row
	listened int       // the part that is listened to next
	values   []directory.Value
	extended []byte    // rows with the numbers in front, as long as they are held
	held     []heldRow // rows behind one whose key has to be asked for
	line     int64     // of the last row
	// doomed has got a row that it must refuse; no other is sent after it.
	doomed     *copyPart
	doomedLine int64
}

// maxHeldRows bounds the rows that wait for the keys that are asked for.
const maxHeldRows = 1000

// CopyIn starts a COPY FROM STDIN. The caller has seen to it that the shards commit together, as for Modify. When it returns
// without an error the client has been told to send its data: see CopyingIn.
func (x *Executor) CopyIn(ctx context.Context, r CopyInRequest) error {
	if err := x.cancelHeard(); err != nil {
		return err
	}
	if err := x.DrainAll(ctx); err != nil {
		return err
	}
	c := &copyIn{x: x, r: r, rows: r.Copy.Rows}
	if err := c.prepare(); err != nil {
		return err
	}
	first := r.Shards[0]
	for i := len(r.Shards) - 1; i >= 0; i-- {
		if x.Holds(r.Shards[i]) {
			first = r.Shards[i]
		}
	}
	if err := x.linkAll(ctx, r.Shards); err != nil {
		return err
	}
	p, err := c.open(ctx, first)
	if err != nil {
		return err
	}
	for err == nil && !p.started && !p.done {
		err = p.read(ctx)
	}
	if err == nil && p.failed == nil {
		err = c.refusal()
	}
	if err == nil && p.failed == nil {
		err = x.out.Append(c.told(p.response))
	}
	if err != nil || p.failed != nil {
		return c.end(c.abort(ctx, err, 0))
	}
	x.spread = c
	return nil
}

// prepare works out where the keys of a row stand.
func (c *copyIn) prepare() error {
	var ok bool
	if c.group, ok = c.x.view.Map.Group(c.rows.Filter.Group); !ok || len(c.r.Shards) == 0 {
		return pgerr.New(pgerr.StaleMap, "the partition map has changed").WithHint("Try again.")
	}
	wanted := make([]bool, len(c.rows.Types))
	for i, k := range c.rows.Key {
		c.types = append(c.types, c.rows.Column(i).Type)
		if k.Field >= 0 {
			wanted[k.Field] = true
		}
	}
	binary := c.r.Copy.Format == "binary"
	for i, t := range c.rows.Types {
		if binary && t != 0 && c.x.view.Catalog != nil && (c.x.view.Catalog.BinaryCarriesOIDs(t)) {
			c.oidAt = append(c.oidAt, len(c.fields))
			wanted[i] = true
		}
		if wanted[i] {
			c.fields = append(c.fields, i)
		}
	}
	for _, k := range c.rows.Key {
		at := -1
		for place, field := range c.fields {
			if field == k.Field {
				at = place
			}
		}
		c.keyAt = append(c.keyAt, at)
	}
	c.values = make([]directory.Value, len(c.rows.Key))
	o := c.options()
	c.written = o
	c.splitter, c.reader = copyrow.New(o), copyrow.NewFields(o, c.fields)
	return nil
}

func (c *copyIn) options() copyrow.Options {
	first := func(text string) byte {
		if text == "" {
			return 0
		}
		return text[0]
	}
	o := copyrow.Options{
		Header: c.r.Copy.Header, Columns: len(c.rows.Types) - len(c.rows.Numbers), RowBound: c.r.RowBound,
		Delimiter: first(c.rows.Delimiter), Quote: first(c.rows.Quote), Escape: first(c.rows.Escape),
		Null: c.rows.Null, HasNull: c.rows.HasNull, Default: c.rows.Default, HasDefault: c.rows.HasDefault,
		ForceNotNull: c.rows.ForceNotNull, ForceNull: c.rows.ForceNull, NoMarkerInCSV: c.rows.NoMarkerInCSV,
	}
	switch c.r.Copy.Format {
	case "csv":
		o.Format = copyrow.CSV
	case "binary":
		o.Format, o.Header = copyrow.Binary, false
	}
	return o
}

// refusal is why a COPY that a shard finds nothing wrong with cannot be run.
func (c *copyIn) refusal() error {
	if c.rows.Refusal != nil {
		return c.rows.Refusal
	}
	encoding := c.rows.Encoding
	if encoding == "" || c.r.Copy.Format == "binary" {
		encoding = c.r.Encoding
	}
	c.foreign = encodingName(encoding) != "utf8" && encodingName(encoding) != "unicode" || c.x.view.Catalog.Encoding != "UTF8"
	if c.r.Copy.Format != "binary" && mixesASCII(encoding) {
		return pgerr.Unsupported("COPY of data in encoding "+encoding+" into a sharded table is not supported: characters of it hold bytes of ASCII",
			"Convert the data to UTF8.")
	}
	return nil
}

// encodingName is the name without what Postgres ignores in it.
func encodingName(name string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return -1
	}, name)
}

// mixesASCII reports the encodings that only clients may have, as bytes of their characters may look like ASCII.
func mixesASCII(encoding string) bool {
	switch encodingName(encoding) {
	case "sjis", "mskanji", "shiftjis", "shiftjis2004", "win932", "windows932", "big5", "win950", "windows950",
		"gbk", "win936", "windows936", "gb18030", "johab", "uhc", "win949", "windows949":
		return true
	}
	return false
}

// data takes data of the client. ended: the COPY is over, by an error.
func (c *copyIn) data(ctx context.Context, data []byte) (ended bool, err error) {
	if c.doomed != nil || c.splitter.Done() {
		return false, nil
	}
	c.splitter.Write(data)
	if c.unsplit += len(data); c.unsplit < batchBound {
		return false, nil
	}
	return c.work(ctx)
}

// work divides the data that has come.
func (c *copyIn) work(ctx context.Context) (ended bool, err error) {
	if err := c.x.cancelHeard(); err != nil {
		return true, c.end(c.abort(ctx, err, 0))
	}
	if c.unsplit == 0 {
		return false, nil
	}
	c.unsplit = 0
	if err = c.split(ctx); err == nil {
		return false, nil
	}
	return true, c.end(c.failed(ctx, err))
}

// end forgets the COPY.
func (c *copyIn) end(err error) error {
	c.x.spread = nil
	c.x.Idle()
	return err
}

// errPart says that a shard has reported an error, which is in its part.
var errPart = errors.New("a shard ended the copy")

// failed ends the COPY on all shards after an error of ours or of a shard, and returns the one to tell.
func (c *copyIn) failed(ctx context.Context, err error) error {
	if errors.Is(err, errPart) {
		err = nil
	}
	return c.abort(ctx, err, c.line)
}

// split divides the rows that have come.
func (c *copyIn) split(ctx context.Context) error {
	for c.doomed == nil {
		row, ok, err := c.splitter.Next()
		if err != nil {
			var long *copyrow.TooLongError
			if errors.As(err, &long) {
				c.line = long.Line
			}
			return c.at(pgerr.Of(err).WithHint("Split the row, or copy it into the shard itself."), nil)
		}
		if !ok {
			break
		}
		c.line = row.Line
		switch row.Kind {
		case copyrow.Header:
			err = c.takeHeader(ctx, &row)
		case copyrow.Malformed:
			err = c.doom(ctx, &row)
		default:
			if row, err = c.numbered(ctx, &row); err == nil {
				err = c.divide(ctx, &row)
			}
		}
		if err != nil {
			return err
		}
	}
	return c.release(ctx)
}

// takeHeader keeps what every shard gets first.
func (c *copyIn) takeHeader(ctx context.Context, row *copyrow.Row) error {
	c.prefix = append([]byte(nil), row.Raw...)
	if c.r.Copy.Format != "binary" {
		kept := *row
		kept.Raw = c.prefix
		c.header = &kept
	}
	for _, p := range c.parts {
		if err := p.begin(ctx); err != nil {
			return err
		}
	}
	return nil
}

// divide sends a row to its shard.
func (c *copyIn) divide(ctx context.Context, row *copyrow.Row) error {
	fields := c.reader.Of(row)
	v, err := c.key(fields, false)
	switch {
	case err != nil:
		if released := c.release(ctx); released != nil || c.doomed != nil {
			return released
		}
		c.line = row.Line
		return c.at(pgerr.Of(err), row)
	case v == keyBad && len(c.held) == 0:
		return c.doomRow(ctx, row)
	case v == keyKnown && len(c.held) == 0:
		if placed, err := c.place(ctx, row, c.values, c.r.Entries); placed || err != nil {
			return err
		}
	}
	return c.hold(ctx, row, fields)
}

// place sends a row to the shard of its key; it reports false if an entry has to be looked up first.
func (c *copyIn) place(ctx context.Context, row *copyrow.Row, values []directory.Value, entries *directory.Entries) (bool, error) {
	shard, missing, err := c.rows.Locate(c.group, entries, values)
	if err != nil {
		c.line = row.Line
		e := c.at(pgerr.Of(err), row)
		e.Schema, e.Table = c.r.Copy.Table.Schema, c.r.Copy.Table.Name
		return false, e
	}
	if missing != nil {
		return false, nil
	}
	p, err := c.part(ctx, shard)
	if err != nil {
		return false, err
	}
	c.last = p
	return true, p.add(ctx, row)
}

// doom sends a row that every server refuses to one that has seen rows before: it knows the style of newlines.
func (c *copyIn) doom(ctx context.Context, row *copyrow.Row) error {
	if err := c.release(ctx); err != nil || c.doomed != nil {
		return err
	}
	malformed, err := c.malformed(row)
	if err != nil {
		return err
	}
	return c.doomRow(ctx, &malformed)
}

func (c *copyIn) doomRow(ctx context.Context, row *copyrow.Row) error {
	p := c.last
	if p == nil {
		p = c.parts[0]
	}
	c.doomed, c.doomedLine = p, row.Line
	return p.add(ctx, row)
}

// part is the part of a shard, which is begun with its first row.
func (c *copyIn) part(ctx context.Context, shard directory.ShardID) (*copyPart, error) {
	for _, p := range c.parts {
		if p.link.shard == shard {
			return p, nil
		}
	}
	p, err := c.open(ctx, shard)
	if err == nil && c.prefix != nil {
		err = p.begin(ctx)
	}
	return p, err
}

// listen reads what a part and another one have to say.
func (c *copyIn) listen(ctx context.Context, p *copyPart) error {
	c.listened = (c.listened + 1) % len(c.parts)
	for _, heard := range []*copyPart{p, c.parts[c.listened]} {
		for !heard.done && heard.link.conn.Readable() {
			if err := heard.read(ctx); err != nil {
				return err
			}
		}
		if heard.failed != nil {
			return errPart
		}
	}
	return nil
}

// finish ends the COPY after CopyDone of the client, and answers it.
func (c *copyIn) finish(ctx context.Context) error {
	c.splitter.End()
	err := c.split(ctx)
	if err == nil && c.doomed != nil {
		err = errPart
	}
	if err == nil {
		err = c.complete(ctx)
	}
	if err != nil {
		return c.end(c.failed(ctx, err))
	}
	var rows int64
	for _, p := range c.parts {
		rows += p.rows
	}
	c.x.out.Put(func(dst []byte) []byte {
		return wire.AppendCommandComplete(dst, "COPY "+strconv.FormatInt(rows, 10))
	})
	return c.end(nil)
}

// clientEnd takes the CopyDone or CopyFail of the client.
func (c *copyIn) clientEnd(ctx context.Context, frame []byte) error {
	if frame[0] == wire.TypeCopyDone {
		return c.finish(ctx)
	}
	reason, err := wire.DecodeCopyFail(frame[copyHeader:])
	if err != nil {
		return c.end(c.abort(ctx, err, 0))
	}
	c.line++
	return c.end(c.abort(ctx, c.at(pgerr.New(pgerr.QueryCanceled, "COPY from stdin failed: "+string(reason)), nil), c.line))
}

// complete sends the rest and waits for all shards.
func (c *copyIn) complete(ctx context.Context) error {
	for _, p := range c.parts {
		if c.r.Copy.Format == "binary" && c.prefix != nil {
			p.out = append(p.out, copyrow.Trailer...)
		}
		if err := p.stop(ctx); err != nil {
			return err
		}
		// gofail: var afterCopyEnd struct{}
	}
	for _, p := range c.parts {
		if err := p.awaitEnd(ctx); err != nil {
			return err
		}
		if p.failed != nil {
			return errPart
		}
	}
	return nil
}

// at adds where in the data an error of ours is, as Postgres does.
func (c *copyIn) at(e *pgerr.Error, row *copyrow.Row) *pgerr.Error {
	where := "COPY " + c.r.Copy.Table.Name + ", line " + strconv.FormatInt(c.line, 10)
	if row != nil && c.r.Copy.Format != "binary" {
		where += `: "` + shortened(row.Body()) + `"`
	}
	copied := *e
	return (&copied).Within(where)
}

// maxShown is how much of a row an error shows (MAX_COPY_DATA_DISPLAY).
const maxShown = 100

func shortened(line []byte) string {
	if len(line) <= maxShown {
		return string(line)
	}
	n := maxShown
	for n > 0 && line[n]&0xc0 == 0x80 {
		n--
	}
	return string(line[:n]) + "..."
}
