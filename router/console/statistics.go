package console

import (
	"slices"
	"time"

	"github.com/shardyard/shardyard/router/backend"
	"github.com/shardyard/shardyard/router/metrics"
)

// Names of the numbers in SHOW STATS, in PgBouncer's three spellings.
var (
	totalNames = []string{
		"server_assignment_count", "xact_count", "query_count", "received", "sent", "xact_time", "query_time", "wait_time",
		"client_parse_count", "server_parse_count", "bind_count",
	}
	averageNames = []string{
		"avg_server_assignment_count", "avg_xact_count", "avg_query_count", "avg_recv", "avg_sent", "avg_xact_time", "avg_query_time", "avg_wait_time",
		"avg_client_parse_count", "avg_server_parse_count", "avg_bind_count",
	}
	plainNames = []string{
		"server_assignment_count", "xact_count", "query_count", "bytes_received", "bytes_sent", "xact_time", "query_time", "wait_time",
		"client_parse_count", "server_parse_count", "bind_count",
	}
)

func prefixed(prefix string, names []string) []string {
	list := make([]string, len(names))
	for i, name := range names {
		list[i] = prefix + name
	}
	return list
}

// numbers are the numbers of SHOW STATS; times are in microseconds.
type numbers [11]int64

// Places in numbers.
const (
	atXacts    = 1
	atQueries  = 2
	atXactTime = 5
	atTime     = 6
)

func numbersOf(t *metrics.Totals, pools *backend.Counters) numbers {
	xacts, xactTime := t.AllTransactions()
	queries, queryTime := t.AllRequests()
	return numbers{
		int64(pools.Acquired), int64(xacts), int64(queries), int64(t.Received), int64(t.Sent), micros(xactTime), micros(queryTime),
		micros(pools.WaitTime + pools.OpenTime), int64(t.ClientParses), int64(t.ServerParses), int64(t.Binds),
	}
}

func (d *DatabaseState) totals() numbers { return numbersOf(&d.Totals, &d.Pools) }

// averages are per second, but for the times of transactions and queries, which are those of one.
func (d *DatabaseState) averages(now time.Time) numbers {
	var n numbers
	before, elapsed := numbersOf(&d.Before, &d.BeforePools), now.Sub(d.Since)
	if elapsed <= 0 {
		return n
	}
	for i, total := range d.totals() {
		n[i] = total - before[i]
	}
	xactTime, time := perItem(n[atXactTime], n[atXacts]), perItem(n[atTime], n[atQueries])
	for i := range n {
		n[i] = int64(float64(n[i]) / elapsed.Seconds())
	}
	n[atXactTime], n[atTime] = xactTime, time
	return n
}

func perItem(sum, count int64) int64 {
	if count <= 0 {
		return 0
	}
	return sum / count
}

func (n *numbers) row(first ...any) row {
	r := slices.Clone(first)
	for _, value := range n {
		r = append(r, value)
	}
	return r
}

func statsRows(s *State) []row {
	rows := make([]row, 0, len(s.Databases))
	for i := range s.Databases {
		d := &s.Databases[i]
		totals, averages := d.totals(), d.averages(s.Now)
		rows = append(rows, averages.row(totals.row(d.Name)...))
	}
	return rows
}

func totalsRows(s *State) []row {
	rows := make([]row, 0, len(s.Databases))
	for i := range s.Databases {
		n := s.Databases[i].totals()
		rows = append(rows, n.row(s.Databases[i].Name))
	}
	return rows
}

func averagesRows(s *State) []row {
	rows := make([]row, 0, len(s.Databases))
	for i := range s.Databases {
		n := s.Databases[i].averages(s.Now)
		rows = append(rows, n.row(s.Databases[i].Name))
	}
	return rows
}

func sumRows(s *State) []row {
	var sum numbers
	for i := range s.Databases {
		for j, value := range s.Databases[i].totals() {
			sum[j] += value
		}
	}
	rows := make([]row, 0, len(sum))
	for i, name := range prefixed("total_", totalNames) {
		rows = append(rows, row{name, sum[i]})
	}
	return rows
}
