package planner

import (
	"slices"
	"strconv"
	"strings"

	"github.com/shardyard/shardyard/directory"
)

// SequenceUse is what a statement does, or may do, to sequences on the home shard itself, whose connection then remembers values
// for currval and lastval; and what it asks of the connection.
type SequenceUse struct {
	// Draws are sequences that it draws from, if it succeeds.
	Draws []directory.TableName
	// May: it may draw from others, too.
	May bool
	// Moves are sequences that number sharded tables, and that it draws from or sets.
	Moves []Moved
	// Asks are its calls of currval and lastval that the shard answers.
	Asks []Asked
}

// Moved is a sequence that a statement draws from, or sets.
type Moved struct {
	// Sequence has no name where the statement does not say which it is.
	Sequence directory.TableName
	// Set: by setval. To is what currval gives then; known only if Known.
	Set   bool
	To    int64
	Known bool
}

// Asked is a call of currval or lastval.
type Asked struct {
	Function string
	// Sequence has no name for lastval, and where it is known from the parameter Param only, or (0) not at all.
	Sequence directory.TableName
	Param    int
}

// sequenceUse is what the statement does to sequences; nil: nothing.
func (a *analysis) sequenceUse() *SequenceUse {
	u := &SequenceUse{May: a.functions.dirty}
	for _, f := range a.functions.sequences {
		a.useSequence(u, f)
	}
	for _, r := range a.references {
		if !r.written || r.relation == nil || r.place == sharded && len(r.relation.Triggers) == 0 {
			continue
		}
		u.May = u.May || len(r.relation.Triggers) > 0 || len(r.relation.Rules) > 0
		if r.place != sharded && a.setsDefaults() {
			a.useDefaults(u, r)
		}
	}
	if len(u.Draws) == 0 && !u.May && len(u.Moves) == 0 && len(u.Asks) == 0 {
		return nil
	}
	return u
}

// useSequence notes a call of a sequence function.
func (a *analysis) useSequence(u *SequenceUse, f *funcCall) {
	name := a.function(f).name
	switch name {
	case "currval", "lastval":
		a.valuesUsed = true
		call, ok := a.sequenceCall(f, name)
		if (ok || !namesNothing(f)) && !(a.evaluatedOnce(a.root, f) && u.drew(name, call.Sequence)) {
			u.Asks = append(u.Asks, Asked{Function: name, Sequence: call.Sequence, Param: call.Param})
		}
		return
	}
	var sequence directory.TableName
	if len(f.Args) > 0 {
		sequence, _ = a.sequenceNamed(f.Args[0])
	}
	once := a.evaluatedOnce(a.root, f)
	switch {
	case name == "setval": // lastval does not change, currval may
		u.May = true
	case sequence.Name != "" && once:
		u.Draws = append(u.Draws, sequence)
	default:
		u.May = true
	}
	a.valuesUsed = true
	if sequence.Name == "" || a.numbers(sequence) {
		moved := Moved{Sequence: sequence, Set: name == "setval"}
		if moved.Set && once && len(f.Args) == 2 {
			moved.To, moved.Known = constantInt(f.Args[1])
		}
		u.Moves = append(u.Moves, moved)
	}
}

// drew reports whether a result column in front of a call has drawn what the call tells.
func (u *SequenceUse) drew(function string, sequence directory.TableName) bool {
	return function == "lastval" && len(u.Draws) > 0 || slices.Contains(u.Draws, sequence)
}

// constantInt is the value of a whole number that is written as such.
func constantInt(n *node) (int64, bool) {
	c := n.GetAConst()
	if c == nil {
		return 0, false
	}
	kind, text := constantOf(c)
	if kind != constInt && kind != constFloat {
		return 0, false
	}
	v, err := strconv.ParseInt(text, 10, 64)
	return v, err == nil
}

// setsDefaults reports whether the statement may store defaults.
func (a *analysis) setsDefaults() bool {
	found := false
	walk(a.root, func(m message) bool {
		switch kindName(m) {
		case "InsertStmt", "MergeStmt", "CopyStmt", "SetToDefault":
			found = true
		}
		return !found
	})
	return found
}

// useDefaults notes the sequences behind the defaults of a table that is written.
func (a *analysis) useDefaults(u *SequenceUse, r *reference) {
	i, ok := a.root.(*insertStmt)
	certain := ok && a.insertion != nil && a.insertion.target == r && a.insertion.hasRows() && i.OnConflictClause == nil &&
		len(r.relation.Triggers)+len(r.relation.Rules) == 0 && i.Override != overridingUser
	for _, c := range r.relation.Live() {
		switch {
		case c.Sequence.Name == "":
			u.May = u.May || strings.Contains(c.Default, "nextval(")
		case certain && a.leftOut(i, r, c.Name):
			u.Draws = append(u.Draws, c.Sequence)
		case !certain:
			u.May = true
		}
	}
}

// leftOut reports whether a row of an INSERT … VALUES leaves a column to its default.
func (a *analysis) leftOut(i *insertStmt, r *reference, column string) bool {
	places, err := a.insertColumns(i, r)
	if err != nil {
		return false
	}
	at := -1
	for p, c := range places {
		if c.Name == column {
			at = p
		}
	}
	if a.insertion.source == nil || at < 0 {
		return true
	}
	return slices.ContainsFunc(a.insertion.source.ValuesLists, func(row *node) bool {
		items := row.GetList().GetItems()
		return at >= len(items) || items[at].GetSetToDefault() != nil
	})
}
