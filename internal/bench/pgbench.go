package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// workload is one way of running pgbench.
type workload struct {
	builtin string // pgbench's -b
	mode    string // its -M
	clients int
	tls     bool
	// reconnect opens a connection for each transaction.
	reconnect bool
}

// String names the workload within its section.
func (w workload) String() string {
	name := fmt.Sprintf("%s, %d client%s", w.mode, w.clients, strings.Repeat("s", min(w.clients-1, 1)))
	if w.tls {
		name += ", TLS"
	}
	return name
}

// wide reports whether each client needs a server connection to itself: for prepared statements this version of the pooler cannot carry them
// over transactions; and pgbench, before a client's first transaction, waits for the answer to its PREPAREs
// while its other clients are in transactions, for ever if those have all the server connections there are.
func (w workload) wide(t target) bool {
	return t.widePort != 0 && w.mode == "prepared" && (t.name == targetPooler || w.builtin != "select-only" && w.clients > poolSize)
}

// selects are the workloads of pgbench -S, the longer form all of them.
func selects(o options) []workload { return matrix(o, "select-only") }

// transactions are those of pgbench's default script, which resembles TPC-B.
func transactions(o options) []workload { return matrix(o, "tpcb-like") }

// reconnects are those with a connection for each transaction.
func reconnects(o options) []workload {
	list := []workload{{builtin: "select-only", mode: "simple", clients: 16, reconnect: true}}
	if o.long {
		list = append(list,
			workload{builtin: "select-only", mode: "simple", clients: 1, reconnect: true},
			workload{builtin: "select-only", mode: "simple", clients: 16, reconnect: true, tls: true})
	}
	if o.smoke {
		list[0].clients = 1
	}
	return list
}

// matrix are all modes with few and with many clients. With TLS the shorter form has those that tell most.
func matrix(o options, builtin string) []workload {
	if o.smoke {
		return []workload{{builtin: builtin, mode: "simple", clients: 1}, {builtin: builtin, mode: "prepared", clients: 2, tls: true}}
	}
	var list []workload
	for _, tls := range []bool{false, true} {
		for _, mode := range []string{"simple", "extended", "prepared"} {
			for _, clients := range []int{1, 16, 200} {
				w := workload{builtin: builtin, mode: mode, clients: clients, tls: tls}
				if !tls || o.long || w.tellsOfTLS() {
					list = append(list, w)
				}
			}
		}
	}
	return list
}

func (w workload) tellsOfTLS() bool {
	if w.builtin == "select-only" {
		return w.mode == "prepared" || w.mode == "simple" && w.clients == 16
	}
	return w.mode == "prepared" && w.clients == 16
}

// measurePgbench measures workloads on all targets.
func measurePgbench(list func(options) []workload) func(context.Context, *singleBed, options) ([]result, error) {
	return func(ctx context.Context, b *singleBed, o options) ([]result, error) {
		workloads := list(o)
		names := make([]string, len(workloads))
		for i, w := range workloads {
			names[i] = w.String()
		}
		ways := make([]string, len(b.targets))
		for i, t := range b.targets {
			ways[i] = t.name
		}
		return interleave(o, names, ways, func(w, way int) (measurement, error) {
			return b.measure(ctx, b.targets[way], workloads[w], o.length)
		})
	}
}

func (b *singleBed) command(ctx context.Context, port int, tls bool, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, b.pgbench, append([]string{"-h", "127.0.0.1", "-p", strconv.Itoa(port), "-U", "postgres"},
		append(args, "postgres")...)...)
	mode := "disable"
	if tls {
		mode = "require"
	}
	cmd.Env = append(os.Environ(), "PGSSLMODE="+mode)
	return cmd
}

// With -C pgbench counts the time to connect, too, and says so.
var tpsLine = regexp.MustCompile(`(?m)^tps = ([0-9.]+) \((?:without|including)`)
var countLine = regexp.MustCompile(`number of transactions actually processed: ([0-9]+)`)

// runTimeout is how much longer than asked a pgbench run may take.
const runTimeout = 60 * time.Second

// smokeTransactions of each client make a run that is shorter than a second.
const smokeTransactions = 5

// measure runs pgbench once. Of a single client the latencies of all transactions are looked at, too. Of several, what their logins
// take of the processor is not counted: pgbench first runs one transaction of each, which is subtracted.
func (b *singleBed) measure(ctx context.Context, t target, w workload, length time.Duration) (measurement, error) {
	if w.wide(t) {
		t.port, t.pid = t.widePort, t.widePid
	}
	ctx, cancel := context.WithTimeout(ctx, 3*length+runTimeout)
	defer cancel()
	seconds := int((length + time.Second - 1) / time.Second)
	if w.tls && w.clients > 100 {
		seconds++ // in which they log in
	}
	bound := []string{"-T", strconv.Itoa(seconds)}
	if length < time.Second {
		bound = []string{"-t", strconv.Itoa(smokeTransactions)}
	}
	var logins, whole pgbenchRun
	var err error
	if w.clients > 1 && !w.reconnect {
		if logins, err = b.run(ctx, t, w, "-t", "1"); err != nil {
			return measurement{}, err
		}
	}
	log := filepath.Join(b.dir, "latency")
	if w.clients == 1 {
		bound = append(bound, "-l", "--log-prefix", log)
	}
	for attempt := 1; ; attempt++ {
		whole, err = b.run(ctx, t, w, bound...)
		if err == nil {
			break
		}
		if !errors.Is(err, errNothingDone) || attempt == 3 {
			return measurement{}, err
		}
		// The time was over before all clients had logged in: somebody else is at work on the machine.
	}
	m := measurement{TPS: whole.tps, CPUMicros: micros(max(whole.cpu-logins.cpu, 0)) / max(whole.transactions-logins.transactions, 1)}
	if w.clients == 1 {
		err = m.addLatencies(log)
	}
	return m, err
}

// pgbenchRun is what one run of pgbench did.
type pgbenchRun struct {
	tps, transactions float64
	cpu               time.Duration // of the target's process
}

func (b *singleBed) run(ctx context.Context, t target, w workload, args ...string) (r pgbenchRun, err error) {
	args = append([]string{"-n", "-b", w.builtin, "-M", w.mode, "-c", strconv.Itoa(w.clients), "-j", strconv.Itoa(min(w.clients, 2))}, args...)
	if w.reconnect {
		args = append(args, "-C")
	}
	before, err := cpuTime(t.pid)
	if err != nil {
		return r, err
	}
	out, err := b.command(ctx, t.port, w.tls, args...).CombinedOutput()
	if err != nil {
		return r, fmt.Errorf("pgbench: %w\n%s", err, out)
	}
	after, err := cpuTime(t.pid)
	if err != nil {
		return r, err
	}
	r.cpu = after - before
	return r, r.read(out)
}

// errNothingDone: pgbench has run no transaction.
var errNothingDone = errors.New("pgbench has done nothing")

// read reads what pgbench says in the end.
func (r *pgbenchRun) read(out []byte) (err error) {
	tps, count := tpsLine.FindSubmatch(out), countLine.FindSubmatch(out)
	if count != nil && string(count[1]) == "0" {
		return errNothingDone
	}
	if tps == nil || count == nil {
		return fmt.Errorf("read pgbench's answer:\n%s", out)
	}
	if r.tps, err = strconv.ParseFloat(string(tps[1]), 64); err != nil {
		return fmt.Errorf("read tps: %w", err)
	}
	if r.transactions, err = strconv.ParseFloat(string(count[1]), 64); err != nil {
		return fmt.Errorf("read the number of transactions: %w", err)
	}
	return nil
}

// addLatencies reads and removes the log of pgbench's only thread, whose name has its process id behind the prefix.
func (m *measurement) addLatencies(prefix string) error {
	names, err := filepath.Glob(prefix + ".*")
	if err != nil {
		return fmt.Errorf("find the latencies: %w", err)
	}
	if len(names) != 1 {
		return fmt.Errorf("find the latencies: %d files", len(names))
	}
	text, err := os.ReadFile(names[0])
	if err != nil {
		return fmt.Errorf("read the latencies: %w", err)
	}
	if err := os.Remove(names[0]); err != nil {
		return fmt.Errorf("remove the latencies: %w", err)
	}
	latencies, err := readLatencies(bytes.NewReader(text))
	if err != nil {
		return err
	}
	m.LatencyMicros, m.P99Micros = micros(percentile(latencies, 50)), micros(percentile(latencies, 99))
	return nil
}

// readLatencies reads the third field of each line, in microseconds, and sorts what it has read.
func readLatencies(log io.Reader) ([]time.Duration, error) {
	var latencies []time.Duration
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 3 {
			return nil, fmt.Errorf("read the latencies: line %q", lines.Text())
		}
		n, err := strconv.ParseInt(fields[2], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("read the latencies: %w", err)
		}
		latencies = append(latencies, time.Duration(n)*time.Microsecond)
	}
	if len(latencies) == 0 {
		return nil, errors.New("read the latencies: there is none")
	}
	slices.Sort(latencies)
	return latencies, nil
}
