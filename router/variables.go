package router

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner"
	"github.com/shardyard/shardyard/planner/lexer"
	"github.com/shardyard/shardyard/router/backend"
	"github.com/shardyard/shardyard/router/pgerr"
	"github.com/shardyard/shardyard/router/wire"
)

// variables are the session's run-time parameters. What a client sets is kept here and carried to every
// connection that a statement touches.
type variables struct {
	startup  map[string]string // as the start-up message had them
	options  string            // of the start-up message
	defaults map[string]string // what a server connection starts with, by the names that servers report

	base       *backend.Settings // what RESET goes back to
	current    *backend.Settings // what counts now, SET LOCAL included
	carried    *backend.Settings // current without the router's own, for connections
	persistent *backend.Settings // what will count after the transaction
	// saved are the variables at the beginning of the transaction and at each savepoint.
	saved []savedVariables

	reported map[string]string // what the client was told
	version  uint64            // changes with current
	// idleSession and idleTransaction are how long the client may be silent; 0: for ever.
	idleSession, idleTransaction time.Duration
	meaning                      string // of the settings that change what a statement means
	env                          planner.Env
	// superusers has what servers said of roles that the session has taken: "on" or "off".
	superusers map[string]string
	// told is the version that reported was made of.
	told toldVersion
	// real are the names with dots that are known to be settings of an extension.
	real map[string]bool
	// foreign: client_encoding is not UTF8, so the planner cannot read what is not ASCII.
	foreign bool
}

// toldVersion says what the settings that the client was told depend on.
type toldVersion struct {
	version uint64
	failed  bool
}

type savedVariables struct{ current, persistent *backend.Settings }

// reportedSettings are those that servers report without being asked (GUC_REPORT) and that a client can change.
var reportedSettings = []string{
	"application_name", "client_encoding", "DateStyle", "default_transaction_read_only", "IntervalStyle",
	"is_superuser", "session_authorization", "standard_conforming_strings", "TimeZone",
}

// askedSettings are settings that servers do not report, whose defaults the router must know.
var askedSettings = []string{"search_path", "default_transaction_isolation", "client_min_messages", idleSessionSetting, idleTransactionSetting}

// value is what a setting has now, as SHOW would say. Only for the reported and asked ones.
func (v *variables) value(name string) string {
	if value, ok := v.current.Get(name); ok {
		return value
	}
	if name == snapshotSetting {
		return defaultSnapshot
	}
	return v.defaults[name]
}

// changed brings what is derived from the settings up to date.
func (v *variables) changed(user string) {
	v.version++
	v.carried = v.current.Without(snapshotSetting).Without(idleSessionSetting)
	if of := v.defaults[idleSessionSetting]; of != "" && of != "0" {
		v.carried = v.carried.With(idleSessionSetting, "0") // a connection of the pool is idle without fault
	}
	v.idleSession, v.idleTransaction = settingDuration(v.value(idleSessionSetting)), settingDuration(v.value(idleTransactionSetting))
	role := roleOf(v.current, user)
	v.env.User = role
	v.env.SearchPath = splitList(v.value("search_path"))
	v.env.TimeZone, v.env.DateStyle = v.value("TimeZone"), v.value("DateStyle")
	v.env.IntervalStyle = v.value("IntervalStyle")
	v.env.StandardConformingStrings = v.value("standard_conforming_strings") != "off"
	v.foreign = v.value("client_encoding") != "UTF8"
	v.meaning = strings.Join([]string{
		v.env.TimeZone, v.env.DateStyle, v.env.IntervalStyle, v.value("search_path"), role,
		v.value("standard_conforming_strings"), v.value("client_encoding"), v.other(),
	}, "\x00")
}

// other are settings that change how constants are read and that are rarely set.
func (v *variables) other() string {
	text := ""
	for _, name := range []string{"lc_monetary", "lc_time", "xmloption", "default_text_search_config", "quote_all_identifiers", "transform_null_equals", "array_nulls", "bytea_output"} {
		if value, ok := v.current.Get(name); ok {
			text += name + "=" + value + ";"
		}
	}
	return text
}

// splitList splits a setting that is a list of names, as SplitIdentifierString does, keeping elements as written.
func splitList(list string) []string {
	var names []string
	lex := lexer.New(list)
	for {
		token, ok := lex.Next()
		if !ok {
			return names
		}
		switch {
		case token.IsPunct(list, ','):
		case token.Kind == lexer.QuotedIdent || token.Kind == lexer.Ident:
			if name, ok := lexer.IdentValue(list, token); ok {
				names = append(names, name)
			}
		default:
			names = append(names, token.Text(list))
		}
	}
}

// set changes one setting; value is in the form that SHOW returns.
func (v *variables) set(name, value string, local bool) {
	v.current = v.current.With(name, value)
	if !local {
		v.persistent = v.persistent.With(name, value)
	}
}

// reset gives one setting its default.
func (v *variables) reset(name string, local bool) {
	restore := func(s *backend.Settings) *backend.Settings {
		if value, ok := v.base.Get(name); ok {
			return s.With(name, value)
		}
		if isCustom(name) && !v.real[name] {
			return s.With(name, "")
		}
		return s.Without(name)
	}
	v.current = restore(v.current)
	if !local {
		v.persistent = restore(v.persistent)
	}
}

// isCustom reports whether a setting is one of the application's own (app.tenant). Postgres leaves it empty when
// it is reset, where a connection that never had it knows no such name.
func isCustom(name string) bool {
	return strings.Contains(name, ".") && name != snapshotSetting && !strings.HasPrefix(name, "plpgsql.")
}

// isPlainCustom reports whether a name of one's own is one that Postgres takes: two or more simple identifiers with dots between.
func isPlainCustom(name string) bool {
	start := true
	for i := range len(name) {
		switch ch := name[i]; {
		case ch == '_' || ch >= 'a' && ch <= 'z' || ch >= 'A' && ch <= 'Z' || ch >= 0x80:
			start = false
		case ch == '.' && !start:
			start = true
		case start || ch != '$' && (ch < '0' || ch > '9'):
			return false
		}
	}
	return !start
}

// customNames are the names with dots that the session has set.
func (v *variables) customNames() []string {
	var names []string
	for name := range v.current.All {
		if isCustom(name) {
			names = append(names, name)
		}
	}
	return names
}

// learnReal asks which of the names with dots are settings of an extension, which have defaults of their own.
func (c *Session) learnReal(ctx context.Context, names ...string) error {
	names = slices.DeleteFunc(names, func(name string) bool { return c.vars.real[name] })
	if len(names) == 0 || c.x.Failed() {
		return nil
	}
	l, err := c.settingLink(ctx)
	if err != nil {
		return err
	}
	defer c.x.Idle()
	for i, name := range names {
		names[i] = quote(name)
	}
	rows, err := c.x.Ask(ctx, l, "SELECT pg_catalog.lower(name) FROM pg_catalog.pg_settings WHERE pg_catalog.lower(name) IN ("+strings.Join(names, ", ")+")")
	if err != nil {
		return err
	}
	for _, row := range rows {
		if len(row) == 1 && row[0] != nil {
			if c.vars.real == nil {
				c.vars.real = make(map[string]bool)
			}
			c.vars.real[*row[0]] = true
		}
	}
	return nil
}

// resetAll gives every setting its default but those named.
func (v *variables) resetAll(keep ...string) {
	next := v.base
	v.current.All(func(name, value string) bool {
		_, based := v.base.Get(name)
		switch {
		case slices.Contains(keep, name):
			next = next.With(name, value)
		case isCustom(name) && !v.real[name] && !based:
			next = next.With(name, "")
		}
		return true
	})
	v.current, v.persistent = next, next
}

func (v *variables) begin() {
	v.saved = append(v.saved[:0], savedVariables{v.current, v.persistent})
}

func (v *variables) savepoint() {
	v.saved = append(v.saved, savedVariables{v.current, v.persistent})
}

// released forgets the savepoints behind the first n.
func (v *variables) released(n int) { v.saved = v.saved[:min(n+1, len(v.saved))] }

// rolledBackTo goes back to savepoint n, counted from 1, which stays; 0 is the beginning of the transaction.
func (v *variables) rolledBackTo(n int) {
	if n >= len(v.saved) {
		return
	}
	v.current, v.persistent = v.saved[n].current, v.saved[n].persistent
	v.saved = v.saved[:n+1]
}

func (v *variables) committed() {
	v.current, v.saved = v.persistent, v.saved[:0]
}

// settingsChanged carries a change of the variables on: to the executor and, where it is reported, to the client.
func (c *Session) settingsChanged() {
	c.vars.changed(c.user)
	c.x.SetSettings(c.vars.carried)
	c.x.LimitIdle(c.vars.idleTransaction > 0)
	c.x.SetSnapshotMode(snapshotModes[c.vars.value(snapshotSetting)])
}

// report tells the client of reported settings that have changed since it was told last, as Postgres does before each ReadyForQuery.
// In a transaction that has failed they are what its end, or that of its last savepoint, will make of them.
func (c *Session) report() {
	v := &c.vars
	now := toldVersion{v.version, c.x.Failed() && len(v.saved) > 0}
	if v.told == now {
		return
	}
	v.told = now
	settings := v.current
	if now.failed {
		settings = v.saved[len(v.saved)-1].current
	}
	for _, name := range reportedSettings {
		value := v.defaults[name]
		if set, ok := settings.Get(name); ok {
			value = set
		}
		if name == "is_superuser" {
			if told, ok := v.superusers[roleOf(settings, c.user)]; ok {
				value = told
			}
		}
		if value != v.reported[name] {
			v.reported[name] = value
			c.out.Put(func(dst []byte) []byte { return wire.AppendParameterStatus(dst, name, value) })
			if name == "application_name" {
				c.showName(value)
			}
		}
	}
}

// roleOf is the role that counts under the settings, for a session of user.
func roleOf(s *backend.Settings, user string) string {
	role := user
	if name, ok := s.Get("session_authorization"); ok && name != "default" {
		role = name
	}
	if name, ok := s.Get("role"); ok && name != "none" {
		role = name
	}
	return role
}

// greet learns the settings that the session starts with and tells the client.
func (c *Session) greet(ctx context.Context) error {
	if err := c.withNewestMap(ctx, func() error { return c.learnSettings(ctx) }); err != nil {
		return err
	}
	c.vars.base, c.vars.persistent = c.vars.current, c.vars.current
	c.vars.changed(c.user)
	c.x.SetSettings(c.vars.carried)
	c.x.LimitIdle(c.vars.idleTransaction > 0)
	c.x.SetSnapshotMode(snapshotModes[c.vars.value(snapshotSetting)])
	c.vars.reported = make(map[string]string)
	names := slices.Sorted(maps.Keys(c.vars.defaults))
	for _, name := range names {
		if slices.Contains(askedSettings, name) {
			continue
		}
		value := c.vars.value(name)
		c.vars.reported[name] = value
		c.out.Put(func(dst []byte) []byte { return wire.AppendParameterStatus(dst, name, value) })
	}
	return nil
}

// learnSettings asks the home shard for the settings that the session starts with, unless they are known.
func (c *Session) learnSettings(ctx context.Context) error {
	c.enter()
	defer c.leaveFlight()
	id := backend.Identity{Database: c.databaseName, User: c.user}
	defaults, ok := c.server.greeting.get(id)
	home := c.view.partitions.Home
	if !ok {
		defaults, ok = c.knownGreeting(ctx, id)
	}
	if !ok {
		l, stored, err := c.freshLink(ctx, id)
		if err != nil {
			return err
		}
		defaults = make(map[string]string)
		for name, value := range l.ParameterStatuses {
			defaults[name] = value
		}
		for _, name := range askedSettings {
			rows, err := c.x.Ask(ctx, l, "SHOW "+name)
			if err != nil {
				return err
			}
			defaults[name] = oneValue(rows)
		}
		defaults["application_name"] = ""
		c.server.greeting.put(id, defaults, stored)
		c.x.Idle()
	}
	c.vars.defaults = defaults
	return c.applyStartup(ctx, home)
}

// applyStartup has the settings of the start-up message checked by the home shard, unless they are what
// it starts with anyway.
func (c *Session) applyStartup(ctx context.Context, home directory.ShardID) error {
	for _, name := range slices.Sorted(maps.Keys(c.vars.startup)) {
		value := c.vars.startup[name]
		if name == "application_name" {
			c.vars.current = c.vars.current.With(name, cleanASCII(value))
			c.dumping = value == dumper
			continue
		}
		if strings.EqualFold(name, snapshotSetting) {
			checked, err := snapshotValue(value)
			if err != nil {
				return err.Fatal()
			}
			c.vars.current = c.vars.current.With(name, checked)
			continue
		}
		if sameDefault(c.vars.defaults, name, value) {
			continue
		}
		l, err := c.x.Link(ctx, home)
		if err != nil {
			return err
		}
		// The limit of an idle session is ours to keep: the connection would end in the pool.
		rows, err := c.x.Ask(ctx, l, fmt.Sprintf("SELECT pg_catalog.set_config(%s, %s, %t)", quote(name), quote(value), name == idleSessionSetting))
		if err != nil {
			return err
		}
		c.vars.current = c.vars.current.With(name, oneValue(rows))
		carried := c.vars.current.Without(snapshotSetting).Without(idleSessionSetting)
		l.SetSettings(carried)
		c.x.SetSettings(carried)
	}
	c.x.Idle()
	return nil
}

func sameDefault(defaults map[string]string, name, value string) bool {
	for known, now := range defaults {
		if strings.EqualFold(known, name) {
			return strings.EqualFold(now, value)
		}
	}
	return false
}

// cleanASCII replaces what is not printable ASCII, as Postgres does in application_name.
func cleanASCII(s string) string {
	cleaned := []byte(truncateName(s))
	for i, ch := range cleaned {
		if ch < 32 || ch > 126 {
			cleaned[i] = '?'
		}
	}
	return string(cleaned)
}

func oneValue(rows [][]*string) string {
	if len(rows) == 1 && len(rows[0]) == 1 && rows[0][0] != nil {
		return *rows[0][0]
	}
	return ""
}

// runSet runs SET and RESET. A shard checks the value, so that errors are Postgres's own, and says how it reads.
func (c *Session) runSet(ctx context.Context, st *planner.Statement, s *planner.Setting) error {
	if s.Local && !c.x.InBlock() && !c.x.InImplicitBlock() {
		c.notice(warning("25P01", "SET LOCAL can only be used in transaction blocks"))
	}
	switch s.Name {
	case "application_name":
		return c.setApplicationName(s)
	case snapshotSetting:
		return c.setSnapshot(s)
	case "transaction_isolation", "transaction_read_only", "transaction_deferrable":
		return c.setTransactionVariable(ctx, s)
	case "":
		if err := c.learnReal(ctx, c.vars.customNames()...); err != nil {
			return err
		}
		c.saveForPipeline()
		c.vars.resetAll("role", "session_authorization")
		c.settingsChanged()
		return nil
	case "session characteristics":
		return c.setCharacteristics(ctx, st)
	}
	// A name of one's own takes any value: there is nothing to check.
	if prefix, _, custom := strings.Cut(s.Name, "."); custom && prefix != "plpgsql" && !s.Opaque && isPlainCustom(s.Name) && !c.vars.real[s.Name] {
		if s.Default {
			if err := c.learnReal(ctx, s.Name); err != nil {
				return err
			}
		}
		c.assign(s, s.Value)
		return nil
	}
	return c.setOnShard(ctx, st, s)
}

func (c *Session) assign(s *planner.Setting, value string) {
	local := s.Local
	if local && !c.x.InBlock() && !c.x.InImplicitBlock() {
		return // gone as soon as it is set
	}
	c.saveForPipeline()
	if s.Default {
		c.vars.reset(s.Name, local)
	} else {
		c.vars.set(s.Name, value, local)
	}
	if s.Name == "session_authorization" {
		c.vars.reset("role", local) // the new user has not chosen a role yet
	}
	c.settingsChanged()
}

// saveForPipeline notes the variables before the first change of a pipeline's implicit transaction.
func (c *Session) saveForPipeline() {
	if !c.rest.simple && len(c.vars.saved) == 0 {
		c.vars.begin()
	}
}

// endPipelineVariables keeps or undoes what a pipeline outside of a transaction has set.
func (c *Session) endPipelineVariables(failed bool) {
	if c.x.InBlock() {
		return
	}
	c.listened(!failed)
	if len(c.vars.saved) == 0 {
		return
	}
	if failed {
		c.vars.rolledBackTo(0)
		c.settingsChanged()
	} else if c.vars.current != c.vars.persistent { // what was found set within it may have been LOCAL
		c.vars.current = c.vars.persistent
		c.settingsChanged()
	}
	c.vars.saved = c.vars.saved[:0]
}

func (c *Session) setApplicationName(s *planner.Setting) error {
	c.assign(s, cleanASCII(s.Value))
	return nil
}

// settingLink is a connection to try settings on: one that the transaction has anyway, or one of the home shard.
func (c *Session) settingLink(ctx context.Context) (*link, error) {
	shard, ok := c.x.AnyHeld()
	if !ok {
		shard = c.view.partitions.Home
	}
	return c.x.Link(ctx, shard)
}

func (c *Session) setOnShard(ctx context.Context, st *planner.Statement, s *planner.Setting) error {
	l, err := c.settingLink(ctx)
	if err != nil {
		return err
	}
	defer c.x.Idle()
	if s.Local && !c.x.InBlock() && !c.x.InImplicitBlock() {
		return shifted(c.x.Command(ctx, l, st.Text), st)
	}
	value, err := c.setForSession(ctx, l, st, s)
	if err != nil {
		return err
	}
	c.assign(s, value)
	if s.Name == "role" || s.Name == "session_authorization" {
		is, err := c.askOne(ctx, l, "SHOW is_superuser")
		if err != nil {
			return err
		}
		c.vars.noteSuperuser(is)
	}
	l.SetSettings(c.vars.carried)
	return c.keepIdle(ctx, l, s)
}

// withoutLocal is the text of a SET LOCAL as a SET. The positions in it stay.
func withoutLocal(text string) string {
	words := lexer.New(text)
	for {
		word, ok := words.Next()
		if !ok {
			return text
		}
		if strings.EqualFold(text[word.Start:word.End], "local") {
			return text[:word.Start] + strings.Repeat(" ", word.End-word.Start) + text[word.End:]
		}
	}
}

// setForSession sets on a connection and returns the value as Postgres shows it.
//
// Invariant: what a connection has of the session is set for the connection's session, never LOCAL, so that the same record of it
// is right after the transaction. Nor may a setting take the transaction's snapshot, as a query would: Postgres takes it at the first one.
func (c *Session) setForSession(ctx context.Context, l *link, st *planner.Statement, s *planner.Setting) (value string, err error) {
	text := st.Text
	if s.Local {
		text = withoutLocal(text)
	}
	if err := c.x.Command(ctx, l, text); err != nil {
		return "", shifted(err, st)
	}
	if base, ok := c.vars.base.Get(s.Name); ok && s.Default { // a default of the start-up message, which the server does not know
		return c.askOne(ctx, l, "SELECT pg_catalog.set_config("+quote(s.Name)+", "+quote(base)+", false)")
	}
	return c.askOne(ctx, l, "SHOW "+directory.QuoteIdentifier(s.Name))
}

// askOne asks a shard for one value.
func (c *Session) askOne(ctx context.Context, l *link, sql string) (string, error) {
	rows, err := c.x.Ask(ctx, l, sql)
	if err != nil {
		return "", err
	}
	if len(rows) != 1 || len(rows[0]) != 1 || rows[0][0] == nil {
		return "", fmt.Errorf("read a setting: unexpected answer to %s", sql)
	}
	return *rows[0][0], nil
}

// keepIdle takes a limit from a connection that is the router's to keep.
func (c *Session) keepIdle(ctx context.Context, l *link, s *planner.Setting) error {
	if s.Name != idleSessionSetting {
		return nil
	}
	_, err := c.x.Ask(ctx, l, "SELECT pg_catalog.set_config("+quote(s.Name)+", '0', false)")
	return err
}

// maxRememberedRoles bounds what is remembered of roles.
const maxRememberedRoles = 1000

// noteSuperuser notes what a server says of the role that counts now.
func (v *variables) noteSuperuser(is string) {
	if v.superusers == nil || len(v.superusers) >= maxRememberedRoles {
		v.superusers = make(map[string]string)
	}
	v.superusers[v.env.User] = is
}

// setTransactionVariable is SET transaction_isolation and its like: SET TRANSACTION in other words.
func (c *Session) setTransactionVariable(ctx context.Context, s *planner.Setting) error {
	if !c.x.InBlock() {
		return nil // it ends with the statement itself
	}
	modes := planner.Transaction{}
	on := s.Value == "on" || s.Value == "true" || s.Value == "1" || s.Value == "yes"
	switch {
	case s.Default:
		return pgerr.Unsupported("RESET "+s.Name+" is not supported", "Use SET TRANSACTION.")
	case s.Name == "transaction_isolation":
		modes.Isolation = strings.ToLower(s.Value)
	case s.Name == "transaction_read_only" && on:
		modes.Access = "read only"
	case s.Name == "transaction_read_only":
		modes.Access = "read write"
	case on:
		modes.Deferrable = "deferrable"
	default:
		modes.Deferrable = "not deferrable"
	}
	switch modes.Isolation {
	case "", "read committed", "read uncommitted", "repeatable read", "serializable":
	default:
		return pgerr.Newf("22023", "invalid value for parameter %q: %q", s.Name, s.Value)
	}
	return c.x.SetModes(ctx, modes)
}

// setCharacteristics is SET SESSION CHARACTERISTICS AS TRANSACTION …: it sets the defaults of new transactions.
func (c *Session) setCharacteristics(ctx context.Context, st *planner.Statement) error {
	l, err := c.settingLink(ctx)
	if err != nil {
		return err
	}
	defer c.x.Idle()
	if err := c.x.Command(ctx, l, st.Text); err != nil {
		return shifted(err, st)
	}
	for _, name := range []string{"default_transaction_isolation", "default_transaction_read_only", "default_transaction_deferrable"} {
		rows, err := c.x.Ask(ctx, l, "SHOW "+name)
		if err != nil {
			return err
		}
		c.saveForPipeline()
		c.vars.set(name, oneValue(rows), false)
	}
	c.settingsChanged()
	l.SetSettings(c.vars.carried)
	return nil
}

// trackSetConfig notes what a statement's calls of set_config did, on the connection where it ran.
func (c *Session) trackSetConfig(ctx context.Context, l *link, calls []planner.Setting) error {
	if len(calls) == 0 {
		return nil
	}
	for i := range calls {
		s := &calls[i]
		if s.Name == "application_name" {
			c.assign(s, cleanASCII(s.Value))
			continue
		}
		local := s.Local && !c.x.InBlock() && !c.x.InImplicitBlock()
		if local {
			continue
		}
		rows, err := c.x.Ask(ctx, l, fmt.Sprintf("SELECT pg_catalog.set_config(%[1]s, pg_catalog.current_setting(%[1]s), false)", quote(s.Name)))
		if err != nil {
			return err
		}
		c.assign(s, oneValue(rows))
		if err := c.keepIdle(ctx, l, s); err != nil {
			return err
		}
	}
	l.SetSettings(c.vars.carried)
	return nil
}
