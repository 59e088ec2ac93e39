package router

import (
	"context"
	"strings"
	"unicode/utf8"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner"
	"github.com/shardyard/shardyard/planner/lexer"
	"github.com/shardyard/shardyard/router/exec"
	"github.com/shardyard/shardyard/router/pgerr"
	"github.com/shardyard/shardyard/router/wire"
)

// SQL's PREPARE and EXECUTE share their names with the extended protocol, as in Postgres. A PREPARE is kept
// by the session. An EXECUTE has the statement prepared on the server connection by content, like one of
// the extended protocol, and runs there as EXECUTE of the name it has there: so its arguments are
// evaluated by Postgres, and the next EXECUTE may run on another connection.

// prepareSQL runs PREPARE.
func (c *Session) prepareSQL(ctx context.Context, st *planner.Statement, p *planner.PrepareData) error {
	if _, taken := c.statements[p.Name]; taken {
		return pgerr.Newf("42P05", "prepared statement %q already exists", p.Name)
	}
	types, err := c.namedTypes(ctx, st, p)
	if err != nil {
		return err
	}
	before := st.Chars + utf8.RuneCountInString(st.Text[:p.Offset])
	prepared, err := c.newStatement(ctx, p.Name, p.Text, types)
	if err != nil {
		return movedBy(err, before)
	}
	if prepared.empty || c.isLocal(prepared.plan) {
		return pgerr.New("42601", "PREPARE takes only SELECT, INSERT, UPDATE, DELETE, MERGE and VALUES")
	}
	if prepared.plan.Calls != nil {
		return errCallsPrepared()
	}
	l, sent, err := c.describer(ctx, prepared)
	if err == nil {
		err = c.x.Drain(ctx, l) // what it owes of other statements is none of this one's errors
	}
	if err != nil {
		return err
	}
	name, err := c.x.Parse(ctx, l, sent, false, c.meaning())
	if err == nil {
		c.x.DescribeStatement(l, name, true, &prepared.described)
		if err = c.x.SyncLink(ctx, l); err == nil {
			err = c.x.Drain(ctx, l)
		}
	}
	err = movedBy(err, before)
	prepared.sent.NoPosition = true // from here on the client sends EXECUTE
	if err == nil {
		c.statements[p.Name] = prepared
	}
	c.x.Idle()
	return err
}

// movedBy moves the position of an error, if it has one, by a number of characters.
func movedBy(err error, chars int) error {
	if err == nil {
		return nil
	}
	e := pgerr.Of(err)
	if e.Position == 0 {
		return err
	}
	// The cause is dropped: by it shifted would move the error again.
	return e.At(int(e.Position) + chars).Because(nil)
}

// namedTypes finds the OIDs of the parameter types, on the home shard where they are not built in.
func (c *Session) namedTypes(ctx context.Context, st *planner.Statement, p *planner.PrepareData) ([]uint32, error) {
	types := append([]uint32(nil), p.Types...)
	for i, oid := range types {
		if oid != 0 || p.Named[i] == "unknown" {
			continue
		}
		l, err := c.x.Link(ctx, c.view.partitions.Home)
		if err != nil {
			return nil, err
		}
		rows, err := c.x.Ask(ctx, l, "SELECT "+quote(p.Named[i])+"::pg_catalog.regtype::pg_catalog.oid")
		if err != nil {
			if e := pgerr.Of(err); e.Position != 0 {
				err = e.At(typePosition(st, i))
			}
			return nil, err
		}
		types[i] = parseOID(oneValue(rows))
	}
	return types, nil
}

// typePosition is where the n-th parameter type of a PREPARE stands in the client's text; 0 if it is not found.
func typePosition(st *planner.Statement, n int) int {
	lex := lexer.New(st.Text)
	depth, behind := 0, false // behind the parenthesis or comma in front of the type
	for {
		token, ok := lex.Next()
		switch {
		case !ok:
			return 0
		case behind && n == 0:
			return st.Chars + utf8.RuneCountInString(st.Text[:token.Start]) + 1
		case token.IsPunct(st.Text, '('):
			depth++
			behind = depth == 1
		case token.IsPunct(st.Text, ')'):
			depth--
		case token.IsPunct(st.Text, ',') && depth == 1:
			n--
			behind = true
		default:
			behind = false
		}
	}
}

func parseOID(text string) uint32 {
	n := uint32(0)
	for _, digit := range []byte(text) {
		n = n*10 + uint32(digit-'0')
	}
	return n
}

// deallocate runs DEALLOCATE; "" is ALL.
func (c *Session) deallocate(name string) (tag string, err error) {
	if name == "" {
		clear(c.statements)
		return "DEALLOCATE ALL", nil
	}
	if _, ok := c.statements[name]; !ok {
		return "", pgerr.Newf("26000", "prepared statement %q does not exist", name)
	}
	delete(c.statements, name)
	return "DEALLOCATE", nil
}

// prepared finds the statement that an EXECUTE names, with an up-to-date plan.
func (c *Session) prepared(ctx context.Context, data *planner.ExecuteData) (*statement, error) {
	st, err := c.find([]byte(data.Name))
	if err != nil {
		return nil, err
	}
	if st.empty || c.isLocal(st.plan) {
		return nil, pgerr.Unsupported("EXECUTE of this kind of statement is not supported", "Run the statement itself.")
	}
	if have, want := len(data.Args), len(st.described.Parameters); st.described.Parameters != nil && have != want {
		return nil, pgerr.Newf("42601", "wrong number of parameters for prepared statement %q", data.Name).
			WithDetail(pgerr.Newf("", "Expected %d parameters but got %d.", want, have).Message)
	}
	if err := c.replan(ctx, st); err != nil {
		return nil, err
	}
	if st.plan.Calls != nil {
		return nil, errCallsPrepared()
	}
	return st, c.checkShape(ctx, st)
}

func errCallsPrepared() error {
	return pgerr.Unsupported("PREPARE and EXECUTE of a statement with currval, lastval or nextval are not supported where sequences number the rows of sharded tables",
		"Run the statement itself, or prepare it by the extended protocol.")
}

// argsOf are the arguments of an EXECUTE as values; constant says that all of them are known.
func argsOf(data *planner.ExecuteData) (values [][]byte, constant bool) {
	constant = true
	values = make([][]byte, len(data.Args))
	for i, arg := range data.Args {
		switch {
		case arg.Constant && !arg.Null:
			values[i] = []byte(arg.Text)
		case !arg.Constant:
			constant = false
		}
	}
	return values, constant
}

// routeExecute finds the shards of an EXECUTE from its arguments.
func (c *Session) routeExecute(ctx context.Context, st *statement, data *planner.ExecuteData) (planner.Target, planner.Args, error) {
	values, constant := argsOf(data)
	if !constant && (st.plan.Route.Kind == planner.RouteFilters || st.plan.Transfer != nil || st.plan.Combine != nil) {
		return planner.Target{}, planner.Args{}, pgerr.Unsupported(
			"EXECUTE of a statement on a sharded table needs constants as arguments", "Write the value itself as the argument.")
	}
	args := planner.Args{
		Map: c.view.partitions, Statement: &st.parsed, Params: values, Types: st.described.Parameters,
	}
	target, err := c.locate(ctx, st.plan, args)
	return c.somewhere(st.plan, target), args, err
}

// simpleExecute runs EXECUTE in the simple protocol.
func (c *Session) simpleExecute(ctx context.Context, outer *planner.Statement, plan *planner.Plan) error {
	data := plan.Execute
	st, err := c.prepared(ctx, data)
	if err != nil {
		return err
	}
	if st.plan.Route.Kind == planner.RouteFilters || st.plan.Transfer != nil || st.plan.Combine != nil {
		values, computed, err := c.arguments(ctx, st, outer, data)
		if err != nil {
			return err
		}
		if computed {
			outer, data = withValues(outer, data, values)
		}
	}
	if done, err := c.insertExecute(ctx, st, outer, data); done {
		return err
	}
	target, args, err := c.routeExecute(ctx, st, data)
	if err != nil {
		return err
	}
	if err := c.x.MayUse(ctx, target.Shards, st.plan.ReadOnly); err != nil {
		return err
	}
	if target.Transfer || !target.Whole || len(target.Shards) > 1 {
		if err := c.readArguments(ctx, st, outer, data); err != nil {
			return err
		}
	}
	if target.Combine {
		return c.combineWhole(ctx, &insertion{
			plan: st.plan, sent: &st.sent, args: args, types: st.sent.Types, seen: &st.described, bind: &wire.Bind{Params: args.Params}, quiet: true,
		})
	}
	if target.Transfer {
		return c.transferWhole(ctx, &insertion{
			plan: st.plan, sent: &st.sent, args: args, types: st.sent.Types, seen: &st.described, bind: &wire.Bind{Params: args.Params}, quiet: true,
		})
	}
	if !target.Whole || len(target.Shards) > 1 {
		return c.scatterExecute(ctx, st, target, args)
	}
	l, err := c.x.Link(ctx, target.Shards[0])
	if err != nil {
		return err
	}
	text, err := c.executeText(ctx, l, st, outer.Text)
	if err != nil {
		return err
	}
	return c.relay(ctx, text, st.plan, target, exec.QueryOptions{Part: argumentPart(outer, text), ReadOnly: st.plan.ReadOnly})
}

// argumentPart is where the arguments of an EXECUTE stand in the text for a shard. An error elsewhere is one in
// the statement that was prepared.
func argumentPart(outer *planner.Statement, sent string) *exec.Part {
	arguments := argumentText(outer.Text)
	return &exec.Part{
		Start:  utf8.RuneCountInString(strings.TrimSuffix(sent, arguments)),
		Length: utf8.RuneCountInString(arguments),
		Client: outer.Chars + utf8.RuneCountInString(strings.TrimSuffix(outer.Text, arguments)),
	}
}

// executeText is the EXECUTE for a link: it names the statement as that server knows it.
func (c *Session) executeText(ctx context.Context, l *link, st *statement, text string) (string, error) {
	name, err := c.x.PrepareNow(ctx, l, &st.sent, c.meaning())
	if err != nil {
		return "", err
	}
	return "EXECUTE " + directory.QuoteIdentifier(name) + argumentText(text), nil
}

// argumentText is what stands behind the name in an EXECUTE, as written.
func argumentText(text string) string {
	lex := lexer.New(text)
	for range 2 { // EXECUTE name
		if _, ok := lex.Next(); !ok {
			return ""
		}
	}
	if first, ok := lex.Next(); ok {
		return text[first.Start:]
	}
	return ""
}

func (c *Session) scatterExecute(ctx context.Context, st *statement, target planner.Target, args planner.Args) error {
	sent := st.sent
	if st.plan.SQL != "" {
		sent = c.statementFor(st.sent.ID+1, st.name, st.plan.SQL, st.sent.Types)
	}
	sent.NoPosition = true
	if st.plan.Modify != nil {
		return c.modifyWhole(ctx, &writer{
			plan: st.plan, shards: target.Shards, target: target, sent: &sent, bind: &wire.Bind{Params: args.Params}, types: st.described.Parameters,
		})
	}
	return c.scatterWhole(ctx, st.plan, exec.ScatterRequest{
		Shards: target.Shards, Statement: &sent, Meaning: c.meaning(), Bind: &wire.Bind{Params: args.Params},
		Types: st.described.Parameters, Merge: st.plan.Merge, Tag: st.plan.Tag,
	}, args)
}

// executeName is the statement that an EXECUTE names; no statement has the empty name of another plan.
func executeName(plan *planner.Plan) string {
	if plan.Kind != planner.Execute {
		return "\x00"
	}
	return plan.Execute.Name
}

// executeTargets routes an EXECUTE of the extended protocol.
func (c *Session) executeTargets(ctx context.Context, outer *statement) (planner.Target, error) {
	st, err := c.find([]byte(outer.plan.Execute.Name))
	if err != nil {
		return planner.Target{}, err
	}
	// The map may have changed since the statement was prepared, or was run last.
	if err := c.replan(ctx, st); err != nil {
		return planner.Target{}, err
	}
	target, _, err := c.routeExecute(ctx, st, outer.plan.Execute)
	if err == nil && (!target.Whole || len(target.Shards) > 1) {
		err = errNewerMap("the partition map changed since the portal was bound") // see bindExecute
	}
	return target, err
}

// rewriteExecute is an EXECUTE of the extended protocol as a link gets it.
func (c *Session) rewriteExecute(ctx context.Context, l *link, outer *statement) (*exec.Statement, error) {
	st, err := c.prepared(ctx, outer.plan.Execute)
	if err != nil {
		return nil, err
	}
	text, err := c.executeText(ctx, l, st, outer.parsed.Text)
	if err != nil {
		return nil, err
	}
	c.nextID += 2
	sent := c.statementFor(c.nextID, "", text, nil)
	sent.Part = argumentPart(&outer.parsed, text)
	outer.sent.Parsed = true
	return &sent, nil
}
