package exec

import (
	"context"
	"strings"

	"github.com/shardyard/shardyard/router/backend"
	"github.com/shardyard/shardyard/router/pgerr"
)

// A function may change settings of the session, and nothing in the statement that calls it says so. The connection is asked for them:
// within the transaction, when another statement is about to run, and when it has ended, as only then it can be told what was LOCAL.

// NoteUnread says that a statement which may change settings unseen has run: on those of the session's connections that are dirty.
// They stay with it until Read or ForgetUnread.
func (x *Executor) NoteUnread() {
	for _, l := range x.links {
		l.unread = l.unread || l.conn.Dirty()
	}
}

// ForgetUnread says that what ran since is rolled back.
func (x *Executor) ForgetUnread() {
	for _, l := range x.links {
		l.unread = false
	}
	x.unreadLost = false
}

// Unread are the connections of NoteUnread. It fails if one was lost: nobody knows what was set there.
func (x *Executor) Unread() ([]*Link, error) {
	if x.unreadLost {
		return nil, pgerr.New(pgerr.ConnectionFailure, "the connection to a shard was lost")
	}
	var links []*Link
	for _, l := range x.links {
		if l.unread {
			links = append(links, l)
		}
	}
	return links, nil
}

// Settings are those that the connection is known to have.
func (l *Link) Settings() *backend.Settings { return l.conn.Settings() }

const superuserSetting = "is_superuser"

// settingsQuery tells what was set in the session. What is not among pg_settings is asked for by name.
const settingsQuery = `WITH s AS MATERIALIZED (SELECT pg_catalog.lower(name) AS name, source FROM pg_catalog.pg_settings)
SELECT name, pg_catalog.current_setting(name) FROM s WHERE source OPERATOR(pg_catalog.=) 'session'
AND NOT name OPERATOR(pg_catalog.=) ANY ('{transaction_isolation,transaction_read_only,transaction_deferrable}'::pg_catalog.text[])
UNION ALL SELECT n, pg_catalog.current_setting(n, true) FROM pg_catalog.unnest(ARRAY[$names]::pg_catalog.text[]) AS u(n)
WHERE NOT EXISTS (SELECT FROM s WHERE s.name OPERATOR(pg_catalog.=) u.n)`

// ReadSettings asks a link of Unread what it has set, and notes it as the link's settings. names are those that pg_settings does not
// have, which are asked for. superuser says whether the role that counts is one. ended: the transaction has ended, and nothing cancels the question.
func (x *Executor) ReadSettings(ctx context.Context, l *Link, names []string, ended bool) (have *backend.Settings, superuser string, err error) {
	asked := []string{"'role'", "'session_authorization'", Quote(superuserSetting)}
	for name := range l.conn.Settings().All {
		asked = append(asked, Quote(name))
	}
	for _, name := range names {
		asked = append(asked, Quote(name))
	}
	sql := strings.Replace(settingsQuery, "$names", strings.Join(asked, ", "), 1)
	rows, timeout, err := x.AskUnread(ctx, l, sql, ended)
	if err != nil {
		return nil, "", err
	}
	values := make(map[string]string, len(rows))
	for _, row := range rows {
		if len(row) == 2 && row[0] != nil && row[1] != nil {
			values[*row[0]] = *row[1]
		}
	}
	if timeout != "" {
		values[timeoutSetting] = timeout
	}
	superuser = values[superuserSetting]
	x.dropDefaults(l, values)
	have = backend.NewSettings(values)
	if ended {
		l.unread = false
	}
	l.SetSettings(have.Without("application_name"))
	return have, superuser, nil
}

// AskUnread asks a link of Unread. ended: the transaction has ended, and nothing may cancel the question; it returns the statement_timeout
// of the connection, if that has tried.
func (x *Executor) AskUnread(ctx context.Context, l *Link, sql string, ended bool) (rows [][]*string, timeout string, err error) {
	if !ended {
		rows, err = x.Ask(ctx, l, sql)
		return rows, "", err
	}
	defer x.uncancellable()()
	if rows, err = x.Ask(ctx, l, sql); l.timedOut(err) {
		return x.askUnhurried(ctx, l, sql)
	}
	return rows, "", err
}

// timedOut reports whether a question was cancelled: the session has a short statement_timeout.
func (l *Link) timedOut(err error) bool {
	return err != nil && !l.conn.Broken() && pgerr.Of(err).Code == pgerr.QueryCanceled
}

const timeoutSetting = "statement_timeout"

// unhurriedTries bounds the attempts to set the timeout, for which it counts too.
const unhurriedTries = 50

// askUnhurried asks a link, outside of a transaction, without a statement_timeout, which it returns.
func (x *Executor) askUnhurried(ctx context.Context, l *Link, sql string) (rows [][]*string, timeout string, err error) {
	ask := func(sql string) (rows [][]*string, err error) {
		for range unhurriedTries {
			if rows, err = x.Ask(ctx, l, sql); !l.timedOut(err) {
				break
			}
		}
		return rows, err
	}
	shown, err := ask("SHOW " + timeoutSetting)
	if err != nil {
		return nil, "", err
	}
	if _, err := ask("SET " + timeoutSetting + " = 0"); err != nil {
		return nil, "", err
	}
	rows, err = ask(sql)
	if err != nil {
		return nil, "", err
	}
	timeout = *shown[0][0]
	_, err = ask("SELECT pg_catalog.set_config('" + timeoutSetting + "', " + Quote(timeout) + ", false)")
	return rows, timeout, err
}

// dropDefaults takes out of what a link has set what it has without that, and what is the router's.
func (x *Executor) dropDefaults(l *Link, values map[string]string) {
	before := l.conn.Settings()
	had := func(name string) bool {
		_, ok := before.Get(name)
		return ok
	}
	delete(values, superuserSetting)
	if values["role"] == "none" && !had("role") {
		delete(values, "role")
	}
	if values["session_authorization"] == x.identity.User && !had("session_authorization") {
		delete(values, "session_authorization")
	}
	if l.lifted {
		delete(values, "idle_in_transaction_session_timeout")
	}
	if l.begun || l.pipelined || strings.HasPrefix(values["application_name"], l.conn.ApplicationName()) {
		delete(values, "application_name")
	}
	for name, value := range values {
		if value == "" && strings.Contains(name, ".") && !had(name) {
			delete(values, name) // one that another session had
		}
	}
}
