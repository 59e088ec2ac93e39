package oracle

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// Session asks both sides the same: one connection to the plain Postgres, one to each
// router. It is not safe for concurrent use.
type Session struct {
	plain   *side
	routers []*side
	next    int  // the router that is asked next
	stays   bool // the turn does not go on
}

// NewSession connects to everything. Close must be called.
func (b *Bed) NewSession(ctx context.Context, database string) (*Session, error) {
	routers := make([]string, len(b.Routers))
	for i := range routers {
		routers[i] = b.RouterConnString(i, database)
	}
	return b.NewSessionWith(ctx, database, routers...)
}

// NewSessionWith is NewSession with other routers of the cluster than the bed's, by their connection strings.
func (b *Bed) NewSessionWith(ctx context.Context, database string, routers ...string) (_ *Session, err error) {
	s := &Session{}
	defer func() {
		if err != nil {
			s.Close(ctx)
		}
	}()
	if s.plain, err = connect(ctx, "plain", b.Plain.ConnString(0, database)); err != nil {
		return s, err
	}
	for i, at := range routers {
		router, err := connect(ctx, fmt.Sprintf("router %d", i+1), at)
		if err != nil {
			return s, err
		}
		s.routers = append(s.routers, router)
	}
	return s, nil
}

// Close ends the connections.
func (s *Session) Close(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	for _, side := range s.sides() {
		side.close(ctx)
	}
}

func (s *Session) sides() []*side {
	var all []*side
	if s.plain != nil {
		all = append(all, s.plain)
	}
	return append(all, s.routers...)
}

// Ask sends the statement to the router whose turn it is and, unless that refuses it, to the
// plain Postgres, and compares. Inside a transaction it is always the same router's turn, and a
// refusal fails the transaction on both sides.
func (s *Session) Ask(ctx context.Context, st Statement, mode Mode) (Verdict, error) {
	cluster, err := ask(ctx, s.turn(), st, mode)
	if err != nil {
		return Verdict{}, err
	}
	if message, refused := refusal(cluster); refused {
		return Verdict{Refused: stable(message), Cluster: cluster}, s.failPlain(ctx)
	}
	plain, err := ask(ctx, s.plain, st, mode)
	if err != nil {
		return Verdict{}, err
	}
	return compare(plain, cluster, st), nil
}

// AskCut is Ask for a statement whose LIMIT is not fixed by its order; whole is the same
// statement without the LIMIT.
func (s *Session) AskCut(ctx context.Context, st, whole Statement, mode Mode) (Verdict, error) {
	v, err := s.Ask(ctx, st, mode)
	if err != nil || v.Refused != "" || v.Plain.Err != nil {
		return v, err
	}
	all, err := ask(ctx, s.plain, whole, mode)
	if err != nil {
		return v, err
	}
	return compareCut(v.Plain, v.Cluster, all), nil
}

// failPlain brings the plain server's transaction into the failed state that a refusal has left
// the cluster's in.
func (s *Session) failPlain(ctx context.Context) error {
	if s.plain.conn.PgConn().TxStatus() != 'T' {
		return nil
	}
	_, err := ask(ctx, s.plain, Statement{SQL: "SELECT 1/0"}, Simple)
	return err
}

// Stay makes all that follows go to one router, the next one, until it is called with false.
func (s *Session) Stay(stays bool) {
	if stays {
		s.turn()
	}
	s.stays = stays
}

// turn goes to the next router unless the last one is in a transaction.
func (s *Session) turn() *side {
	current := s.routers[s.next%len(s.routers)]
	if s.stays || current.conn.PgConn().TxStatus() != 'I' {
		return current
	}
	s.next++
	return s.routers[s.next%len(s.routers)]
}

// Quiet ends the transactions that are open anywhere.
func (s *Session) Quiet(ctx context.Context) error {
	for _, side := range s.sides() {
		if side.conn.PgConn().TxStatus() == 'I' {
			continue
		}
		if _, err := side.conn.Exec(ctx, "ROLLBACK"); err != nil {
			return fmt.Errorf("roll back on %s: %w", side.name, err)
		}
	}
	return nil
}

// Everywhere runs SQL that belongs to the session (SET …) on the plain Postgres and on
// every router, and insists that they agree, on the parameters reported to the client too.
func (s *Session) Everywhere(ctx context.Context, sql string) error {
	st := Statement{SQL: sql, Ordered: true}
	plain, err := ask(ctx, s.plain, st, Simple)
	if err != nil {
		return err
	}
	for _, router := range s.routers {
		cluster, err := ask(ctx, router, st, Simple)
		if err != nil {
			return err
		}
		if v := compare(plain, cluster, st); v.Difference != "" {
			return fmt.Errorf("%s on %s: %s", sql, router.name, v)
		}
		if err := sameParameters(s.plain.conn.PgConn(), router.conn.PgConn()); err != nil {
			return fmt.Errorf("%s on %s: %w", sql, router.name, err)
		}
	}
	return nil
}

// reported are the parameters that Postgres reports to clients when they change.
var reported = []string{
	"application_name", "client_encoding", "DateStyle", "default_transaction_read_only", "IntervalStyle",
	"is_superuser", "server_encoding", "server_version", "session_authorization", "standard_conforming_strings", "TimeZone",
}

func sameParameters(plain, cluster *pgconn.PgConn) error {
	for _, name := range reported {
		if p, c := plain.ParameterStatus(name), cluster.ParameterStatus(name); p != c {
			return fmt.Errorf("parameter %s: plain %q, cluster %q", name, p, c)
		}
	}
	return nil
}

// EnterSchema makes a schema on both sides, unless it is there, and lets the session's names mean it.
func (s *Session) EnterSchema(ctx context.Context, schema string) error {
	if err := s.Both(ctx, "CREATE SCHEMA IF NOT EXISTS "+schema); err != nil {
		return err
	}
	for _, side := range s.sides() {
		if _, err := side.catalog.Exec(ctx, "SET search_path = "+schema); err != nil {
			return fmt.Errorf("enter schema on %s: %w", side.name, err)
		}
	}
	return s.Everywhere(ctx, "SET search_path = "+schema)
}

// Both runs SQL that changes the database (DDL, data) on both sides, once each.
func (s *Session) Both(ctx context.Context, sql string) error {
	if _, err := s.plain.conn.Exec(ctx, sql); err != nil {
		return fmt.Errorf("on the plain postgres: %w\n%s", err, sql)
	}
	return s.Cluster(ctx, sql)
}

// changeTimeout bounds how long Cluster tries again while something else is being changed.
const changeTimeout = 30 * time.Second

// Cluster runs SQL on the cluster alone: the sharding statements. It tries again where the router
// says so because another change is under way (55006): sessions run side by side.
func (s *Session) Cluster(ctx context.Context, sql string) error {
	for deadline := time.Now().Add(changeTimeout); ; {
		_, err := s.turn().conn.Exec(ctx, sql)
		if err == nil {
			return nil
		}
		var reported *pgconn.PgError
		if errors.As(err, &reported) {
			if reported.Code == objectInUse && time.Now().Before(deadline) {
				continue
			}
			if reported.Hint != "" {
				err = fmt.Errorf("%w (hint: %s)", err, reported.Hint)
			}
		}
		return fmt.Errorf("on the cluster: %w\n%s", err, sql)
	}
}

const objectInUse = "55006"
