package chaos

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// patience bounds every step of a client: a stopped router answers nobody.
const patience = 15 * time.Second

// fate is what a client knows of its transfer.
type fate string

const (
	acknowledged fate = "acknowledged"
	refused      fate = "refused"
	unknown      fate = "unknown"
)

// client is a connection, opened anew when it is lost, now here, now there.
type client struct {
	bed    *bed
	errors *errorLog
	at     int
	conn   *pgx.Conn
}

// with runs use on the connection. An error of the server leaves it open, rolled back.
func (c *client) with(ctx context.Context, use func(context.Context, *pgx.Conn) error) {
	if c.conn == nil {
		c.at = (c.at + 1) % routers
		dial, cancel := context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		conn, err := pgx.Connect(dial, c.bed.url(c.at))
		if err != nil {
			c.errors.failed(ctx, "connect", err)
			pause(ctx, 50*time.Millisecond)
			return
		}
		c.conn = conn
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := use(ctx, c.conn)
	if err != nil && !c.conn.IsClosed() {
		if _, rollback := c.conn.Exec(ctx, "ROLLBACK"); rollback != nil {
			c.close(ctx)
		}
	}
	if c.conn != nil && c.conn.IsClosed() {
		c.conn = nil
	}
	pause(ctx, *rest)
}

func (c *client) close(ctx context.Context) {
	if c.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = c.conn.Close(ctx)
	c.conn = nil
}

// commit commits and says what the client knows then.
func commit(ctx context.Context, conn *pgx.Conn) (fate, error) {
	tag, err := conn.Exec(ctx, "COMMIT")
	var reported *pgconn.PgError
	switch {
	case err == nil && tag.String() == "COMMIT":
		return acknowledged, nil
	case err == nil, errors.As(err, &reported) && reported.Code != "08007":
		return refused, err
	}
	return unknown, err
}

// errorLog counts the errors that clients got.
type errorLog struct {
	t     *testing.T
	mu    *sync.Mutex
	count map[string]int // by SQLSTATE and statement
}

func newErrorLog(t *testing.T) errorLog {
	return errorLog{t: t, mu: new(sync.Mutex), count: map[string]int{}}
}

func (l *errorLog) tell() {
	for _, code := range slices.Sorted(maps.Keys(l.count)) {
		l.t.Logf("%6d errors %s", l.count[code], code)
	}
}

// expected are the errors that faults may cause; anything else is a defect.
var expected = []string{
	"08006", "08007", "08001", "57P01", "57P02", "57P03", "40001", "40P01", "53300", "55P03", "57014", "25P02",
}

func (l *errorLog) failed(ctx context.Context, what string, err error) {
	if ctx.Err() != nil && errors.Is(ctx.Err(), context.Canceled) {
		return // the test ends
	}
	code := "connection"
	var reported *pgconn.PgError
	if errors.As(err, &reported) {
		code = reported.Code
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if reported != nil && !slices.Contains(expected, code) && l.count[code+" "+what] == 0 {
		l.t.Errorf("%s: %v %s %s", what, err, reported.Detail, reported.Hint)
	}
	l.count[code+" "+what]++
}

// seeded gives the randomness of a test.
func seeded(t *testing.T) *rand.Rand {
	s := *seed
	if s == 0 {
		s = time.Now().UnixNano()
	}
	t.Logf("seed %d", s)
	return rand.New(rand.NewPCG(uint64(s), 0))
}
