package planner

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"unicode/utf8"
	"unsafe"

	"github.com/maypok86/otter/v2"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner/lexer"
	"github.com/shardyard/shardyard/planner/shardsql"
)

// maxCachedKey is the longest cache key kept, in bytes: longer statements are planned each time.
const maxCachedKey = 32 << 10

// Planner plans statements and remembers the plans. Safe for concurrent use.
type Planner struct {
	cache   *otter.Cache[string, *entry]
	scratch sync.Pool // of *scratch

	made, found atomic.Uint64
}

// Plans tells how many statements were planned, and for how many a plan was in the cache.
func (p *Planner) Plans() (made, found uint64) { return p.made.Load(), p.found.Load() }

// entry is what the cache knows under a key. It counts only under the epoch and catalog it was made for.
type entry struct {
	epoch   directory.Epoch
	catalog uint64
	// plan is nil when the plan depends on the values of literals: then it is under the key of the
	// exact text.
	plan *Plan
}

// scratch are the buffers of one lookup.
type scratch struct {
	normaliser lexer.Normaliser
	key        []byte
}

// New gives a Planner with an empty cache.
func New(config Config) *Planner {
	if config.CacheSize <= 0 {
		config.CacheSize = 25_000
	}
	p := &Planner{
		cache: otter.Must(&otter.Options[string, *entry]{
			MaximumSize: config.CacheSize,
			Executor:    func(task func()) { task() }, // no goroutine of its own
		}),
	}
	p.scratch.New = func() any { return new(scratch) }
	return p
}

// Single reports at a glance that a text has no more than one statement. Of some it does not see it.
func Single(sql string) bool {
	end := strings.IndexByte(sql, ';')
	return end < 0 || strings.Trim(sql[end+1:], " \t\n\r\f\v") == ""
}

// Statements splits a client's text into statements. If one of several does not parse, the result is
// the whole text as one statement, whose plan asks the home shard for the error (Plan.ParseOnly), so
// that nothing of it runs, as in Postgres. A text without statements gives one statement, whose plan is
// Empty. The error is always nil.
func (p *Planner) Statements(sql string) ([]Statement, error) {
	if Single(sql) {
		return []Statement{{Text: sql}}, nil
	}
	spans := lexer.Split(sql)
	if len(spans) <= 1 {
		return []Statement{{Text: sql}}, nil
	}
	out := make([]Statement, 0, len(spans))
	at, chars := 0, 0
	for _, span := range spans {
		text := sql[span.Start:span.End]
		if !shardsql.Recognise(text) {
			if _, err := parse(text); err != nil {
				return []Statement{{Text: sql, unparsable: true}}, nil
			}
		}
		chars += utf8.RuneCountInString(sql[at:span.Start])
		at = span.Start
		out = append(out, Statement{Text: text, Offset: at, Chars: chars})
	}
	return out, nil
}

// Plan plans one statement. paramTypes are the types that the client declared for parameters, 0 where
// it left one open. The error, if any, is a *Error (a refusal, or an error in a sharding statement).
func (p *Planner) Plan(st *Statement, paramTypes []uint32, env *Env) (*Plan, error) {
	s := p.scratch.Get().(*scratch)
	defer p.scratch.Put(s)
	if st.unparsable || s.normaliser.Normalise(st.Text) != nil {
		return parseOnly(env), nil
	}
	st.literals = append(st.literals[:0], s.normaliser.Literals...)
	st.normalised = true
	s.key = env.appendKey(s.key[:0], paramTypes)
	settings := len(s.key)
	s.key = append(append(s.key, 'n'), s.normaliser.Key...)
	cached := len(s.key) <= maxCachedKey && !st.Native
	if cached {
		found := p.lookup(s.key, env)
		if found != nil && found.plan != nil {
			p.found.Add(1)
			return found.plan, nil
		}
		if found != nil {
			s.key = append(append(s.key[:settings], 't'), st.Text...)
			if found = p.lookup(s.key, env); found != nil && found.plan != nil {
				p.found.Add(1)
				return found.plan, nil
			}
		}
	}
	p.made.Add(1)
	st.Own()
	plan, refusal := newPlan(st, paramTypes, env, false)
	if refusal != nil {
		return nil, refusal
	}
	if !cached || plan.Role != nil { // a password is kept nowhere
		return plan, nil
	}
	made := &entry{epoch: plan.Epoch, catalog: plan.CatalogVersion}
	if plan.valuesUsed {
		s.key = append(append(s.key[:settings], 'n'), s.normaliser.Key...)
		p.cache.Set(string(s.key), made)
		s.key = append(append(s.key[:settings], 't'), st.Text...)
		made = &entry{epoch: plan.Epoch, catalog: plan.CatalogVersion}
	}
	made.plan = plan
	if len(s.key) <= maxCachedKey {
		p.cache.Set(string(s.key), made)
	}
	return plan, nil
}

// Combine plans a statement whose Target says Combine, by the plan that Plan gave for it. The result has Plan.Combine; it serves this
// text alone. The error is a *Error: the refusal.
func (p *Planner) Combine(st *Statement, plan *Plan, paramTypes []uint32, env *Env) (*Plan, error) {
	if plan.Combine != nil {
		return plan, nil
	}
	key := append(append(env.appendKey(nil, paramTypes), 'c'), st.Text...)
	if found := p.lookup(key, env); found != nil {
		p.found.Add(1)
		plan = found.plan
	} else {
		p.made.Add(1)
		st.Own()
		made, refusal := newPlan(st, paramTypes, env, true)
		if refusal != nil {
			return nil, refusal
		}
		plan = made
		if len(key) <= maxCachedKey {
			p.cache.Set(string(key), &entry{epoch: plan.Epoch, catalog: plan.CatalogVersion, plan: plan})
		}
	}
	if plan.Combine == nil {
		return nil, plan.Refusal
	}
	return plan, nil
}

// lookup finds an entry that is not stale.
func (p *Planner) lookup(key []byte, env *Env) *entry {
	found, ok := p.cache.GetIfPresent(unsafe.String(unsafe.SliceData(key), len(key)))
	if !ok || found.epoch != env.Map.Epoch || found.catalog != env.Catalog.Version {
		return nil
	}
	return found
}

// appendKey appends what a plan depends on besides the text.
func (e *Env) appendKey(key []byte, types []uint32) []byte {
	text := func(s string) { key = append(append(key, s...), 0) }
	text(e.Map.Database)
	userMatters := false
	for _, schema := range e.SearchPath {
		text(schema)
		userMatters = userMatters || schema == "$user"
	}
	key = append(key, 1)
	if userMatters {
		text(e.User)
	}
	text(e.TimeZone)
	text(e.DateStyle)
	text(e.IntervalStyle)
	for _, name := range e.TempNames {
		text(name)
	}
	key = append(key, 2)
	if e.StandardConformingStrings {
		key = append(key, 3)
	}
	for _, oid := range types {
		key = binary.LittleEndian.AppendUint32(key, oid)
	}
	return append(key, 4, byte(len(types)))
}

// parseOnly asks the home shard for the error in a statement that our parser rejects.
func parseOnly(env *Env) *Plan {
	return &Plan{
		Kind: Relay, ParseOnly: true, Route: Route{Kind: RouteHome, fixed: []directory.ShardID{env.Map.Home}},
		Epoch: env.Map.Epoch, CatalogVersion: env.Catalog.Version,
	}
}

// escapes reports whether a text may mean something else where standard_conforming_strings is off.
func escapes(text string) bool {
	return strings.Contains(text, `\`) || strings.Contains(text, "&'") || strings.Contains(text, `&"`)
}

// newPlan plans a statement without the cache; pieces: one that is to be combined.
func newPlan(st *Statement, types []uint32, env *Env, pieces bool) (plan *Plan, refusal *Error) {
	defer func() {
		// What walks a parse tree of any statement must not take the router down.
		if broken := recover(); broken != nil {
			plan, refusal = nil, &Error{Code: codeInternal, Message: fmt.Sprintf("the planner failed: %v", broken), Hint: "Please report the statement."}
		}
	}()
	if shardsql.Recognise(st.Text) {
		return planSharding(st, env)
	}
	if !env.StandardConformingStrings && env.Map.AnythingSharded() && escapes(st.Text) {
		if followedWord(lexer.FirstKeyword(st.Text)) {
			return nil, refuse("SET standard_conforming_strings = on.",
				"this statement with a backslash is not supported under standard_conforming_strings = off where tables are sharded")
		}
		return parseOnly(env), nil // only the home shard reads it rightly
	}
	if len(st.Text) > maxCachedKey && !env.Map.AnythingSharded() && dataWord(lexer.FirstKeyword(st.Text)) {
		// A bulk INSERT is not worth parsing where there is one shard.
		plan = &Plan{Kind: Relay, Route: Route{Kind: RouteHome}, Dirty: true, SetsUnseen: true}
		finish(plan, env)
		return plan, nil
	}
	tree, err := parse(st.Text)
	if err != nil {
		return parseOnly(env), nil
	}
	m, n := tree.statement()
	switch n {
	case 0:
		plan = &Plan{Kind: Empty, ReadOnly: true}
	case 1:
		a := newAnalysis(st, types, env, m)
		a.pieces = pieces
		if plan, refusal = a.planStatement(m); refusal != nil {
			return nil, refusal
		}
		plan.valuesUsed = plan.valuesUsed || a.valuesUsed
		a.noteUnseen(plan)
	default:
		return nil, &Error{Code: codeSyntax, Message: "cannot insert multiple commands into a prepared statement"}
	}
	finish(plan, env)
	return plan, nil
}

// finish stamps a plan.
func finish(plan *Plan, env *Env) {
	plan.Epoch, plan.CatalogVersion = env.Map.Epoch, env.Catalog.Version
	switch plan.Route.Kind {
	case RouteHome:
		plan.Route.fixed = []directory.ShardID{env.Map.Home}
	case RouteShard:
		plan.Route.fixed = []directory.ShardID{plan.Route.Shard}
	}
	if plan.Refusal != nil && !plan.valuesUsed && plan.Refusal.Position != 0 {
		// The plan serves texts in which the place is another.
		general := *plan.Refusal
		general.Position = 0
		plan.Refusal = &general
	}
	if plan.Explain != nil && plan.Explain.Inner != nil {
		finish(plan.Explain.Inner, env)
	}
}

// followedWord tells the first words of statements that the session must know.
func followedWord(word string) bool {
	switch word {
	case "set", "reset", "show", "begin", "start", "commit", "end", "rollback", "abort", "discard", "",
		"savepoint", "release", "prepare", "execute", "deallocate", "listen", "unlisten", "declare":
		return true
	}
	return false
}

func dataWord(word string) bool {
	switch word {
	case "select", "insert", "update", "delete", "values", "with", "merge", "table":
		return true
	}
	return false
}

// planSharding plans SHARD TABLE and its kin, and SHOW SHARDS and its kin.
func planSharding(st *Statement, env *Env) (*Plan, *Error) {
	parsed, err := shardsql.Parse(st.Text)
	if err != nil {
		var known *shardsql.Error
		if errors.As(err, &known) {
			return nil, &Error{Code: known.Code, Message: known.Message, Hint: known.Hint, Position: known.Position}
		}
		return nil, &Error{Code: codeInternal, Message: err.Error()}
	}
	plan := &Plan{Kind: Sharding, Sharding: parsed, valuesUsed: true}
	switch parsed.(type) {
	case *shardsql.ShowShards, *shardsql.ShowTables, *shardsql.ShowPartitions, *shardsql.ShowTransactions, *shardsql.ShowEntries:
		plan.Kind, plan.Tag, plan.ReadOnly = ShowSharding, "SHOW", true
	case *shardsql.UnshardTable:
		plan.Tag = "UNSHARD TABLE"
	case *shardsql.AlterShardTable, *shardsql.AssignEntries:
		plan.Tag = "ALTER SHARD TABLE"
	case *shardsql.ShardFunction:
		plan.Tag = "SHARD FUNCTION"
	default:
		plan.Tag = "SHARD TABLE"
	}
	finish(plan, env)
	return plan, nil
}
