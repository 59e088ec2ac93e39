package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
	"golang.org/x/sync/errgroup"
)

// connectCommand, with a port and a number, makes this program hold so many idle clients, until its standard input ends.
const connectCommand = "connect"

const (
	// connectReady is what the connector writes when all clients have connected and asked once.
	connectReady = "ready"
	// connectTogether is how many connect at the same time.
	connectTogether = 8
	connectTimeout  = 30 * time.Second
)

// runConnector holds idle clients. Each has asked one statement, as the clients of an application's pool have.
func runConnector(args []string, in io.Reader, out io.Writer) error {
	if len(args) != 2 {
		return fmt.Errorf("%s takes a port and a number of clients", connectCommand)
	}
	port, portErr := strconv.Atoi(args[0])
	count, countErr := strconv.Atoi(args[1])
	if err := errors.Join(portErr, countErr); err != nil {
		return fmt.Errorf("read the arguments: %w", err)
	}
	if _, err := raiseFileLimit(); err != nil {
		return err
	}
	conns := make([]net.Conn, count)
	defer func() {
		for _, conn := range conns {
			if conn != nil {
				_ = conn.Close() // it ends with the process
			}
		}
	}()
	var group errgroup.Group
	group.SetLimit(connectTogether)
	for i := range conns {
		group.Go(func() (err error) {
			conns[i], err = idleClient(port)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(out, connectReady); err != nil {
		return fmt.Errorf("say that the clients are connected: %w", err)
	}
	if _, err := io.Copy(io.Discard, in); err != nil {
		return fmt.Errorf("wait for the end: %w", err)
	}
	return nil
}

// idleClient logs in without TLS and a password, and runs one statement.
func idleClient(port int) (_ net.Conn, err error) {
	conn, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), connectTimeout)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	defer func() {
		if err != nil {
			_ = conn.Close() // the error is told already
		}
	}()
	if err := conn.SetDeadline(time.Now().Add(connectTimeout)); err != nil {
		return nil, fmt.Errorf("bound the login: %w", err)
	}
	frontend := pgproto3.NewFrontend(conn, conn)
	frontend.Send(&pgproto3.StartupMessage{
		ProtocolVersion: pgproto3.ProtocolVersion30, Parameters: map[string]string{"user": "postgres", "database": "postgres"},
	})
	if err := untilReady(frontend); err != nil {
		return nil, fmt.Errorf("log in: %w", err)
	}
	frontend.Send(&pgproto3.Query{String: "SELECT abalance FROM pgbench_accounts WHERE aid = 1"})
	if err := untilReady(frontend); err != nil {
		return nil, fmt.Errorf("ask once: %w", err)
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return nil, fmt.Errorf("wait without bound: %w", err)
	}
	return conn, nil
}

func untilReady(frontend *pgproto3.Frontend) error {
	if err := frontend.Flush(); err != nil {
		return err
	}
	for {
		message, err := frontend.Receive()
		if err != nil {
			return err
		}
		switch m := message.(type) {
		case *pgproto3.ReadyForQuery:
			return nil
		case *pgproto3.ErrorResponse:
			return pgErrorOf(m)
		}
	}
}

func pgErrorOf(m *pgproto3.ErrorResponse) error {
	return fmt.Errorf("%s: %s", m.Code, m.Message)
}

// idleClients are clients in a process of their own.
type idleClients struct {
	cmd *exec.Cmd
	in  io.Closer
}

// connectIdle returns when all of them have connected.
func connectIdle(ctx context.Context, port, count int) (*idleClients, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	cmd := exec.CommandContext(ctx, self, connectCommand, strconv.Itoa(port), strconv.Itoa(count))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start the idle clients: %w", err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start the idle clients: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the idle clients: %w", err)
	}
	clients := &idleClients{cmd: cmd, in: in}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != connectReady+"\n" {
		return nil, fmt.Errorf("connect %d idle clients: %q, %w", count, line, errors.Join(err, clients.leave()))
	}
	return clients, nil
}

// leave disconnects all of them.
func (c *idleClients) leave() error {
	if err := errors.Join(c.in.Close(), c.cmd.Wait()); err != nil {
		return fmt.Errorf("disconnect the idle clients: %w", err)
	}
	return nil
}
