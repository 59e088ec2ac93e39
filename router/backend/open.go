package backend

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/router/loop"
	"github.com/shardyard/shardyard/router/pgerr"
	"github.com/shardyard/shardyard/router/wire"
)

// connectConfig describes a connection completely, so that nothing of the process's environment gets in.
func (c *Config) connectConfig(endpoint directory.Endpoint, id Identity) (*pgx.ConnConfig, error) {
	var text strings.Builder
	for _, p := range [][2]string{
		{"host", endpoint.Host}, {"port", strconv.Itoa(int(endpoint.Port))}, {"database", id.Database}, {"user", id.User},
		{"password", c.Passwords[id.User]}, {"passfile", c.Passfile},
		{"sslmode", c.TLS.Mode}, {"sslrootcert", c.TLS.RootCert}, {"sslcert", c.TLS.Cert}, {"sslkey", c.TLS.Key},
		{"sslpassword", ""}, {"sslcertmode", "allow"}, {"sslnegotiation", "postgres"}, {"target_session_attrs", "any"},
		{"min_protocol_version", "3.0"}, {"max_protocol_version", "3.0"}, {"channel_binding", "prefer"}, {"require_auth", ""},
	} {
		escaped := strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(p[1])
		fmt.Fprintf(&text, "%s='%s' ", p[0], escaped)
	}
	config, err := pgx.ParseConfig(text.String())
	if err != nil {
		return nil, errors.New("configure connection: " + configReason(err))
	}
	config.RuntimeParams = map[string]string{applicationSetting: c.ApplicationName}
	config.ConnectTimeout = c.ConnectTimeout
	config.MaxProtocolMessageBodyLen = 1 << 20 // until it is hijacked it carries only our own short answers
	dialer := &net.Dialer{KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: 30 * time.Second, Interval: 10 * time.Second, Count: 3,
	}}
	config.DialFunc = dialer.DialContext
	return config, nil
}

// configReason leaves out the connection string, in which the password stands.
func configReason(err error) string {
	if inner := errors.Unwrap(err); inner != nil {
		return inner.Error()
	}
	return "invalid parameters"
}

// connect opens a connection, compares the floor and takes the socket over.
func (p *pool) connect(ctx context.Context, endpoint directory.Endpoint, generation uint64, epoch directory.Epoch) (*Conn, error) {
	cfg := &p.owner.cfg
	config, err := cfg.connectConfig(endpoint, p.key.id)
	if err != nil {
		return nil, fmt.Errorf("connect to shard %s: %w", p.key.shard, err)
	}
	within, cancel := context.WithTimeout(ctx, cfg.ConnectTimeout)
	defer cancel()
	used := p.owner.logIn(config)
	server, err := pgconn.ConnectConfig(within, &config.Config)
	if err != nil {
		return nil, p.owner.loginFailed(ctx, p.key.shard, config, used, err)
	}
	floor, err := readFloor(within, server)
	if err == nil && floor > epoch {
		p.raiseFloor(floor)
		err = &FloorError{Shard: p.key.shard, Floor: floor, Epoch: epoch}
	}
	if err == nil {
		err = server.SyncConn(within)
	}
	if err != nil {
		closeServer(ctx, server)
		return nil, connectFailed(ctx, p.key.shard, err)
	}
	hijacked, err := server.Hijack()
	if err != nil {
		closeServer(ctx, server)
		return nil, fmt.Errorf("connect to shard %s: %w", p.key.shard, err)
	}
	if login, ok := hijacked.Conn.(*keyLogin); ok {
		hijacked.Conn = login.Conn
	}
	if err := hijacked.Conn.SetDeadline(time.Time{}); err != nil {
		_ = hijacked.Conn.Close()
		return nil, connectFailed(ctx, p.key.shard, err)
	}
	if hijacked.Conn, err = cfg.Loop.Adopt(hijacked.Conn); err != nil {
		return nil, connectFailed(ctx, p.key.shard, err)
	}
	now := time.Now()
	c := &Conn{
		pool: p, net: hijacked.Conn, tls: hijacked.TLSConfig, raw: rawConn(hijacked.Conn),
		reader: wire.NewReader(hijacked.Conn, wire.Backend), pid: hijacked.PID, secret: hijacked.SecretKey,
		params: hijacked.ParameterStatuses, prepared: newRegistry(cfg.PreparedStatements), tx: hijacked.TxStatus,
		generation: generation, lastUsed: now,
		expires: now.Add(cfg.MaxLifetime - rand.N(cfg.MaxLifetime/10+1)),
	}
	c.polled, _ = hijacked.Conn.(*loop.Conn)
	c.peek.init()
	return c, nil
}

// connectFailed says what a client sees: what the server said, 57014 if the caller gave up, else 08006.
func connectFailed(ctx context.Context, shard directory.ShardID, err error) error {
	var state interface{ SQLState() string }
	if errors.As(err, &state) {
		return fmt.Errorf("connect to shard %s: %w", shard, err)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("connect to shard %s: %w", shard, context.Cause(ctx))
	}
	return pgerr.Newf(pgerr.ConnectionFailure, "could not connect to shard %s", shard).
		WithDetail(rootCause(err).Error()).
		WithHint("Check that the shard's server runs and that the address in the map is right.").
		Because(fmt.Errorf("connect to shard %s: %w", shard, err))
}

func rootCause(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}

func closeServer(ctx context.Context, server *pgconn.PgConn) {
	within, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = server.Close(within)
}

// readFloor returns the oldest epoch that the shard accepts, 0 where the bookkeeping schema does not exist: nothing
// was ever sharded in that database. It asks in two steps because a statement that names an absent table cannot be parsed.
func readFloor(ctx context.Context, server *pgconn.PgConn) (directory.Epoch, error) {
	present, err := queryValue(ctx, server, "SELECT pg_catalog.to_regclass('shardyard.epoch') IS NOT NULL")
	if err != nil {
		return 0, fmt.Errorf("look for the floor: %w", err)
	}
	if present != "t" {
		return 0, nil
	}
	text, err := queryValue(ctx, server, "SELECT pg_catalog.max(floor) FROM shardyard.epoch")
	if err != nil {
		return 0, fmt.Errorf("read the floor: %w", err)
	}
	if text == "" {
		return 0, nil // the schema was made, its row not yet
	}
	floor, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read the floor: %w", err)
	}
	return directory.Epoch(floor), nil
}

func queryValue(ctx context.Context, server *pgconn.PgConn, sql string) (string, error) {
	results, err := server.Exec(ctx, sql).ReadAll()
	if err != nil {
		return "", err
	}
	if len(results) != 1 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) != 1 {
		return "", errors.New("unexpected answer")
	}
	return string(results[0].Rows[0][0]), nil
}
