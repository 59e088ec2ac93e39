package console

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/router/backend"
)

// show is one SHOW command.
type show struct {
	meaning string
	columns []column
	rows    func(*State) []row
}

// socketColumns are those of SHOW CLIENTS and SHOW SERVERS.
var socketColumns = join(
	text("type", "user", "database", "replication", "state", "addr"), number("port"), text("local_addr"), number("local_port"),
	text("connect_time", "request_time"), number("wait", "wait_us", "close_needed"), text("ptr", "link"), number("remote_pid"),
	text("tls", "application_name"), number("prepared_statements"), wide("id"), text("shard"),
)

// shows are the SHOW commands. Their columns are those of PgBouncer 1.24.
var shows = map[string]*show{
	"pools": {"the pools of server connections: one for each database, user and shard", join(
		text("database", "user"), number("cl_active", "cl_waiting", "cl_active_cancel_req", "cl_waiting_cancel_req", "sv_active",
			"sv_active_cancel", "sv_being_canceled", "sv_idle", "sv_used", "sv_tested", "sv_login", "maxwait", "maxwait_us"),
		text("pool_mode", "load_balance_hosts", "shard")), poolRows},
	"clients": {"the clients of the router", socketColumns, clientRows},
	"servers": {"the connections to the shards", socketColumns, serverRows},
	"databases": {"the databases, on each shard", join(
		text("name", "host"), number("port"), text("database", "force_user"), number("pool_size", "min_pool_size", "reserve_pool_size", "server_lifetime"),
		text("pool_mode", "load_balance_hosts"),
		number("max_connections", "current_connections", "max_client_connections", "current_client_connections", "paused", "disabled"),
		text("shard")), databaseRows},
	"users": {"the users that have clients, connections or settings", join(
		text("name"), text("pool_size", "reserve_pool_size", "pool_mode"),
		number("max_user_connections", "current_connections", "max_user_client_connections", "current_client_connections")), userRows},
	"stats":          {"what each database has counted, and averages of the last minute or two", join(text("database"), wide(prefixed("total_", totalNames)...), wide(averageNames...)), statsRows},
	"stats_totals":   {"what each database has counted", join(text("database"), wide(plainNames...)), totalsRows},
	"stats_averages": {"averages of the last minute or two", join(text("database"), wide(plainNames...)), averagesRows},
	"totals":         {"the same for all databases together", join(text("name"), wide("value")), sumRows},
	"lists":          {"how many there are of what", join(text("list"), number("items")), listRows},
	"config":         {"the configuration", text("key", "value", "default", "changeable"), configRows},
	"state":          {"whether the router takes clients", text("key", "value"), stateRows},
	"version":        {"the router's version", text("version"), func(s *State) []row { return []row{{s.Version}} }},
	"help":           {"this list", text("command", "meaning"), nil}, // it lists them all
}

// result runs the command on a state, which is taken only if it is needed.
func (s *show) result(state func() *State) []row {
	if s.rows == nil {
		return helpRows()
	}
	return s.rows(state())
}

func clientName(id uint64) string { return "c" + strconv.FormatUint(id, 10) }
func serverName(id uint64) string { return "s" + strconv.FormatUint(id, 10) }

// poolRows: cl_active of a pool are the clients that hold a connection of it. Those that hold none of any shard and wait for none
// stand in the row of the home shard, so that the rows of a database and user add up to its clients.
func poolRows(s *State) []row {
	busy := make(map[uint64]bool)
	for _, c := range s.Connections {
		busy[c.Session] = true
	}
	for _, w := range s.Waiting {
		busy[w.Session] = true
	}
	idle := make(map[backend.Identity]int)
	for _, c := range s.Clients {
		if !c.Admin && !busy[c.ID] {
			idle[c.Identity]++
		}
	}
	pools := slices.Clone(s.Pools)
	for id := range idle {
		if !slices.ContainsFunc(pools, func(p backend.PoolStats) bool { return p.Shard == s.Home && p.Identity == id }) {
			pools = append(pools, backend.PoolStats{Shard: s.Home, Identity: id, Limits: s.Limits(id)})
		}
	}
	slices.SortFunc(pools, func(a, b backend.PoolStats) int {
		return cmp.Or(cmp.Compare(a.Identity.Database, b.Identity.Database), cmp.Compare(a.Identity.User, b.Identity.User), cmp.Compare(a.Shard, b.Shard))
	})
	rows := make([]row, 0, len(pools))
	for _, p := range pools {
		active := p.Held
		if p.Shard == s.Home {
			active += idle[p.Identity]
		}
		rows = append(rows, row{
			p.Identity.Database, p.Identity.User, int64(active), int64(p.Waiting), int64(0), int64(0), int64(p.Held), int64(0), int64(0),
			int64(p.Idle), int64(0), int64(p.Cleaning), int64(p.Opening), seconds(p.Oldest), rest(p.Oldest), string(p.Limits.Mode), nil, string(p.Shard),
		})
	}
	return rows
}

func clientRows(s *State) []row {
	held := make(map[uint64][]backend.ConnStats)
	for _, c := range s.Connections {
		if c.Session != 0 {
			held[c.Session] = append(held[c.Session], c)
		}
	}
	waiting := make(map[uint64]backend.Waiter)
	for _, w := range s.Waiting {
		waiting[w.Session] = w
	}
	rows := make([]row, 0, len(s.Clients))
	for _, c := range s.Clients {
		state, link, shards, wait := "idle", "", []string(nil), time.Duration(0)
		for i, conn := range held[c.ID] {
			if i == 0 {
				state, link = "active", serverName(conn.Number)
			}
			shards = append(shards, string(conn.Shard))
		}
		if w, ok := waiting[c.ID]; ok {
			state, wait = "waiting", max(s.Now.Sub(w.Since), 0)
			shards = append(shards, string(w.Shard))
		} else if c.Admin {
			state = "active"
		}
		rows = append(rows, row{
			"C", c.Identity.User, c.Identity.Database, "none", state, c.Remote.Addr().String(), int64(c.Remote.Port()),
			c.Local.Addr().String(), int64(c.Local.Port()), moment(c.Connected), moment(c.Requested), seconds(wait), rest(wait), flag(c.Closing),
			clientName(c.ID), link, int64(c.PID), c.TLS, c.Application, int64(c.Prepared), int64(c.ID), strings.Join(shards, ","),
		})
	}
	return rows
}

func serverRows(s *State) []row {
	applications := make(map[uint64]string)
	for _, c := range s.Clients {
		applications[c.ID] = c.Application
	}
	rows := make([]row, 0, len(s.Connections))
	for _, c := range s.Connections {
		link := ""
		if c.Session != 0 {
			link = clientName(c.Session)
		}
		rows = append(rows, row{
			"S", c.Identity.User, c.Identity.Database, "none", string(c.State), c.Remote.Addr().String(), int64(c.Remote.Port()),
			c.Local.Addr().String(), int64(c.Local.Port()), moment(c.Opened), moment(c.Since), int64(0), int64(0), flag(c.CloseNeeded),
			serverName(c.Number), link, int64(c.PID), c.TLS, applications[c.Session], int64(c.Prepared), int64(c.Number), string(c.Shard),
		})
	}
	return rows
}

func databaseRows(s *State) []row {
	type place struct {
		database string
		shard    directory.ShardID
	}
	open := make(map[place]int)
	for _, p := range s.Pools {
		open[place{p.Identity.Database, p.Shard}] += p.Open
	}
	var rows []row
	for i := range s.Databases {
		d := &s.Databases[i]
		limits := s.Limits(backend.Identity{Database: d.Name})
		for _, shard := range s.Shards {
			rows = append(rows, row{
				d.Name, shard.Primary.Host, int64(shard.Primary.Port), d.Name, nil, int64(limits.Size), int64(limits.Min), int64(limits.Reserve),
				seconds(s.Lifetime), string(limits.Mode), nil, int64(0), int64(open[place{d.Name, shard.ID}]), int64(d.MaxClients), int64(d.Clients),
				int64(0), int64(0), string(shard.ID),
			})
		}
	}
	return rows
}

func userRows(s *State) []row {
	open := make(map[string]int)
	for _, p := range s.Pools {
		open[p.Identity.User] += p.Open
	}
	rows := make([]row, 0, len(s.Users))
	for _, u := range s.Users {
		limits := s.Limits(backend.Identity{User: u.Name})
		rows = append(rows, row{
			u.Name, strconv.Itoa(limits.Size), strconv.Itoa(limits.Reserve), string(limits.Mode), int64(0), int64(open[u.Name]),
			int64(u.MaxClients), int64(u.Clients),
		})
	}
	return rows
}

func listRows(s *State) []row {
	idle := 0
	for _, c := range s.Connections {
		if c.State == backend.ConnIdle {
			idle++
		}
	}
	lists := []struct {
		name  string
		items int
	}{
		{"databases", len(s.Databases)}, {"users", len(s.Users)}, {"peers", 0}, {"pools", len(s.Pools)}, {"peer_pools", 0},
		{"free_clients", 0}, {"used_clients", len(s.Clients)}, {"login_clients", s.LoggingIn}, {"free_servers", idle},
		{"used_servers", len(s.Connections) - idle}, {"dns_names", 0}, {"dns_zones", 0}, {"dns_queries", 0}, {"dns_pending", 0},
		{"shards", len(s.Shards)},
	}
	rows := make([]row, 0, len(lists))
	for _, l := range lists {
		rows = append(rows, row{l.name, int64(l.items)})
	}
	return rows
}

func configRows(s *State) []row {
	rows := make([]row, 0, len(s.Settings))
	for _, setting := range s.Settings {
		changeable := "no"
		if setting.Changeable {
			changeable = "yes"
		}
		rows = append(rows, row{setting.Key, setting.Value, setting.Default, changeable})
	}
	return rows
}

func stateRows(s *State) []row {
	word := func(b bool) string {
		if b {
			return "yes"
		}
		return "no"
	}
	return []row{{"active", word(!s.Draining)}, {"paused", "no"}, {"suspended", "no"}, {"draining", word(s.Draining)}}
}

func helpRows() []row {
	var rows []row
	for name, s := range shows {
		rows = append(rows, row{"SHOW " + strings.ToUpper(name), s.meaning})
	}
	slices.SortFunc(rows, func(a, b row) int { return cmp.Compare(fmt.Sprint(a[0]), fmt.Sprint(b[0])) })
	return append(rows,
		row{"RELOAD", "read the configuration again, as SIGHUP does"},
		row{"RECONNECT [database]", "close server connections as soon as no transaction has them"},
		row{"KILL_CLIENT id", "end one client; the id is that of SHOW CLIENTS"},
	)
}
