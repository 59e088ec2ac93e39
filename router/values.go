package router

import (
	"context"
	"unicode/utf8"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner"
	"github.com/shardyard/shardyard/router/pgerr"
	"github.com/shardyard/shardyard/router/wire"
)

const (
	undefinedValue = "55000"
	hintValue      = "Use INSERT … RETURNING, or ask in the transaction that has inserted the row."
)

// sequenceValues is what the session was given of sequences: what one Postgres would remember for currval and lastval.
//
// Values that the router has supplied are known. Of those that the home shard has drawn by itself (for tables that are not sharded)
// its connection knows: it is asked if nobody else has drawn on it since, and if all that the session has drawn was drawn there.
type sequenceValues struct {
	// values has the last value of each sequence that the router supplied; unsure are those of which the home shard may have given another
	// since.
	values map[directory.TableName]int64
	unsure map[directory.TableName]bool
	// last is of which of them lastval tells; no name: of none, or of what was drawn at home, if anything was.
	last directory.TableName

	// mark is that of the connection; drawn are the sequences of which it certainly has the session's values, and lastDrawn says that
	// it has that of lastval.
	mark      uint64
	drawn     map[directory.TableName]bool
	lastDrawn bool
	// newly and newLast are what the statement that runs has added to these.
	newly   []directory.TableName
	newLast bool
	// alone: the connection remembers nothing of anybody else, so it has all of the session's values, or says that there is none.
	alone bool
	// home: the home shard may have drawn for the session.
	home bool
	// asked: it has asked in vain. From now on it keeps the connection on which it draws.
	asked bool
}

// given notes the last value that the router has supplied of a sequence.
func (v *sequenceValues) given(sequence directory.TableName, value int64) {
	if v.values == nil {
		v.values = make(map[directory.TableName]int64)
	}
	v.values[sequence], v.last, v.lastDrawn, v.alone = value, sequence, false, false
	delete(v.unsure, sequence)
}

// doubt notes that the session may have got another value of a sequence, or (no name) of any.
func (v *sequenceValues) doubt(sequence directory.TableName) {
	if v.unsure == nil {
		v.unsure = make(map[directory.TableName]bool)
	}
	v.unsure[sequence] = true
	if sequence.Name == "" {
		clear(v.values)
	}
}

// failed notes that a statement failed: it may have drawn before, or not. What its connection had of the session's values, or has
// got in addition, is still there.
func (v *sequenceValues) failed() {
	for _, sequence := range v.newly {
		delete(v.drawn, sequence)
	}
	v.lastDrawn = v.lastDrawn && !v.newLast
	v.newly, v.newLast = v.newly[:0], false
}

// elsewhere notes that the session's values are on no connection for certain.
func (v *sequenceValues) elsewhere() {
	clear(v.drawn)
	v.lastDrawn = false
	v.newly, v.newLast = v.newly[:0], false
}

// obscured notes that the home shard may have drawn on a connection that is not looked at.
func (v *sequenceValues) obscured() {
	v.home, v.alone, v.last = true, false, directory.TableName{}
	v.elsewhere()
}

// noteSequences notes what a statement may do to sequences, before it runs on a link.
func (c *Session) noteSequences(l *link, plan *planner.Plan) {
	u, v := plan.Sequences, &c.values
	if u == nil && !plan.Dirty || l.Shard() != c.view.partitions.Home {
		return
	}
	if u != nil && len(u.Draws) == 0 && !u.May {
		return
	}
	if v.mark == 0 || l.Drawn() != v.mark {
		v.alone = l.Drawn() == 0 && !v.home
		v.mark = c.server.marks.Add(1)
		l.MarkDrawn(v.mark)
		c.x.PreferDrawn()
		v.elsewhere()
	}
	if v.asked && !l.Pinned() {
		c.x.Pin(l.Shard(), "values of sequences")
	}
	v.home, v.last = true, directory.TableName{}
	v.newly, v.newLast = v.newly[:0], false
	if u == nil {
		return
	}
	for _, sequence := range u.Draws {
		if v.drawn == nil {
			v.drawn = make(map[directory.TableName]bool)
		}
		if !v.drawn[sequence] {
			v.newly = append(v.newly, sequence)
		}
		v.newLast = v.newLast || !v.lastDrawn
		v.drawn[sequence], v.lastDrawn = true, true
	}
	for _, moved := range u.Moves {
		v.doubt(moved.Sequence)
	}
}

// sequencesMoved makes the routers forget what they have drawn of sequences that a statement has drawn from, or has set.
func (c *Session) sequencesMoved(ctx context.Context, plan *planner.Plan) {
	if plan.Sequences == nil {
		return
	}
	set := false
	for _, moved := range plan.Sequences.Moves {
		c.server.numbers.Drop(c.databaseName, moved.Sequence)
		if !moved.Set {
			continue
		}
		set = true
		if moved.Known {
			before := c.values
			c.values.given(moved.Sequence, moved.To)
			c.values.last, c.values.lastDrawn, c.values.alone = before.last, before.lastDrawn, before.alone
		}
		if err := c.server.numbers.NoteSet(ctx, c.view.partitions, moved.Sequence); err != nil {
			c.server.log.Warn("setval not noted for the other routers", "session_id", c.id, "database", c.databaseName, "error", err)
		}
	}
	if set {
		c.server.announceLater(c.database)
	}
}

// moves reports whether a statement draws from sequences that number sharded tables, or sets them.
func moves(plan *planner.Plan) bool { return plan.Sequences != nil && len(plan.Sequences.Moves) > 0 }

// withValues is a statement whose calls of currval, lastval and nextval have been replaced by their values, and the types of its
// parameters. If the shard has to answer them the statement is the same, and says so.
func (c *Session) withValues(ctx context.Context, st *planner.Statement, plan *planner.Plan, types []uint32, params [][]byte) (planner.Statement, []uint32, error) {
	values := make([]int64, 0, len(plan.Calls))
	for i := range plan.Calls {
		value, native, err := c.sequenceValue(ctx, &plan.Calls[i], params)
		if err != nil {
			return planner.Statement{}, nil, err
		}
		if native {
			return planner.Statement{Text: st.Text, Offset: st.Offset, Chars: st.Chars, Native: true}, types, nil
		}
		values = append(values, value)
	}
	text, types := plan.WithValues(st, values, types)
	return planner.Statement{Text: text, Offset: st.Offset, Chars: st.Chars}, types, nil
}

// sequenceValue is the value of a call. native: the home shard has it.
func (c *Session) sequenceValue(ctx context.Context, call *planner.SequenceCall, params [][]byte) (value int64, native bool, err error) {
	v := &c.values
	sequence, numbers := call.Sequence, call.Numbers
	if call.Param > 0 {
		if call.Param > len(params) || params[call.Param-1] == nil {
			return 0, true, nil
		}
		var ok bool
		if sequence, numbers, ok = c.vars.env.SequenceNamed(wire.View(params[call.Param-1])); !ok {
			return 0, true, nil // the shard says that there is none, for one
		}
	}
	switch call.Function {
	case "nextval":
		values, err := c.draw(ctx, sequence, false, 1, 0)
		if err != nil {
			return 0, false, err
		}
		return values[0], false, nil
	case "lastval":
		if v.last.Name == "" {
			return 0, true, nil
		}
		sequence = v.last
	default:
		if !numbers {
			return 0, true, nil
		}
	}
	value, known := v.values[sequence]
	switch {
	case v.unsure[sequence], !known && v.unsure[directory.TableName{}]:
		return 0, false, errUnknownValue(call.Function)
	case !known:
		return 0, false, errUndefinedValue(call.Function, sequence)
	}
	return value, false, nil
}

// mayAsk refuses a statement that asks the shard for values which the link does not have.
func (c *Session) mayAsk(l *link, plan *planner.Plan, params [][]byte) error {
	if plan.Sequences == nil {
		return nil
	}
	v := &c.values
	for _, asked := range plan.Sequences.Asks {
		sequence := asked.Sequence
		if asked.Param > 0 && asked.Param <= len(params) {
			var ok bool
			if sequence, _, ok = c.vars.env.SequenceNamed(wire.View(params[asked.Param-1])); !ok {
				continue
			}
		}
		switch {
		case v.mark != 0 && l.Drawn() == v.mark && (v.alone || asked.Function == "lastval" && v.lastDrawn || v.drawn[sequence]):
		case !v.home && !plan.Dirty && !plan.Sequences.May && len(plan.Sequences.Draws) == 0 && (asked.Function == "lastval" || sequence.Name != ""):
			return errUndefinedValue(asked.Function, sequence)
		default:
			v.asked = true
			return errUnknownValue(asked.Function)
		}
	}
	return nil
}

func errUndefinedValue(function string, sequence directory.TableName) error {
	if function == "lastval" {
		return pgerr.New(undefinedValue, "lastval is not yet defined in this session")
	}
	return pgerr.Newf(undefinedValue, "currval of sequence %q is not yet defined in this session", sequence.Name)
}

func errUnknownValue(function string) error {
	return pgerr.Unsupported(function+" is not known any more: the value was drawn in a way that the router does not see, or on a connection that "+
		"other sessions have used since", hintValue)
}

// behindCalls takes away the position of an error that stands behind the first value which was put into a statement.
func behindCalls(err error, st *planner.Statement, plan *planner.Plan) error {
	e := pgerr.Of(err)
	if err == nil || e == nil || e.Position == 0 || int(e.Position) <= st.Chars+utf8.RuneCountInString(st.Text[:plan.CallsFrom()]) {
		return err
	}
	return e.At(0)
}
