package exec

import (
	"context"
	"errors"
	"slices"
	"strconv"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner"
	"github.com/shardyard/shardyard/router/pgerr"
	"github.com/shardyard/shardyard/router/wire"
)

// The rows of an INSERT … SELECT that are on other shards than those that store them are read through portals, some at a
// time, and inserted as binary parameters of the types that the SELECT gives them: so each shard makes the conversions of an
// assignment. The portals' snapshots are older than the first insert, so what is inserted is never read.

const (
	// transferPortal and storePortal are the names of the portals: the client's may be in use.
	transferPortal = "shardyard_read"
	storePortal    = "shardyard_store"
	// transferRows and transferBytes bound a batch of rows that is inserted at once.
	transferRows  = 1000
	transferBytes = 1 << 20
)

// TransferRequest is an INSERT … SELECT whose rows are brought from shard to shard.
type TransferRequest struct {
	Data *planner.TransferData
	// Open opens the SELECT under the given name, in binary format.
	Open func(ctx context.Context, portal string) (Rows, error)
	// Bind has the values of the client's parameters and of the clocks, Types their types.
	Bind  *wire.Bind
	Types []uint32
	// Columns is the body of the RowDescription that the client gets, nil if it gets no rows; Bind has their formats.
	Columns []byte
	// Tag is the command tag, but for the number of rows.
	Tag     string
	Meaning string
	Portal  string
	// Statement makes a statement of a text.
	Statement func(sql string, types []uint32) Statement
	// Entries are those of DIRECTORY groups that are known; Resolve looks others up, or makes them.
	Entries *directory.Entries
	Resolve func(ctx context.Context, missing []directory.MissingEntry) (*directory.Entries, error)
	// Draw gives the next value of a number of Data.
	Draw func(ctx context.Context, n *planner.Number) (int64, error)
}

// Rows are the rows of a query in binary format: a Scatter or a Combination.
type Rows interface {
	// Columns is the body of the RowDescription.
	Columns() []byte
	// rows calls take for each row. Between two calls the session's connections are free for other statements.
	rows(ctx context.Context, take func(row []byte) error) error
	// end ends the reading, after an error if there was one; it returns the error to tell.
	end(ctx context.Context, err error) error
}

// Transfer is an INSERT … SELECT under way. It belongs to the goroutine of its Executor. Between two calls of Run nothing is in
// flight.
type Transfer struct {
	x       *Executor
	r       TransferRequest
	group   *directory.Group
	given   []int    // places of the row that are parameters
	types   []uint32 // of the values that the SELECT gives
	started bool
	frames  []byte // rows and notices for the client, not sent yet
	told    bool   // the client has got some of them
	stored  int64
	sent    int64
	batch   transferBatch
}

// transferBatch are the rows that are inserted next.
type transferBatch struct {
	rows   [][]byte
	shards []directory.ShardID // of each row
	bytes  int
}

// NewTransfer makes a Transfer. The caller has seen to it that the shards commit together, as for Modify.
func (x *Executor) NewTransfer(r TransferRequest) (*Transfer, error) {
	t := &Transfer{x: x, r: r, given: r.Data.Given()}
	if rows := r.Data.Rows; rows != nil {
		var ok bool
		if t.group, ok = x.view.Map.Group(rows.Filter.Group); !ok {
			return nil, pgerr.New(pgerr.StaleMap, "the partition map has changed").WithHint("Try again.")
		}
	}
	return t, nil
}

// Run inserts all rows, the first time it is called, and then sends the client up to maxRows returned rows (0: all), with their
// description in front if describe, and CommandComplete or PortalSuspended.
func (t *Transfer) Run(ctx context.Context, maxRows int32, describe bool) error {
	if t.r.Columns == nil {
		maxRows = 0
	}
	if t.started && t.r.Columns == nil {
		return pgerr.Newf("55000", "portal %q cannot be run", t.r.Portal)
	}
	if !t.started {
		t.started = true
		if err := t.x.cancelHeard(); err != nil {
			return err
		}
		if err := t.transfer(ctx, maxRows > 0, describe); err != nil {
			t.frames = nil
			return err
		}
	}
	if err := t.describe(describe); err != nil {
		return err
	}
	return t.send(maxRows)
}

// describe sends the description of the rows, once.
func (t *Transfer) describe(wanted bool) error {
	if !wanted || t.told || t.r.Columns == nil {
		return nil
	}
	t.told = true
	return t.x.out.Append(wire.AppendFrame(nil, wire.TypeRowDescription, t.r.Columns))
}

// send sends what was returned.
func (t *Transfer) send(maxRows int32) error {
	sent := int64(0)
	for len(t.frames) > 0 {
		if maxRows > 0 && sent == int64(maxRows) {
			t.x.out.Put(wire.AppendPortalSuspended)
			return nil
		}
		size := frameSize(t.frames)
		if t.frames[0] == wire.TypeDataRow {
			sent++
		}
		if err := t.x.out.Append(t.frames[:size]); err != nil {
			return err
		}
		t.frames = t.frames[size:]
	}
	if maxRows > 0 && sent == int64(maxRows) {
		t.x.out.Put(wire.AppendPortalSuspended)
		return nil
	}
	total := t.stored
	if t.r.Columns != nil {
		total = t.sent + sent
	}
	t.x.out.Put(func(dst []byte) []byte {
		return wire.AppendCommandComplete(dst, t.r.Tag+" "+strconv.FormatInt(total, 10))
	})
	return nil
}

// transfer reads all rows and inserts them.
func (t *Transfer) transfer(ctx context.Context, part, describe bool) error {
	source, err := t.r.Open(ctx, transferPortal)
	if err != nil {
		return err
	}
	return source.end(ctx, t.rows(ctx, source, part, describe))
}

func (t *Transfer) rows(ctx context.Context, source Rows, part, describe bool) error {
	if err := t.prepare(source); err != nil {
		return err
	}
	err := source.rows(ctx, func(row []byte) error {
		if err := t.add(ctx, row); err != nil || !t.full() {
			return err
		}
		if t.r.Data.Once {
			return pgerr.Newf("54000", "an INSERT … SELECT with ON CONFLICT DO UPDATE that brings more than %d rows or %d MiB from shard to shard is not supported", t.most(), maxReturned>>20).
				WithHint("Insert fewer rows in a statement.")
		}
		return t.flush(ctx, part, describe)
	})
	if err != nil {
		return err
	}
	return t.flush(ctx, part, describe)
}

// prepare learns the types of the values.
func (t *Transfer) prepare(source Rows) error {
	columns, err := wire.DecodeRowDescription(nil, source.Columns())
	if err != nil {
		return err
	}
	if len(columns) != t.r.Data.Columns {
		return pgerr.Newf(pgerr.InternalError, "the query of an INSERT gives %d columns, its plan says %d", len(columns), t.r.Data.Columns)
	}
	for _, c := range columns {
		t.types = append(t.types, c.Type)
	}
	t.types = append(t.types, t.r.Data.Integers()...)
	return nil
}

// most is the largest number of rows of a batch.
func (t *Transfer) most() int {
	fit := max(1, (maxParameters-len(t.r.Bind.Params))/max(1, len(t.given)))
	if t.r.Data.Once {
		return fit
	}
	return min(transferRows, fit)
}

// full reports whether the batch takes no further row, or (Once) has too many.
func (t *Transfer) full() bool {
	if t.r.Data.Once {
		return len(t.batch.rows) > t.most() || t.batch.bytes > maxReturned
	}
	return len(t.batch.rows) >= t.most() || t.batch.bytes >= transferBytes
}

// add puts a row into the batch.
func (t *Transfer) add(ctx context.Context, row []byte) error {
	copied, err := t.numbered(ctx, row)
	if err != nil {
		return err
	}
	shard := t.r.Data.Shard
	switch {
	case t.group != nil:
		if shard, err = t.locate(ctx, copied); err != nil {
			return err
		}
	case shard == "":
		shard = t.x.view.Map.Home
	}
	t.batch.rows, t.batch.shards = append(t.batch.rows, copied), append(t.batch.shards, shard)
	t.batch.bytes += len(copied)
	return nil
}

// numbered is a copy of a row with its numbers behind it.
func (t *Transfer) numbered(ctx context.Context, row []byte) ([]byte, error) {
	numbers := t.r.Data.Numbers
	if len(numbers) == 0 {
		return slices.Clone(row), nil
	}
	fields := wire.NewRow(row)
	values := make([][]byte, 0, t.r.Data.Columns+len(numbers))
	for range t.r.Data.Columns {
		value, ok := fields.Next()
		if !ok {
			return nil, errShortRow()
		}
		values = append(values, value)
	}
	for i := range numbers {
		n, err := t.r.Draw(ctx, &numbers[i])
		if err != nil {
			return nil, err
		}
		values = append(values, appendInteger(nil, numbers[i].Type, n))
	}
	return wire.AppendDataRow(nil, values)[5:], nil
}

func errShortRow() error {
	return pgerr.New(pgerr.InternalError, "a row of an INSERT … SELECT is cut short")
}

// flush inserts the batch, on all its shards at once.
func (t *Transfer) flush(ctx context.Context, part, describe bool) error {
	b := t.batch
	t.batch = transferBatch{}
	if len(b.rows) == 0 {
		return nil
	}
	var shards []directory.ShardID
	for _, shard := range b.shards {
		if !slices.Contains(shards, shard) {
			shards = append(shards, shard)
		}
	}
	slices.Sort(shards)
	if err := t.x.MayUse(ctx, shards, false); err != nil {
		return err
	}
	r := ModifyRequest{Meaning: t.r.Meaning, Portal: storePortal, EachRow: t.r.Data.Each, Blind: true}
	for _, shard := range b.shards {
		at, _ := slices.BinarySearch(shards, shard)
		r.Order = append(r.Order, int32(at))
	}
	for i, shard := range shards {
		piece, err := t.piece(shard, &b, r.Order, int32(i))
		if err != nil {
			return err
		}
		r.Pieces = append(r.Pieces, piece)
		if t.r.Data.Dirty {
			defer t.x.MarkDirty(shard)
		}
	}
	m, err := t.x.Modify(ctx, r)
	if err != nil {
		return err
	}
	if err := m.execute(ctx, true); err != nil {
		return m.fail(ctx, err)
	}
	return t.keep(ctx, m, part, describe)
}

// keep takes what the shards returned.
func (t *Transfer) keep(ctx context.Context, m *Modification, part, describe bool) error {
	for {
		frame, more, err := m.nextFrame()
		if err != nil {
			return m.fail(ctx, err)
		}
		if !more {
			break
		}
		if frame != nil {
			t.frames = append(t.frames, frame...)
		}
	}
	for _, p := range m.parts {
		if n, ok := wire.TagRows([]byte(p.tag)); ok {
			t.stored += n
		}
	}
	if err := m.Close(ctx); err != nil {
		return err
	}
	if len(t.frames) < maxReturned {
		return nil
	}
	if part {
		return pgerr.Newf("54000", "the rows returned exceed %d MiB, and only a part of them was asked for", maxReturned>>20).
			WithHint("Fetch all rows at once (without a row limit), or insert fewer rows in a statement.")
	}
	if err := t.describe(describe); err != nil {
		return err
	}
	for len(t.frames) > 0 {
		size := frameSize(t.frames)
		if t.frames[0] == wire.TypeDataRow {
			t.sent++
		}
		if err := t.x.out.Append(t.frames[:size]); err != nil {
			return err
		}
		t.frames = t.frames[size:]
	}
	t.frames = nil
	return nil
}

// piece is the INSERT of the rows of one shard.
func (t *Transfer) piece(shard directory.ShardID, b *transferBatch, order []int32, part int32) (Piece, error) {
	client := t.r.Bind
	bind := &wire.Bind{Params: slices.Clone(client.Params), ResultFormats: client.ResultFormats}
	for i := range client.Params {
		bind.Formats = append(bind.Formats, client.Format(i))
	}
	types := make([]uint32, len(client.Params))
	copy(types, t.r.Types)
	sql := []byte(t.r.Data.Head)
	first := true
	for i, row := range b.rows {
		if order[i] != part {
			continue
		}
		if !first {
			sql = append(sql, ", "...)
		}
		first = false
		sql = t.r.Data.AppendRow(sql, len(bind.Params)+1)
		values := wire.NewRow(row)
		for place := range t.types {
			value, ok := values.Next()
			if !ok {
				return Piece{}, errShortRow()
			}
			if !slices.Contains(t.given, place) {
				continue
			}
			bind.Formats, bind.Params = append(bind.Formats, 1), append(bind.Params, value)
			types = append(types, t.types[place])
		}
	}
	sql = append(sql, t.r.Data.Tail...)
	st := t.r.Statement(string(sql), types)
	st.NoPosition = true
	return Piece{Shard: shard, Statement: &st, Bind: bind, Types: types}, nil
}

// locate finds the shard of a row.
func (t *Transfer) locate(ctx context.Context, row []byte) (directory.ShardID, error) {
	rows := t.r.Data.Rows
	values := make([]directory.Value, len(rows.Key))
	for i, k := range rows.Key {
		var err error
		if k.Field < 0 {
			values[i], err = rows.Value(i)
		} else {
			values[i], err = t.key(i, k.Field, row)
		}
		if doomed(err) {
			return t.group.Shards()[0], nil // which says what is wrong with the value
		}
		if err != nil {
			return "", err
		}
	}
	for range maxLookUps {
		shard, missing, err := rows.Locate(t.group, t.r.Entries, values)
		if err != nil {
			return "", err
		}
		if missing == nil {
			return shard, nil
		}
		if t.r.Entries, err = t.r.Resolve(ctx, []directory.MissingEntry{*missing}); err != nil {
			return "", err
		}
	}
	return "", pgerr.New(pgerr.StaleMap, "the entries of the keys kept changing").WithHint("Try again.")
}

// doomed reports whether an error is about a value that the column takes on no shard.
func doomed(err error) bool {
	return errors.Is(err, directory.ErrInvalid) || errors.Is(err, directory.ErrOutOfRange)
}

// key is what column i of the key stores of the value in a place of a row.
func (t *Transfer) key(i, place int, body []byte) (directory.Value, error) {
	rows := t.r.Data.Rows
	row := wire.NewRow(body)
	var value []byte
	for range place + 1 {
		value, _ = row.Next()
	}
	if value == nil {
		return directory.Null(rows.Column(i).Type), nil
	}
	oid := t.x.view.Catalog.BaseType(t.types[place])
	err := directory.ErrUncertain
	if from, ok := directory.KeyTypeOf(oid); ok {
		var v directory.Value
		if v, err = directory.ParseBinary(from, value); err == nil {
			if v, err = rows.Stored(i, v); err == nil || doomed(err) {
				return v, err
			}
		}
	}
	if !errors.Is(err, directory.ErrUncertain) {
		return directory.Value{}, err
	}
	return directory.Value{}, pgerr.Unsupported(
		"the value of column "+strconv.Quote(rows.Column(i).Name)+" of the shard key is not certain: the query gives it as another type",
		"Cast the value to "+rows.Column(i).Type.String()+" in the query.")
}

// AppendDescription appends what the client is told of the rows: RowDescription or NoData.
func (t *Transfer) AppendDescription(dst []byte) []byte {
	if t.r.Columns == nil {
		return wire.AppendNoData(dst)
	}
	return wire.AppendFrame(dst, wire.TypeRowDescription, t.r.Columns)
}

// Fresh reports whether the statement was not run yet.
func (t *Transfer) Fresh() bool { return !t.started }

// Close forgets the rows that the client has not fetched.
func (t *Transfer) Close(context.Context) error {
	t.frames = nil
	return nil
}
