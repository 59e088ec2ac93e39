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
	next    int // the router that is asked next
}

// NewSession connects to everything. Close must be called.
func (b *Bed) NewSession(ctx context.Context, database string) (_ *Session, err error) {
	s := &Session{}
	defer func() {
		if err != nil {
			s.Close(ctx)
		}
	}()
	if s.plain, err = connect(ctx, "plain", b.Plain.ConnString(0, database)); err != nil {
		return s, err
	}
	for i := range b.Routers {
		router, err := connect(ctx, fmt.Sprintf("router %d", i+1), b.RouterConnString(i, database))
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
	for _, side := range append([]*side{s.plain}, s.routers...) {
		if side != nil {
			_ = side.conn.Close(ctx) // the test is over either way
		}
	}
}

// Ask sends the statement to the plain Postgres and to the router whose turn it is, and
// compares. Inside a transaction it is always the same router's turn.
func (s *Session) Ask(ctx context.Context, st Statement, mode Mode) (Verdict, error) {
	router := s.turn()
	plain, err := ask(ctx, s.plain, st, mode)
	if err != nil {
		return Verdict{}, err
	}
	cluster, err := ask(ctx, router, st, mode)
	if err != nil {
		return Verdict{}, err
	}
	return compare(plain, cluster, st.Ordered), nil
}

// turn goes to the next router unless the last one is in a transaction.
func (s *Session) turn() *side {
	current := s.routers[s.next%len(s.routers)]
	if current.conn.PgConn().TxStatus() != 'I' {
		return current
	}
	s.next++
	return s.routers[s.next%len(s.routers)]
}

// Everywhere runs SQL that belongs to the session (SET …) on the plain Postgres and on
// every router, and insists that they agree.
func (s *Session) Everywhere(ctx context.Context, sql string) error {
	plain, err := ask(ctx, s.plain, Statement{SQL: sql}, Simple)
	if err != nil {
		return err
	}
	for _, router := range s.routers {
		cluster, err := ask(ctx, router, Statement{SQL: sql}, Simple)
		if err != nil {
			return err
		}
		if v := compare(plain, cluster, true); v.Difference != "" || v.Refused != "" {
			return fmt.Errorf("%s on %s: %s", sql, router.name, v)
		}
	}
	return nil
}

// Both runs SQL that changes the database (DDL, data) on both sides, once each.
func (s *Session) Both(ctx context.Context, sql string) error {
	if _, err := s.plain.conn.Exec(ctx, sql); err != nil {
		return fmt.Errorf("on the plain postgres: %w\n%s", err, sql)
	}
	return s.Cluster(ctx, sql)
}

// Cluster runs SQL on the cluster alone: the sharding statements.
func (s *Session) Cluster(ctx context.Context, sql string) error {
	if _, err := s.turn().conn.Exec(ctx, sql); err != nil {
		var reported *pgconn.PgError
		if errors.As(err, &reported) && reported.Hint != "" {
			err = fmt.Errorf("%w (hint: %s)", err, reported.Hint)
		}
		return fmt.Errorf("on the cluster: %w\n%s", err, sql)
	}
	return nil
}
