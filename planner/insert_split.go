package planner

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner/lexer"
)

// ShardText is a text made of stretches of the client's for one shard. The client's parameters keep their numbers,
// which errors tell; those for computed values are behind them.
type ShardText struct {
	Shard  directory.ShardID // of Split
	Rows   int               // how many rows it stores, or values it computes
	Text   string
	Params []TextParam
	// Parts are the stretches that are the client's own, in order, for the positions of errors.
	Parts []TextPart
}

// TextParam says what a parameter of a ShardText is: one of the client's (Number), a computed value (Type) or, with
// neither, one of the client's that the text does not have.
type TextParam struct {
	Number   int
	Supplied int    // index of the computed value in Args.Supplied
	Type     uint32 // of the computed value
}

// TextPart is a stretch of a ShardText that stands in the client's text too; all in characters, from 0.
type TextPart struct{ Start, Length, Client int }

// Split makes the text of each shard of a target that is not Whole: the client's, with the shard's rows only, in
// their order, and with parameters in the place of computed values.
func (pl *Plan) Split(a Args, t Target) ([]ShardText, error) {
	data := pl.Insert
	l, ok := layout(a.Statement.Text, data.start)
	if !ok || len(l.rows) != data.rows || len(t.Rows) != data.rows {
		return nil, &Error{Code: codeInternal, Message: "the rows of an INSERT are not where its plan says"}
	}
	texts := make([]ShardText, len(t.Shards))
	replaced := data.replacements()
	var tokens []lexer.Token
	if len(data.tail) > 0 {
		tokens = tokensOf(l.sql)
	}
	for i, shard := range t.Shards {
		w := newTextWriter(&l, a.Statement, data.Params)
		data.head(w, &l)
		rows := 0
		for row := range l.rows {
			if int(t.Rows[row]) != i {
				continue
			}
			if rows > 0 {
				w.own(", ")
			}
			data.row(w, &l, row, replaced)
			rows++
		}
		data.writeTail(w, &l, tokens)
		texts[i] = w.finish()
		texts[i].Shard, texts[i].Rows = shard, rows
	}
	return texts, nil
}

// added are the columns that the client does not name, in the order of their places.
func (d *InsertData) added() []SuppliedColumn {
	var added []SuppliedColumn
	for _, c := range d.Supplied {
		if c.place >= len(d.columns) {
			added = append(added, c)
		}
	}
	slices.SortFunc(added, func(a, b SuppliedColumn) int { return a.place - b.place })
	return added
}

// head writes what stands in front of the rows.
func (d *InsertData) head(w *textWriter, l *insertLayout) {
	var names []string
	for _, c := range d.added() {
		names = append(names, c.Name)
	}
	from := 0
	switch {
	case len(names) == 0:
	case l.listClose > 0:
		w.copy(0, l.listClose)
		w.own(", " + quotedNames(names))
		from = l.listClose
	default:
		w.copy(0, l.name)
		w.own(" (" + quotedNames(append(slices.Clone(d.columns), names...)) + ")")
		from = l.name
	}
	if d.overriding && l.overriding.end > 0 {
		w.copy(from, l.overriding.start)
		w.own("OVERRIDING SYSTEM VALUE")
		from = l.overriding.end
	} else if d.overriding {
		w.copy(from, l.word)
		w.own("OVERRIDING SYSTEM VALUE ")
		from = l.word
	}
	w.copy(from, l.values)
	if l.rows[0].start == l.rows[0].end && len(names) > 0 { // DEFAULT VALUES
		w.own(" VALUES")
	}
	w.own(" ")
}

// replacements gives for each row the indexes of its computed values.
func (d *InsertData) replacements() map[int][]int {
	replaced := make(map[int][]int, len(d.Values))
	for i, v := range d.Values {
		replaced[v.Row] = append(replaced[v.Row], i)
	}
	return replaced
}

// row writes one row with its computed values.
func (d *InsertData) row(w *textWriter, l *insertLayout, row int, replaced map[int][]int) {
	s := l.rows[row]
	indexes := replaced[row]
	if len(indexes) == 0 {
		w.copy(s.start, s.end)
		return
	}
	place := func(i int) int { return d.Supplied[d.Values[i].Column].place }
	slices.SortFunc(indexes, func(x, y int) int { return place(x) - place(y) })
	values := l.cut(row, nil)
	at := s.start
	if s.start == s.end {
		w.own("(")
		at = l.tail
	}
	first := s.start == s.end
	for _, i := range indexes {
		p := place(i)
		if p < len(d.columns) {
			w.copy(at, values[p].start)
			at = values[p].end
		} else {
			if at < s.end-1 {
				w.copy(at, s.end-1)
				at = s.end - 1
			}
			if !first {
				w.own(", ")
			}
		}
		w.computed(i, d.Supplied[d.Values[i].Column].Type)
		first = false
	}
	if s.start == s.end {
		w.own(")")
		return
	}
	w.copy(at, s.end)
}

// Computations are the statements that compute the values from from up to to of Insert.Values, one for each column;
// each gives one column with a row for each value, whose indexes are given.
func (pl *Plan) Computations(a Args, from, to int) (texts []ShardText, indexes [][]int, err error) {
	data := pl.Insert
	l, ok := layout(a.Statement.Text, data.start)
	if !ok || len(l.rows) != data.rows {
		return nil, nil, &Error{Code: codeInternal, Message: "the rows of an INSERT are not where its plan says"}
	}
	var spans []span
	for column := range data.Supplied {
		c := &data.Supplied[column]
		w := newTextWriter(&l, a.Statement, data.Params)
		var list []int
		for i := from; i < to; i++ {
			v := data.Values[i]
			if v.Column != column || v.Sequence.Name != "" {
				continue
			}
			if len(list) == 0 {
				w.own("VALUES (")
			} else {
				w.own(", (")
			}
			list = append(list, i)
			// An explicit cast to the bare type is the assignment's, since the statement was accepted as a whole.
			w.own("CAST((")
			switch {
			case v.Default:
				w.own(c.Default)
			case v.Row < 0:
				s := data.clockText(&l, i)
				w.copy(s.start, s.end)
			default:
				spans = l.cut(v.Row, spans)
				w.copy(spans[c.place].start, spans[c.place].end)
			}
			w.own(") AS " + c.TypeSQL + "))")
		}
		if len(list) > 0 {
			text := w.finish()
			text.Rows = len(list)
			texts, indexes = append(texts, text), append(indexes, list)
		}
	}
	return texts, indexes, nil
}

// textWriter writes a text of stretches of the client's.
type textWriter struct {
	l      *insertLayout
	out    strings.Builder
	chars  int // written
	params []TextParam
	parts  []TextPart
	// at and atChars are a place of the client's text.
	at, atChars int
}

// newTextWriter starts a text; params is the number of parameters of the client's.
func newTextWriter(l *insertLayout, st *Statement, params int) *textWriter {
	return &textWriter{l: l, atChars: st.Chars, params: make([]TextParam, params)}
}

// own writes a text of ours.
func (w *textWriter) own(text string) {
	w.out.WriteString(text)
	w.chars += utf8.RuneCountInString(text)
}

// computed writes a parameter for a computed value.
func (w *textWriter) computed(index int, oid uint32) {
	w.params = append(w.params, TextParam{Supplied: index, Type: oid})
	w.own("$" + strconv.Itoa(len(w.params)))
}

// copy writes a stretch of the client's text. Stretches are written in the text's order.
func (w *textWriter) copy(start, end int) {
	if start == end {
		return
	}
	i, _ := slices.BinarySearchFunc(w.l.params, start, func(p paramToken, at int) int { return p.start - at })
	for ; i < len(w.l.params) && w.l.params[i].start < end; i++ {
		if n := w.l.params[i].number; n >= 1 && n <= len(w.params) {
			w.params[n-1].Number = n
		}
	}
	w.atChars += utf8.RuneCountInString(w.l.sql[w.at:start])
	length := utf8.RuneCountInString(w.l.sql[start:end])
	if n := len(w.parts); n > 0 && w.parts[n-1].Start+w.parts[n-1].Length == w.chars && w.parts[n-1].Client+w.parts[n-1].Length == w.atChars {
		w.parts[n-1].Length += length
	} else {
		w.parts = append(w.parts, TextPart{Start: w.chars, Length: length, Client: w.atChars})
	}
	w.at = start
	w.out.WriteString(w.l.sql[start:end])
	w.chars += length
}

func (w *textWriter) finish() ShardText {
	return ShardText{Text: w.out.String(), Params: w.params, Parts: w.parts}
}
