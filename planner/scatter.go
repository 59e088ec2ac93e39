package planner

import (
	"fmt"
	"strings"
)

// scatter decides whether the answer to a SELECT is what the shards' answers are together, and how they
// are put together.
type scatter struct {
	*analysis
	sel *selectStmt
	top *context

	writing bool // queries of WITH may change data

	hidden []*node // sort keys to append to the select list
	merge  *Merge
}

// plan returns the merge and, if the shards must get another text, that text.
func (s *scatter) plan() (*Merge, string, *Error) {
	for _, check := range []func() *Error{s.checkClauses, s.checkFunctions, s.checkTables} {
		if err := check(); err != nil {
			return nil, "", err
		}
	}
	s.merge = &Merge{}
	if err := s.order(); err != nil {
		return nil, "", err
	}
	if err := s.limits(); err != nil {
		return nil, "", err
	}
	clock := s.clockParameters()
	if len(s.hidden) == 0 && s.merge.Offset == nil && clock == nil {
		return s.merge, "", nil
	}
	sql, err := rewrite(s.sel, func(edited message) error {
		s.edit(edited.(*selectStmt))
		if clock == nil {
			return nil
		}
		return s.fixTime(edited, clock)
	})
	if err != nil {
		return nil, "", refuse("Select the sort keys in front of any *, name result columns that read the time (AS), and leave OFFSET out.",
			"the statement cannot be rewritten for several shards")
	}
	return s.merge, sql, nil
}

const hintOneShard = "Restrict the statement to one shard by giving a value for every column of the shard key."

// checkClauses refuses what is not computed row by row.
func (s *scatter) checkClauses() *Error {
	sel := s.sel
	switch {
	case sel.Op != setOpNone:
		return s.several("UNION, INTERSECT and EXCEPT")
	case len(sel.ValuesLists) > 0:
		return s.several("VALUES")
	case len(sel.DistinctClause) > 0:
		return s.several("SELECT DISTINCT")
	case len(sel.GroupClause) > 0:
		return s.several("GROUP BY")
	case sel.HavingClause != nil:
		return s.several("HAVING")
	case len(sel.WindowClause) > 0:
		return s.several("WINDOW")
	case s.innerLocking:
		return s.several("FOR UPDATE and FOR SHARE in a subquery or in WITH")
	case s.locking && (sel.LimitCount != nil || sel.LimitOffset != nil):
		// Each shard would lock as many rows as the limit says, and Postgres locks only those that it returns.
		return s.several("FOR UPDATE and FOR SHARE with LIMIT or OFFSET")
	case s.writes && !s.writing:
		return s.several("WITH queries that change data")
	case s.sortedInner:
		return s.several("ORDER BY in a subquery")
	case s.outerAgg:
		return s.several("an aggregate of an outer query")
	}
	for _, list := range [][]*node{sel.TargetList, sel.SortClause} {
		for _, n := range list {
			if what, at := s.computes(unwrap(n)); what != "" {
				return s.several(what).at(s.position(at))
			}
		}
	}
	return nil
}

func (s *scatter) several(what string) *Error {
	return refuse(hintOneShard, "%s over several shards is not supported yet", what)
}

// computes names the aggregate or window function of this level that an expression holds.
func (s *scatter) computes(m message) (what string, at int) {
	walk(m, func(inner message) bool {
		if what != "" {
			return false
		}
		switch inner := inner.(type) {
		case *subLink:
			return false
		case *funcCall:
			info := s.function(inner)
			switch {
			case inner.Over != nil || info.window:
				what, at = "window function "+info.name, int(inner.Location)
			case info.aggregate:
				what, at = "aggregate "+info.name, int(inner.Location)
			}
		default:
			if isAggregateNode(inner) {
				what, at = "an aggregate", location(inner)
			}
		}
		return what == ""
	})
	return what, at
}

// checkFunctions refuses what would differ from shard to shard.
func (s *scatter) checkFunctions() *Error {
	u := &s.functions
	switch {
	case u.unknown != "":
		return refuse(hintOneShard, "function %s is not known, so it cannot be called on several shards", u.unknown).at(s.position(u.unknownP))
	case u.clock != "":
		return refuse("Give the time as a parameter or as a constant.",
			"%s over several shards is not supported yet: each shard would have a time of its own", u.clock).at(s.position(u.clockP))
	case s.clockText >= 0:
		return clockRefusal().at(s.position(s.clockText))
	case u.volatile != "":
		return refuse(hintOneShard, "volatile function %s over several shards is not supported", u.volatile).at(s.position(u.volatileP))
	case s.ofOneServer(hintOneShard) != nil:
		return s.ofOneServer(hintOneShard)
	case u.sample:
		return s.several("TABLESAMPLE")
	case u.unusual:
		return s.several("XML and JSON table functions")
	case u.currentOf:
		return s.several("WHERE CURRENT OF")
	}
	return nil
}

// ofOneServer refuses what means something on one server only; nil if there is no such thing.
func (a *analysis) ofOneServer(hint string) *Error {
	u := &a.functions
	switch {
	case u.server != "":
		return refuse(hint, "function %s depends on the server, so it cannot be called on several shards", u.server).at(a.position(u.serverP))
	case a.systemCol >= 0:
		return refuse(hint, "system columns over several shards are not supported: their values differ from shard to shard").at(a.position(a.systemCol))
	case a.regCast >= 0:
		return refuse(hint, "casts to OID alias types over several shards are not supported: OIDs differ from shard to shard").at(a.position(a.regCast))
	}
	return nil
}

func clockRefusal() *Error {
	return refuse("Give the time as a parameter or as a constant.",
		"a date or time that stands for the present ('now', 'today') over several shards is not supported: each shard would have a time of its own")
}

// checkTables proves that every row of the result is made of rows of one shard: each reference is
// joined by its whole key to one that has a part in every row.
func (s *scatter) checkTables() *Error {
	if err := s.checkPlaces(); err != nil {
		return err
	}
	var anchor *reference
	for _, r := range s.ofPart(nil) {
		if r.context == s.top {
			anchor = r
			break
		}
	}
	if anchor == nil {
		spread, _, _ := s.sorted()
		r := spread[0]
		return refuse(hintPin, "table %s is read in a subquery, on the outer side of a join or in WITH, and not on one shard", r.name).
			at(s.position(r.position))
	}
	return s.checkJoined(anchor)
}

// checkPlaces refuses tables that are on one shard only beside sharded ones.
func (s *scatter) checkPlaces() *Error {
	spread, elsewhere, _ := s.sorted()
	if len(elsewhere) == 0 {
		return nil
	}
	return refuse(hintMixed, "sharded table %s and table %s on shard %s are in one statement", spread[0].name, elsewhere[0].name, elsewhere[0].table.Shard).
		at(s.position(elsewhere[0].position))
}

// checkJoined proves that every reference is joined by its whole key to the anchor, or to the target of the query of WITH
// that it stands in.
func (s *scatter) checkJoined(anchor *reference) *Error {
	if err := s.checkParts(); err != nil {
		return err
	}
	return s.joinedTo(anchor, nil)
}

// joinedTo proves that every reference of one part of the statement is joined by its whole key to the anchor.
func (a *analysis) joinedTo(anchor *reference, part *cte) *Error {
	for _, r := range a.ofPart(part) {
		if r == anchor || r.joinedByKey(anchor) {
			continue
		}
		if r.table.Group != anchor.table.Group {
			return refuse("Shard one of them again, COLOCATE WITH the other.", "tables %s and %s are not colocated", anchor.name, r.name).
				at(a.position(r.position))
		}
		return refuse(hintPin, "tables %s and %s are not joined by the whole shard key (%s)", anchor.name, r.name, strings.Join(append(append([]string(nil), r.table.Key...), r.table.SubKey...), ", ")).
			at(a.position(r.position))
	}
	return nil
}

// limits reads LIMIT and OFFSET, which the router applies to the merged rows.
func (s *scatter) limits() *Error {
	if s.sel.LimitOption == limitWithTies {
		return s.several("FETCH FIRST … WITH TIES")
	}
	limit, err := s.count(s.sel.LimitCount, "LIMIT")
	if err != nil {
		return err
	}
	offset, err := s.count(s.sel.LimitOffset, "OFFSET")
	if err != nil {
		return err
	}
	s.merge.Limit, s.merge.Offset = limit, offset
	return nil
}

func (s *scatter) count(n *node, clause string) (*ValueRef, *Error) {
	if n == nil {
		return nil, nil
	}
	number := column{cat: bigintColumn}
	v, oid, ok := s.value(n, number)
	if !ok || !v.Null && !isInteger(oid) || v.Kind == RefConst && !v.Null && (v.Unsure || v.Invalid) {
		return nil, refuse("Give a number or a parameter.", "%s with an expression over several shards is not supported", clause).
			at(s.position(location(unwrap(n))))
	}
	if v.Null {
		return nil, nil
	}
	if v.Kind == RefParam && v.Inferred && !s.sure(v.Param) {
		return nil, refuse("Declare the parameter's type as bigint.", "the type of parameter $%d of %s is not certain", v.Param, clause).
			at(s.position(location(unwrap(n))))
	}
	return &v, nil
}

// edit makes the text for the shards: sort keys behind the select list, and LIMIT for LIMIT and OFFSET.
func (s *scatter) edit(sel *selectStmt) {
	for i, n := range s.hidden {
		sel.TargetList = append(sel.TargetList, targetNode(fmt.Sprintf("shardyard_sort_%d", i+1), cloneNode(n)))
	}
	if s.merge.Offset == nil {
		return
	}
	offset := sel.LimitOffset
	sel.LimitOffset = nil
	switch {
	case s.merge.Limit != nil:
		sel.LimitCount = sumNode(bigintNode(sel.LimitCount), bigintNode(offset))
	case s.merge.Offset.Kind == RefParam:
		// The parameter must stay in the text, or Bind would have one too many.
		sel.LimitOffset = timesZero(bigintNode(offset))
	case sel.LimitCount == nil:
		sel.LimitOption = limitDefault
	}
}
