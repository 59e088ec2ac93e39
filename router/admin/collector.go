package admin

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/shardyard/shardyard/router/backend"
	"github.com/shardyard/shardyard/router/console"
	"github.com/shardyard/shardyard/router/metrics"
)

// collector shows a router's state as metrics. The router counts by itself, with fewer atomics than the library's own counters need;
// only when somebody asks are they given their form.
type collector struct {
	state func() *console.State
}

// Labels are bounded: pools and databases beyond these numbers count together, as user or database "other".
const (
	maxPools     = 1000
	maxDatabases = 500
	other        = "other"
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("shardyard_"+name, help, labels, nil)
}

var (
	buildInfo = desc("build_info", "The router's version; always 1.", "version", "router")
	startTime = desc("start_time_seconds", "When the router started, in Unix seconds.")
	draining  = desc("draining", "1 while the router lets its clients end.")

	clients    = desc("clients", "Clients by database; the admin database is among them.", "database")
	loggingIn  = desc("clients_logging_in", "Clients that have not proved yet who they are.")
	maxClients = desc("max_clients", "The bound of the clients.")
	errorsSeen = desc("errors_total", "Errors that clients were told, by the class of the SQLSTATE.", "class")

	plans = desc("plans_total", "Statements by whether they were planned (made) or their plan was in the cache (found).", "result")

	requestTime = desc("request_duration_seconds", "From a client's Query or Sync to ReadyForQuery, by what it needed of the shards.", "database", "kind")
	transTime   = desc("transaction_duration_seconds", "From the first request of a transaction to its end, by what it needed of the shards.", "database", "kind")
	received    = desc("received_bytes_total", "Bytes from clients.", "database")
	sent        = desc("sent_bytes_total", "Bytes to clients.", "database")
	logins      = desc("logins_total", "Clients that came in.", "database")
	parses      = desc("client_parses_total", "Statements that clients prepared by name.", "database")
	ownParses   = desc("server_parses_total", "Statements that were prepared on shards for them.", "database")
	binds       = desc("binds_total", "Executions that clients bound.", "database")

	waitTime    = desc("pool_wait_seconds", "How long statements waited for a connection to a shard; most do not wait.", "shard")
	connectTime = desc("server_connect_seconds", "How long opening connections to a shard took.", "shard")

	poolConnections = desc("pool_connections", "Server connections by what they do: active, idle, tested (being cleaned), login (being opened).",
		"database", "user", "shard", "state")
	poolSize    = desc("pool_size", "The bound of a pool, without its reserve.", "database", "user", "shard")
	poolReserve = desc("pool_reserve", "The reserve of a pool.", "database", "user", "shard")
	poolWaiting = desc("pool_waiting", "Statements that wait for a connection.", "database", "user", "shard")
	poolOldest  = desc("pool_oldest_wait_seconds", "How long the first of them has waited.", "database", "user", "shard")
	poolEvents  = desc("pool_events_total",
		"What happened in a pool: acquired, opened, open_failed, closed, stale, cleaned, reserved, waited, timeout, refused.",
		"database", "user", "shard", "event")
)

// Describe implements prometheus.Collector: the labels depend on the state, so nothing is promised.
func (collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	s := c.state()
	e := emitter{out}
	e.gauge(buildInfo, 1, s.Version, s.Router)
	e.gauge(startTime, float64(s.Started.UnixNano())/1e9)
	e.gauge(draining, boolValue(s.Draining))
	e.gauge(loggingIn, float64(s.LoggingIn))
	e.gauge(maxClients, float64(s.MaxClients))
	for class, n := range s.Errors {
		e.counter(errorsSeen, float64(n), class)
	}
	e.counter(plans, float64(s.PlansMade), "made")
	e.counter(plans, float64(s.PlansFound), "found")
	e.databases(s)
	e.pools(s)
	for i := range s.Times {
		t := &s.Times[i]
		e.histogram(waitTime, &t.Wait, string(t.Shard))
		e.histogram(connectTime, &t.Connect, string(t.Shard))
	}
}

// emitter sends metrics.
type emitter struct{ out chan<- prometheus.Metric }

func (e emitter) gauge(d *prometheus.Desc, value float64, labels ...string) {
	e.out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
}

func (e emitter) counter(d *prometheus.Desc, value float64, labels ...string) {
	e.out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, value, labels...)
}

func (e emitter) histogram(d *prometheus.Desc, h *metrics.Durations, labels ...string) {
	buckets := make(map[float64]uint64, len(metrics.Bounds))
	var below uint64
	for i, bound := range metrics.Bounds {
		below += h.Counts[i]
		buckets[bound.Seconds()] = below
	}
	e.out <- prometheus.MustNewConstHistogram(d, below+h.Counts[len(metrics.Bounds)], h.Sum.Seconds(), buckets, labels...)
}

func boolValue(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// databases sends what each database has counted.
func (e emitter) databases(s *console.State) {
	var names []string
	totals := make(map[string]*metrics.Totals)
	for i := range s.Databases {
		name := s.Databases[i].Name
		if i >= maxDatabases {
			name = other
		}
		if totals[name] == nil {
			totals[name] = new(metrics.Totals)
			names = append(names, name)
		}
		totals[name].Add(&s.Databases[i].Totals)
	}
	count := make(map[string]int)
	for _, c := range s.Clients {
		name := c.Identity.Database
		if totals[name] == nil && name != console.Database {
			name = other
		}
		count[name]++
	}
	for name, n := range count {
		e.gauge(clients, float64(n), name)
	}
	for _, name := range names {
		t := totals[name]
		for kind := range metrics.Kinds {
			e.histogram(requestTime, &t.Requests[kind], name, metrics.Kind(kind).String())
			e.histogram(transTime, &t.Transactions[kind], name, metrics.Kind(kind).String())
		}
		e.counter(received, float64(t.Received), name)
		e.counter(sent, float64(t.Sent), name)
		e.counter(logins, float64(t.Logins), name)
		e.counter(parses, float64(t.ClientParses), name)
		e.counter(ownParses, float64(t.ServerParses), name)
		e.counter(binds, float64(t.Binds), name)
	}
}

// pools sends the state of each pool.
func (e emitter) pools(s *console.State) {
	type poolKey struct{ database, user, shard string }
	var keys []poolKey
	pools := make(map[poolKey]*backend.PoolStats)
	for i := range s.Pools {
		p := s.Pools[i]
		key := poolKey{p.Identity.Database, p.Identity.User, string(p.Shard)}
		if i >= maxPools {
			key.database, key.user = other, other
		}
		if sum, ok := pools[key]; ok {
			sum.Add(&p)
			continue
		}
		pools[key] = &p
		keys = append(keys, key)
	}
	for _, key := range keys {
		p, labels := pools[key], []string{key.database, key.user, key.shard}
		with := func(label string) []string { return []string{key.database, key.user, key.shard, label} }
		e.gauge(poolSize, float64(p.Limits.Size), labels...)
		e.gauge(poolReserve, float64(p.Limits.Reserve), labels...)
		e.gauge(poolWaiting, float64(p.Waiting), labels...)
		e.gauge(poolOldest, p.Oldest.Seconds(), labels...)
		for _, state := range []struct {
			name string
			n    int
		}{{"active", p.Held}, {"idle", p.Idle}, {"tested", p.Cleaning}, {"login", p.Opening}} {
			e.gauge(poolConnections, float64(state.n), with(state.name)...)
		}
		for _, event := range []struct {
			name string
			n    uint64
		}{
			{"acquired", p.Acquired}, {"opened", p.Opened}, {"open_failed", p.OpenFailed}, {"closed", p.Closed}, {"stale", p.Stale},
			{"cleaned", p.Cleaned}, {"reserved", p.Reserved}, {"waited", p.Waited}, {"timeout", p.Timeouts}, {"refused", p.Refused},
		} {
			e.counter(poolEvents, float64(event.n), with(event.name)...)
		}
	}
}
