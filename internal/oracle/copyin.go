package oracle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/cockroachdb/datadriven"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// copying is one COPY … FROM STDIN.
type copying struct {
	sql      string
	data     []byte
	source   string // a query that makes the data, on each side: binary data holds its OIDs
	extended bool
	chunk    int // bytes of each message
	before   []string
}

// copyIn sends the data below the first line on both sides.
func (s *Script) copyIn(ctx context.Context, d *datadriven.TestData) (string, error) {
	sql, text, _ := strings.Cut(d.Input, "\n")
	c := copying{sql: sql, data: []byte(text + "\n"), extended: d.HasArg("extended"), chunk: 1 << 10}
	switch {
	case d.HasArg("quoted"):
		c.data = nil
		for line := range strings.SplitSeq(text, "\n") {
			unquoted, err := strconv.Unquote(`"` + line + `"`)
			if err != nil {
				return "", fmt.Errorf("unquote %s: %w", line, err)
			}
			c.data = append(c.data, unquoted...)
		}
	case d.HasArg("source"):
		c.source = text
	}
	if a, ok := d.Arg("chunk"); ok && len(a.Vals) == 1 {
		var err error
		if c.chunk, err = strconv.Atoi(a.Vals[0]); err != nil {
			return "", err
		}
	}
	if a, ok := d.Arg("restart"); ok {
		for _, sequence := range a.Vals {
			c.before = append(c.before, "ALTER SEQUENCE "+sequence+" RESTART")
		}
	}
	if !d.HasArg("block") {
		return s.copyOne(ctx, c)
	}
	return s.copyInBlock(ctx, c)
}

// copyInBlock copies in a transaction that is committed, behind a savepoint that is gone back to if the COPY fails.
func (s *Script) copyInBlock(ctx context.Context, c copying) (string, error) {
	if err := s.session.Both(ctx, "BEGIN"); err != nil {
		return "", err
	}
	if err := s.session.Both(ctx, "SAVEPOINT before_copy"); err != nil {
		return "", err
	}
	answer, err := s.copyOne(ctx, c)
	if err != nil {
		return "", err
	}
	if s.session.plain.conn.PgConn().TxStatus() == 'E' {
		if err := s.session.Both(ctx, "ROLLBACK TO SAVEPOINT before_copy"); err != nil {
			return "", err
		}
	}
	return answer, s.session.Both(ctx, "COMMIT")
}

func (s *Script) copyOne(ctx context.Context, c copying) (string, error) {
	cluster, err := copyTo(ctx, s.session.turn(), c)
	if err != nil {
		return "", err
	}
	if message, refused := refusal(cluster); refused {
		return "refused: " + stable(message), s.session.failPlain(ctx)
	}
	plain, err := copyTo(ctx, s.session.plain, c)
	if err != nil {
		return "", err
	}
	return compare(plain, cluster, Statement{}).String(), nil
}

// copyTo copies into one side.
func copyTo(ctx context.Context, s *side, c copying) (Outcome, error) {
	conn := s.conn.PgConn()
	front := conn.Frontend()
	if c.source != "" {
		var data bytes.Buffer
		if _, err := conn.CopyTo(ctx, &data, "COPY ("+c.source+") TO STDOUT (FORMAT binary)"); err != nil {
			return Outcome{}, fmt.Errorf("make the data: %w", err)
		}
		c.data = data.Bytes()
	}
	for _, sql := range c.before {
		if _, err := s.conn.Exec(ctx, sql); err != nil {
			return Outcome{}, fmt.Errorf("%s: %w", sql, err)
		}
	}
	s.notices = nil
	if c.extended {
		front.Send(&pgproto3.Parse{Query: c.sql})
		front.Send(&pgproto3.Bind{})
		front.Send(&pgproto3.Execute{})
		front.Send(&pgproto3.Flush{})
	} else {
		front.Send(&pgproto3.Query{String: c.sql})
	}
	var outcome Outcome
	sent := false
	err := front.Flush()
	for err == nil {
		var message pgproto3.BackendMessage
		if message, err = conn.ReceiveMessage(ctx); err != nil {
			break
		}
		switch m := message.(type) {
		case *pgproto3.CopyInResponse:
			sent = true
			err = sendData(front, c)
		case *pgproto3.CommandComplete:
			outcome.Tags = append(outcome.Tags, string(m.CommandTag))
		case *pgproto3.ErrorResponse:
			outcome.Err = pgconn.ErrorResponseToPgError(m)
			if c.extended && !sent { // else one stands behind the data
				front.Send(&pgproto3.Sync{})
				err = front.Flush()
			}
		case *pgproto3.ReadyForQuery:
			outcome.Notices, outcome.Status = s.notices, conn.TxStatus()
			return outcome, nil
		}
	}
	var reported *pgconn.PgError
	if errors.As(err, &reported) {
		outcome.Err = reported
		return outcome, nil
	}
	return outcome, fmt.Errorf("copy into %s: %w", s.name, err)
}

func sendData(front *pgproto3.Frontend, c copying) error {
	for data := c.data; len(data) > 0; {
		n := min(len(data), c.chunk)
		front.Send(&pgproto3.CopyData{Data: data[:n]})
		data = data[n:]
	}
	front.Send(&pgproto3.CopyDone{})
	if c.extended {
		front.Send(&pgproto3.Sync{})
	}
	return front.Flush()
}
