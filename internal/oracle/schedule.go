package oracle

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// Schedule runs short scripts of several sessions in every order that keeps each session's own, on the plain
// Postgres and on the cluster, as Postgres's isolation tests do (src/test/isolation), and compares every answer,
// which steps had to wait, and what the tables hold in the end. Directives besides those of Script:
//
//	interleave
//	restore DELETE FROM t              before each order, on both sides
//	1 UPDATE t SET n = 1 WHERE k = 1   a step of session 1
//	2 UPDATE t SET n = 2 WHERE k = 1
//	final SELECT * FROM t              after each order, on both sides
//
// The answer counts the orders by what happened in them. Where the plain Postgres finds a deadlock the cluster must
// too, but it may choose another victim.
type Schedule struct {
	Script
}

// Run is Script.Run.
func (s *Schedule) Run(t *testing.T, path string) {
	s.runWith(t, path, func(ctx context.Context, d *datadriven.TestData) (string, error) {
		if d.Cmd == "interleave" {
			return s.interleave(ctx, d)
		}
		return s.run(ctx, d)
	})
}

// step is one statement of a session.
type step struct {
	session int // from 0
	sql     string
}

// interleaving is what a directive says.
type interleaving struct {
	sessions       [][]string
	restore, final []string
}

func parseInterleaving(input string) (interleaving, error) {
	var in interleaving
	for line := range strings.Lines(input) {
		word, sql, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch {
		case word == "":
		case word == "restore":
			in.restore = append(in.restore, sql)
		case word == "final":
			in.final = append(in.final, sql)
		case len(word) == 1 && word[0] >= '1' && word[0] <= '9':
			for len(in.sessions) < int(word[0]-'0') {
				in.sessions = append(in.sessions, nil)
			}
			in.sessions[word[0]-'1'] = append(in.sessions[word[0]-'1'], sql)
		default:
			return in, fmt.Errorf("step %q is of no session", line)
		}
	}
	return in, nil
}

// orders calls yield with every merge of the sessions' steps.
func (in *interleaving) orders(yield func([]step) bool) {
	total := 0
	for _, session := range in.sessions {
		total += len(session)
	}
	next := make([]int, len(in.sessions))
	var grow func(order []step) bool
	grow = func(order []step) bool {
		if len(order) == total {
			return yield(slices.Clone(order))
		}
		for i, session := range in.sessions {
			if next[i] == len(session) {
				continue
			}
			next[i]++
			more := grow(append(order, step{i, session[next[i]-1]}))
			next[i]--
			if !more {
				return false
			}
		}
		return true
	}
	grow(nil)
}

// event is what became of one step.
type event struct {
	step    int
	waited  bool
	outcome Outcome
}

// history is what happened in one order.
type history struct {
	events []event
	// impossible is the first step whose session still waited when it was due; -1 if there is none.
	impossible int
	final      []Outcome
}

// deadlocked counts the steps that ended in 40P01.
func (h *history) deadlocked() (n int) {
	for i := range h.events {
		if codeOf(h.events[i].outcome) == "40P01" {
			n++
		}
	}
	return n
}

// arena is one side with a connection for each session.
type arena struct {
	sides   []*side
	servers []*pgx.Conn // to look at what waits
	marks   int         // makes every statement's text its own, so that it is found among the servers' activities
}

func (a *arena) close(ctx context.Context) {
	for _, s := range a.sides {
		s.close(ctx)
	}
	for _, conn := range a.servers {
		closeConn(ctx, conn)
	}
}

// arenas connects n sessions to each side; on the cluster they use the routers in turn.
func (s *Schedule) arenas(ctx context.Context, n int) (plain, cluster *arena, err error) {
	plain, cluster = &arena{}, &arena{}
	enter := func(a *arena, name, url string) error {
		one, err := connect(ctx, name, url)
		if err != nil {
			return err
		}
		a.sides = append(a.sides, one)
		for _, conn := range []*pgx.Conn{one.conn, one.catalog} {
			if _, err := conn.Exec(ctx, "SET search_path = "+s.Schema); err != nil {
				return fmt.Errorf("enter the schema: %w", err)
			}
		}
		return nil
	}
	look := func(a *arena, url string) error {
		conn, err := pgx.Connect(ctx, url)
		if err == nil {
			a.servers = append(a.servers, conn)
		}
		return err
	}
	for i := range n {
		err = errors.Join(err, enter(plain, "plain", s.Bed.Plain.ConnString(0, s.Database)),
			enter(cluster, "cluster", s.Bed.RouterConnString(i%len(s.Bed.Routers), s.Database)))
	}
	err = errors.Join(err, look(plain, s.Bed.Plain.ConnString(0, s.Database)))
	for i := range s.Bed.Shards.Shards() {
		err = errors.Join(err, look(cluster, s.Bed.Shards.ConnString(i, s.Database)))
	}
	return plain, cluster, err
}

// How long a step may take that is not seen to wait, before it counts as waiting; and a step that waits, after
// everything that it may wait for was done.
const (
	silence  = 3 * time.Second
	lastWait = 20 * time.Second
)

// answer is what a session's goroutine brings back.
type answer struct {
	event event
	err   error
}

// player runs one order on one side.
type player struct {
	*arena
	history history
	running []chan answer // of each session, nil while it is idle
	waited  []bool        // whether its last step was seen to wait
}

// perform restores the tables, plays one order on one side, and reads what the tables hold then.
func (s *Schedule) perform(ctx context.Context, a *arena, in interleaving, order []step) (h history, err error) {
	if err := a.restore(ctx, in.restore); err != nil {
		return h, err
	}
	if h, err = s.play(ctx, a, order); err != nil {
		return h, err
	}
	h.final, err = a.finish(ctx, in.final)
	return h, err
}

// play runs one order on one side.
func (s *Schedule) play(ctx context.Context, a *arena, order []step) (history, error) {
	p := &player{arena: a, running: make([]chan answer, len(a.sides)), waited: make([]bool, len(a.sides))}
	p.history.impossible = -1
	err := s.steps(ctx, p, order)
	if err == nil && p.history.impossible >= 0 {
		err = a.abandon(ctx)
	}
	if err == nil {
		err = p.collect(-1, lastWait)
	}
	for session, c := range p.running {
		if c != nil { // its goroutine ends before we do
			err = errors.Join(err, p.take(session, <-c))
		}
	}
	return p.history, err
}

// steps runs the steps until one is due whose session still waits.
func (s *Schedule) steps(ctx context.Context, p *player, order []step) error {
	for number, st := range order {
		patience := 50 * time.Millisecond
		if p.stuck() {
			patience = lastWait // a deadlock, which the servers are to find
		}
		if err := p.collect(-1, patience); err != nil {
			return err
		}
		if p.running[st.session] != nil {
			p.history.impossible = number
			return nil
		}
		p.marks++
		mark := fmt.Sprintf("schedule %d of %s", p.marks, s.Schema)
		c := make(chan answer, 1)
		p.running[st.session], p.waited[st.session] = c, false
		go func() {
			outcome, err := ask(ctx, p.sides[st.session], Statement{SQL: st.sql + " /* " + mark + " */"}, Simple)
			c <- answer{event{step: number, outcome: outcome}, err}
		}()
		if err := p.settle(ctx, st.session, mark); err != nil {
			return err
		}
		// Whom this step let go on answers before the next step.
		if err := p.collect(st.session, 150*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// stuck reports whether every session waits.
func (p *player) stuck() bool {
	return !slices.Contains(p.running, nil)
}

func (p *player) take(session int, got answer) error {
	p.running[session] = nil
	got.event.waited = p.waited[session]
	p.history.events = append(p.history.events, got.event)
	return got.err
}

// await takes the answer of a session if it comes in time.
func (p *player) await(session int, within time.Duration) error {
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case got := <-p.running[session]:
		return p.take(session, got)
	case <-timer.C:
		return nil
	}
}

// collect waits for the answers of all sessions but one.
func (p *player) collect(but int, within time.Duration) error {
	for session, c := range p.running {
		if c != nil && session != but {
			if err := p.await(session, within); err != nil {
				return err
			}
		}
	}
	return nil
}

// settle waits until a step is answered or is seen to wait for a lock on some server.
func (p *player) settle(ctx context.Context, session int, mark string) error {
	for deadline := time.Now().Add(silence); time.Now().Before(deadline); {
		if err := p.await(session, 20*time.Millisecond); err != nil || p.running[session] == nil {
			return err
		}
		waits, err := p.waits(ctx, mark)
		if err != nil {
			return err
		}
		if p.waited[session] = waits; waits {
			return nil
		}
	}
	p.waited[session] = true
	return nil
}

// waits reports whether a statement with the mark waits for a lock on some server.
func (a *arena) waits(ctx context.Context, mark string) (waiting bool, err error) {
	for _, server := range a.servers {
		err := server.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_stat_activity
			WHERE wait_event_type = 'Lock' AND state = 'active' AND query LIKE '%' || $1 || '%' AND pid <> pg_backend_pid())`, mark).Scan(&waiting)
		if err != nil {
			return false, fmt.Errorf("look for what waits: %w", err)
		}
		if waiting {
			return true, nil
		}
	}
	return false, nil
}

// abandon cancels what still waits.
func (a *arena) abandon(ctx context.Context) error {
	for _, s := range a.sides {
		if err := s.conn.PgConn().CancelRequest(ctx); err != nil {
			return fmt.Errorf("cancel: %w", err)
		}
	}
	return nil
}

// finish rolls back what is open and reads the tables.
func (a *arena) finish(ctx context.Context, final []string) (outcomes []Outcome, err error) {
	for _, s := range a.sides {
		if s.conn.PgConn().TxStatus() != 'I' {
			if _, err := s.conn.Exec(ctx, "ROLLBACK"); err != nil {
				return nil, fmt.Errorf("roll back: %w", err)
			}
		}
	}
	for _, sql := range final {
		outcome, err := ask(ctx, a.sides[0], Statement{SQL: sql}, Simple)
		if err != nil {
			return nil, err
		}
		outcomes = append(outcomes, outcome)
	}
	return outcomes, nil
}

func (a *arena) restore(ctx context.Context, statements []string) error {
	for _, sql := range statements {
		if _, err := a.sides[0].conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("restore: %w", err)
		}
	}
	return nil
}

// interleave runs a directive.
func (s *Schedule) interleave(ctx context.Context, d *datadriven.TestData) (string, error) {
	in, err := parseInterleaving(d.Input)
	if err != nil {
		return "", err
	}
	plain, cluster, err := s.arenas(ctx, len(in.sessions))
	defer plain.close(ctx)
	defer cluster.close(ctx)
	if err != nil {
		return "", err
	}
	count := map[string]int{}
	for order := range in.orders {
		var histories [2]history
		var sides errgroup.Group
		for i, a := range []*arena{plain, cluster} {
			sides.Go(func() (err error) {
				histories[i], err = s.perform(ctx, a, in, order)
				return err
			})
		}
		if err := sides.Wait(); err != nil {
			return "", fmt.Errorf("play %s: %w", describeOrder(order), err)
		}
		verdict, difference := compareHistories(&histories[0], &histories[1], order)
		if difference != "" {
			s.differences = append(s.differences, fmt.Sprintf("%s: DIFFER in %s: %s", d.Pos, describeOrder(order), difference))
			verdict = "DIFFER"
		}
		count[verdict]++
	}
	var answer strings.Builder
	for _, verdict := range []string{"agree", "agree, with waits", "agree, with errors", "agree, with a deadlock", "not possible", "DIFFER"} {
		if count[verdict] > 0 {
			fmt.Fprintf(&answer, "%s: %d\n", verdict, count[verdict])
		}
	}
	return answer.String(), nil
}

func describeOrder(order []step) string {
	var text []string
	for _, st := range order {
		text = append(text, fmt.Sprintf("%d %s", st.session+1, st.sql))
	}
	return "[" + strings.Join(text, " | ") + "]"
}

// compareHistories compares what happened on the two sides in one order.
func compareHistories(plain, cluster *history, order []step) (verdict, difference string) {
	if plain.deadlocked() > 0 || cluster.deadlocked() > 0 {
		if plain.deadlocked() != cluster.deadlocked() {
			return "", fmt.Sprintf("plain has %d deadlocks, cluster %d", plain.deadlocked(), cluster.deadlocked())
		}
		return "agree, with a deadlock", ""
	}
	if plain.impossible != cluster.impossible {
		return "", fmt.Sprintf("first step of a waiting session: plain %d, cluster %d", plain.impossible+1, cluster.impossible+1)
	}
	if plain.impossible >= 0 {
		return "not possible", ""
	}
	byStep := func(a, b event) int { return a.step - b.step }
	slices.SortFunc(plain.events, byStep)
	slices.SortFunc(cluster.events, byStep)
	verdict = "agree"
	for i := range plain.events {
		p, c := &plain.events[i], &cluster.events[i]
		name := fmt.Sprintf("step %d (%s)", i+1, order[i].sql)
		if _, refused := refusal(c.outcome); refused {
			return "", fmt.Sprintf("%s: the cluster refuses it: %s", name, c.outcome.Err.Message)
		}
		if p.waited != c.waited {
			return "", fmt.Sprintf("%s: plain waited %t, cluster waited %t", name, p.waited, c.waited)
		}
		if v := compare(p.outcome, c.outcome, Statement{AnyMessage: true}); v.Difference != "" {
			return "", fmt.Sprintf("%s: %s", name, v.Difference)
		}
		switch {
		case p.outcome.Err != nil:
			verdict = "agree, with errors"
		case p.waited && verdict == "agree":
			verdict = "agree, with waits"
		}
	}
	for i := range plain.final {
		if v := compare(plain.final[i], cluster.final[i], Statement{}); v.Difference != "" {
			return "", "in the end: " + v.Difference
		}
	}
	return verdict, ""
}
