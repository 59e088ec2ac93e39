package main

import (
	"fmt"
	"slices"
	"strings"
)

// measurement is what one run gave. What a section does not measure is 0.
type measurement struct {
	// TPS is transactions, or statements, each second.
	TPS float64 `json:"tps,omitempty"`
	// CPUMicros is the CPU time of the process between client and server for each
	// statement (of TPC-B: for each transaction), in microseconds; 0 for the direct connection.
	CPUMicros float64 `json:"cpu_us,omitempty"`
	// LatencyMicros and P99Micros are the median and the 99th percentile, in microseconds: of the COMMIT, of the statement or
	// of the transaction.
	LatencyMicros float64 `json:"latency_us,omitempty"`
	P99Micros     float64 `json:"p99_us,omitempty"`
	// RowsPerSecond is the speed of a COPY.
	RowsPerSecond float64 `json:"rows_s,omitempty"`
	// IdleBytes is by how much the resident memory of the process grew for each idle client.
	IdleBytes float64 `json:"idle_bytes,omitempty"`
}

func (m measurement) String() string {
	if m.RowsPerSecond > 0 {
		return fmt.Sprintf("%9.0f rows/s", m.RowsPerSecond)
	}
	var line strings.Builder
	fmt.Fprintf(&line, "%9.0f tps", m.TPS)
	if m.CPUMicros > 0 {
		fmt.Fprintf(&line, " %8.1f µs CPU", m.CPUMicros)
	}
	if m.LatencyMicros > 0 {
		fmt.Fprintf(&line, " %7.0f µs", m.LatencyMicros)
	}
	if m.P99Micros > 0 {
		fmt.Fprintf(&line, " %7.0f µs p99", m.P99Micros)
	}
	if m.IdleBytes != 0 {
		fmt.Fprintf(&line, " %6.0f bytes idle", m.IdleBytes)
	}
	return line.String()
}

// result is one line of the JSON file.
type result struct {
	Section  string `json:"section"`
	Workload string `json:"workload"`
	Target   string `json:"target"`
	Round    int    `json:"round"`
	// Load is how many processes of others wanted a processor before the bench began: the machine's load average
	// over a minute. 0 where it is not known.
	Load float64 `json:"load,omitempty"`
	measurement
}

func tps(m measurement) float64     { return m.TPS }
func cpu(m measurement) float64     { return m.CPUMicros }
func latency(m measurement) float64 { return m.LatencyMicros }
func p99(m measurement) float64     { return m.P99Micros }
func speed(m measurement) float64   { return m.RowsPerSecond }
func memory(m measurement) float64  { return m.IdleBytes }

// series are the values of one workload and target of a section, by round.
func series(results []result, section, workload, target string, value func(measurement) float64) []float64 {
	byRound := make([]float64, rounds(results, section))
	found := false
	for _, r := range results {
		if r.Section == section && r.Workload == workload && r.Target == target && r.Round > 0 {
			byRound[r.Round-1], found = value(r.measurement), true
		}
	}
	if !found {
		return nil
	}
	return byRound
}

// workloadsOf are those of a section, in the order in which they were measured.
func workloadsOf(results []result, section string) []string {
	var names []string
	for _, r := range results {
		if r.Section == section && !slices.Contains(names, r.Workload) {
			names = append(names, r.Workload)
		}
	}
	return names
}

func has(results []result, section string) bool { return rounds(results, section) > 0 }

// rounds is how often everything of a section was measured, 0 if it was not.
func rounds(results []result, section string) int {
	most := 0
	for _, r := range results {
		if r.Section == section {
			most = max(most, r.Round)
		}
	}
	return most
}

// combine computes a value for each round. Without one of the series there is none.
func combine(a, b []float64, with func(a, b float64) float64) []float64 {
	if len(a) != len(b) {
		return nil
	}
	result := make([]float64, len(a))
	for i := range a {
		result[i] = with(a[i], b[i])
	}
	return result
}

func ratios(a, b []float64) []float64 {
	return combine(a, b, func(a, b float64) float64 { return a / b })
}

func differences(a, b []float64) []float64 {
	return combine(a, b, func(a, b float64) float64 { return a - b })
}

// median is 0 of no values.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	if len(sorted)%2 == 1 {
		return sorted[len(sorted)/2]
	}
	return (sorted[len(sorted)/2-1] + sorted[len(sorted)/2]) / 2
}

// spread writes the median and, of several rounds, the least and the greatest value.
func spread(values []float64, format string) string {
	switch len(values) {
	case 0:
		return "–"
	case 1:
		return fmt.Sprintf(format, values[0])
	}
	return fmt.Sprintf(format+" ("+format+"–"+format+")", median(values), slices.Min(values), slices.Max(values))
}
