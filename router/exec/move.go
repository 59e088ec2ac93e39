package exec

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner"
	"github.com/shardyard/shardyard/router/backend"
	"github.com/shardyard/shardyard/router/pgerr"
	"github.com/shardyard/shardyard/router/wire"
)

// An UPDATE that may change shard keys is run by every shard on the rows that it has, as Postgres would: expressions,
// constraints, cascades. Its rows come back with their new keys. Those whose key belongs to another shard are deleted
// where they are and inserted there, all within the transaction and before the client hears of anything.

// movePortal is the name of the portals that move rows: the client's may be in use.
const movePortal = "shardyard_move"

// maxParameters bounds the parameters of one INSERT; the protocol counts them in 16 bits.
const maxParameters = 60_000

// journey are the rows of one table that leave one shard.
type journey struct {
	from directory.ShardID
	keys [][]*string // distinct, of the rows that leave
	seen map[string]bool
	rows int
}

// move brings rows that were given keys of other shards there.
func (m *Modification) move(ctx context.Context) error {
	data := m.request.Move
	target := &data.Tables[0]
	if err := m.resolve(ctx, target, data.Hidden); err != nil {
		return err
	}
	var journeys []*journey
	changed := 0
	shards := make([]directory.ShardID, 0, len(m.parts))
	for _, p := range m.parts {
		j := &journey{from: p.portal.link.shard, seen: make(map[string]bool)}
		err := p.eachRow(func(row []byte) error {
			changed++
			key, err := lastTexts(row, data.Hidden)
			if err != nil {
				return err
			}
			to, err := m.destination(target, key)
			if err != nil || to == j.from {
				return err
			}
			j.add(key)
			if !slices.Contains(shards, to) {
				shards = append(shards, to)
			}
			return nil
		})
		if err != nil {
			return err
		}
		if j.rows > 0 {
			journeys = append(journeys, j)
		}
		if !data.Returning {
			p.dropRows()
		}
	}
	if len(journeys) == 0 {
		return nil
	}
	if data.Chained && changed > 1 {
		return pgerr.Unsupported(
			fmt.Sprintf("an UPDATE that gives several rows of table %s keys of other shards is not supported where the new value of one row may be the old value of another under a unique constraint", target.Filter.Table),
			"Give all rows one value, or change the rows one by one.")
	}
	if err := m.x.MayUse(ctx, shards, false); err != nil {
		return err
	}
	return m.travel(ctx, data, journeys)
}

// destination is where a row with this key belongs.
func (m *Modification) destination(t *planner.MovedTable, key []*string) (directory.ShardID, error) {
	to, missing, err := t.Shard(m.x.view.Map, m.request.Entries, key)
	if err == nil && missing != nil {
		err = pgerr.Newf(pgerr.InternalError, "the entry of a new key of table %s is not known", t.Filter.Table)
	}
	return to, err
}

// resolve has the entries of all new keys of a DIRECTORY table looked up or made.
func (m *Modification) resolve(ctx context.Context, target *planner.MovedTable, hidden int) error {
	if g, ok := m.x.view.Map.Group(target.Filter.Group); !ok || g.Method != directory.MethodDirectory {
		return nil
	}
	var missing []directory.MissingEntry
	seen := make(map[string]bool)
	for _, p := range m.parts {
		err := p.eachRow(func(row []byte) error {
			key, err := lastTexts(row, hidden)
			if err != nil {
				return err
			}
			text := arrayOf(key)
			if seen[text] {
				return nil
			}
			seen[text] = true
			// All that are not placed already are asked for together: what the cache knows it may forget meanwhile.
			if _, entry, err := target.Shard(m.x.view.Map, nil, key); err == nil && entry != nil {
				missing = append(missing, *entry)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if len(missing) == 0 {
		return nil
	}
	entries, err := m.request.Resolve(ctx, missing)
	m.request.Entries = entries
	return err
}

func (j *journey) add(key []*string) {
	j.rows++
	text := arrayOf(key)
	if !j.seen[text] {
		j.seen[text] = true
		j.keys = append(j.keys, key)
	}
}

// travel deletes the rows where they are, those that follow others first, and inserts them where they belong, those
// that others refer to first.
func (m *Modification) travel(ctx context.Context, data *planner.MoveData, journeys []*journey) error {
	luggage := make([]map[directory.ShardID][][]byte, len(data.Tables)) // rows for each shard, by table
	kept := 0
	for i := len(data.Tables) - 1; i >= 0; i-- {
		t := &data.Tables[i]
		luggage[i] = make(map[directory.ShardID][][]byte)
		for _, j := range journeys {
			rows, err := m.take(ctx, t, j)
			if err != nil {
				return err
			}
			// gofail: var afterTake struct{}
			if i == 0 && len(rows) != j.rows {
				return pgerr.Newf(pgerr.InternalError, "%d rows of table %s were to leave shard %s, and %d were found", j.rows, t.Filter.Table, j.from, len(rows))
			}
			for _, row := range rows {
				if kept += len(row); kept > maxReturned {
					return pgerr.Newf("54000", "the rows that go to other shards exceed %d MiB", maxReturned>>20).
						WithHint("Change fewer rows in a statement.")
				}
				key, err := lastTexts(row, data.Hidden)
				if err != nil {
					return err
				}
				to, err := m.destination(t, key)
				if err != nil {
					return err
				}
				luggage[i][to] = append(luggage[i][to], row)
			}
		}
	}
	for i := range data.Tables {
		for _, shard := range m.x.view.Map.Shards {
			if err := m.settle(ctx, &data.Tables[i], shard.ID, luggage[i][shard.ID]); err != nil {
				return err
			}
			// gofail: var afterArrival struct{}
		}
	}
	return nil
}

// take deletes the rows of a table that have one of the keys, and returns them: the bodies of DataRows in binary, with
// the home shard's OIDs and the key as text at the end.
func (m *Modification) take(ctx context.Context, t *planner.MovedTable, j *journey) ([][]byte, error) {
	sql, params := takeSQL(t, j.keys)
	part, err := m.within(ctx, j.from, sql, slices.Repeat([]uint32{textArrayOID}, len(params)), nil, params)
	if err != nil {
		return nil, err
	}
	var rows [][]byte
	err = part.eachRow(func(row []byte) error {
		rows = append(rows, row)
		return nil
	})
	return rows, err
}

// textArrayOID is the OID of text[].
const textArrayOID = 1009

// takeSQL is the DELETE of take. Each parameter is a column of the keys.
func takeSQL(t *planner.MovedTable, keys [][]*string) (sql string, params [][]byte) {
	columns := t.Key()
	null := slices.ContainsFunc(keys, func(key []*string) bool { return slices.Contains(key, nil) })
	var mine, theirs, arrays, same []string
	for i, c := range columns {
		name, unnested := "m."+directory.QuoteIdentifier(c.Name), "k.c"+strconv.Itoa(i+1)
		mine, theirs = append(mine, name), append(theirs, unnested)
		arrays = append(arrays, fmt.Sprintf("pg_catalog.unnest($%d::pg_catalog.%s[])", i+1, c.Type))
		same = append(same, name+" IS NOT DISTINCT FROM "+unnested)
		column := make([]*string, len(keys))
		for j, key := range keys {
			column[j] = key[i]
		}
		params = append(params, []byte(arrayOf(column)))
	}
	names := make([]string, len(theirs))
	for i, name := range theirs {
		names[i] = strings.TrimPrefix(name, "k.")
	}
	unnest := "ROWS FROM (" + strings.Join(arrays, ", ") + ") AS k (" + strings.Join(names, ", ") + ")"
	condition := "(" + strings.Join(mine, ", ") + ") IN (SELECT " + strings.Join(theirs, ", ") + " FROM " + unnest + ")"
	if null {
		condition = "EXISTS (SELECT FROM " + unnest + " WHERE " + strings.Join(same, " AND ") + ")"
	}
	returned := make([]string, 0, len(t.Columns)+len(columns))
	for _, c := range t.Columns {
		returned = append(returned, "m."+directory.QuoteIdentifier(c.Name))
	}
	for _, name := range mine {
		returned = append(returned, name+"::pg_catalog.text")
	}
	return "DELETE FROM ONLY " + t.Filter.Table.String() + " AS m WHERE " + condition + " RETURNING " + strings.Join(returned, ", "), params
}

// settle inserts rows, as take returned them, on a shard.
func (m *Modification) settle(ctx context.Context, t *planner.MovedTable, shard directory.ShardID, rows [][]byte) error {
	types := make([]uint32, len(t.Columns))
	names := make([]string, len(t.Columns))
	for i, c := range t.Columns {
		types[i], names[i] = c.Type, directory.QuoteIdentifier(c.Name)
	}
	into := "INSERT INTO " + t.Filter.Table.String() + " (" + strings.Join(names, ", ") + ") OVERRIDING SYSTEM VALUE VALUES "
	batch := max(1, maxParameters/max(1, len(types)))
	for chunk := range slices.Chunk(rows, batch) {
		sql := into
		params := make([][]byte, 0, len(chunk)*len(types))
		for r, row := range chunk {
			sql += map[bool]string{true: "(", false: ", ("}[r == 0]
			values := wire.NewRow(row)
			for i := range types {
				value, ok := values.Next()
				if !ok {
					return pgerr.New(pgerr.InternalError, "a row that goes to another shard is cut short")
				}
				params = append(params, value)
				sql += map[bool]string{true: "$", false: ", $"}[i == 0] + strconv.Itoa(len(params))
			}
			sql += ")"
		}
		if _, err := m.within(ctx, shard, sql, slices.Repeat(types, len(chunk)), []int16{1}, params); err != nil {
			return err
		}
	}
	return nil
}

// within runs a statement of ours on one shard within the transaction. Its rows are in binary.
func (m *Modification) within(ctx context.Context, shard directory.ShardID, sql string, types []uint32, formats []int16, params [][]byte) (*part, error) {
	meaning := m.request.Meaning
	own, err := m.x.Modify(ctx, ModifyRequest{Meaning: meaning, Portal: movePortal, InOrder: true, Pieces: []Piece{{
		Shard: shard,
		Statement: &Statement{
			Text: sql, Types: types, Key: backend.PreparedKey(sql, types, meaning), Settings: m.x.settings, Meaning: meaning, NoPosition: true,
		},
		Bind:  &wire.Bind{Formats: formats, Params: params, ResultFormats: []int16{1}},
		Types: types,
	}}})
	if err != nil {
		return nil, err
	}
	if err := own.execute(ctx, true); err != nil {
		return nil, own.fail(ctx, err)
	}
	p := own.parts[0]
	frames := p.frames
	if err := own.Close(ctx); err != nil {
		return nil, err
	}
	p.frames = frames
	return p, nil
}

// eachRow calls visit with the body of each row that the part keeps.
func (p *part) eachRow(visit func(row []byte) error) error {
	for rest := p.frames; len(rest) > 0; {
		size := frameSize(rest)
		if rest[0] == wire.TypeDataRow {
			if err := visit(rest[5:size:size]); err != nil {
				return err
			}
		}
		rest = rest[size:]
	}
	return nil
}

// dropRows forgets the rows that the part keeps, but not the notices.
func (p *part) dropRows() {
	var notices []byte
	for rest := p.frames; len(rest) > 0; {
		size := frameSize(rest)
		if rest[0] != wire.TypeDataRow {
			notices = append(notices, rest[:size]...)
		}
		rest = rest[size:]
	}
	p.frames = notices
}

// lastTexts are the last n values of a row, which are texts; nil is NULL.
func lastTexts(body []byte, n int) ([]*string, error) {
	row := wire.NewRow(body)
	values := make([]*string, 0, n)
	for skip := row.Len() - n; ; skip-- {
		value, ok := row.Next()
		if !ok {
			return values, row.Err()
		}
		if skip > 0 {
			continue
		}
		var text *string
		if value != nil {
			copied := string(value)
			text = &copied
		}
		values = append(values, text)
	}
}

// arrayOf is an array of texts as a literal.
func arrayOf(values []*string) string {
	var b strings.Builder
	b.WriteByte('{')
	for i, v := range values {
		if i > 0 {
			b.WriteByte(',')
		}
		if v == nil {
			b.WriteString("NULL")
			continue
		}
		b.WriteByte('"')
		for _, c := range []byte(*v) {
			if c == '"' || c == '\\' {
				b.WriteByte('\\')
			}
			b.WriteByte(c)
		}
		b.WriteByte('"')
	}
	b.WriteByte('}')
	return b.String()
}
