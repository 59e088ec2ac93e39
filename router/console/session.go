package console

import (
	"context"
	"encoding/binary"
	"io"
	"strconv"

	"github.com/shardyard/shardyard/router/pgerr"
	"github.com/shardyard/shardyard/router/wire"
)

// Session is one client's session with the admin database. It belongs to one goroutine at a time.
type Session struct {
	actions Actions
	admin   bool
	// put adds frames for the client by a function that appends to the slice it is given.
	put        func(add func(dst []byte) []byte)
	statements map[string]command
	portals    map[string]*portal
	skipping   bool // after an error of the extended protocol: everything up to Sync is skipped
	begun      bool // BEGIN was sent; it has no other effect than that ReadyForQuery says so
}

// portal is a command that was bound.
type portal struct {
	command command
	formats []int16
	rows    []row // left of the result
	run     bool
}

// NewSession begins a session. admin: it may change something, not only look. put adds frames for the client.
func NewSession(actions Actions, admin bool, put func(add func(dst []byte) []byte)) *Session {
	return &Session{
		actions: actions, admin: admin, put: put, statements: make(map[string]command), portals: make(map[string]*portal),
	}
}

// Greet tells the client the settings that drivers ask for.
func (s *Session) Greet(version string) {
	for _, p := range [...][2]string{
		{"server_version", version}, {"server_encoding", "UTF8"}, {"client_encoding", "UTF8"}, {"DateStyle", "ISO, MDY"},
		{"TimeZone", "UTC"}, {"integer_datetimes", "on"}, {"standard_conforming_strings", "on"}, {"application_name", ""},
	} {
		s.put(func(dst []byte) []byte { return wire.AppendParameterStatus(dst, p[0], p[1]) })
	}
}

// Handle runs whole frames. An error ends the session; io.EOF means that the client said goodbye.
func (s *Session) Handle(ctx context.Context, request []byte) error {
	for len(request) > 0 {
		size := 1 + int(binary.BigEndian.Uint32(request[1:]))
		kind, body := request[0], request[5:size:size]
		request = request[size:]
		if err := s.frame(ctx, kind, body); err != nil {
			return err
		}
	}
	return nil
}

func (s *Session) frame(ctx context.Context, kind byte, body []byte) error {
	if s.skipping && kind != wire.TypeSync && kind != wire.TypeTerminate {
		return nil
	}
	switch kind {
	case wire.TypeQuery:
		s.query(ctx, body)
		s.ready()
	case wire.TypeSync:
		s.skipping = false
		if !s.begun {
			clear(s.portals)
		}
		s.ready()
	case wire.TypeParse:
		s.extended(s.parse(body))
	case wire.TypeBind:
		s.extended(s.bind(body))
	case wire.TypeDescribe:
		s.extended(s.describe(body))
	case wire.TypeExecute:
		s.extended(s.execute(ctx, body))
	case wire.TypeClose:
		s.extended(s.close(body))
	case wire.TypeFlush, wire.TypeCopyData, wire.TypeCopyDone, wire.TypeCopyFail:
	case wire.TypeTerminate:
		return io.EOF
	case wire.TypeFunctionCall:
		s.fail(pgerr.Unsupported("functions cannot be called in the admin database", "SHOW HELP lists the commands."))
		s.ready()
	default:
		return pgerr.Newf(pgerr.ProtocolViolation, "invalid frontend message type %d", kind).Fatal()
	}
	return nil
}

func (s *Session) ready() {
	status := byte(wire.TxIdle)
	if s.begun {
		status = wire.TxOpen
	}
	s.put(func(dst []byte) []byte { return wire.AppendReady(dst, status) })
}

func (s *Session) fail(err error) { s.put(pgerr.Of(err).Append) }

func (s *Session) extended(err error) {
	if err != nil {
		s.skipping = true
		s.fail(err)
	}
}

// query runs a text of the simple protocol.
func (s *Session) query(ctx context.Context, body []byte) {
	delete(s.statements, "")
	delete(s.portals, "")
	text, err := wire.DecodeQuery(body)
	if err != nil {
		s.fail(err)
		return
	}
	empty := true
	for _, part := range split(string(text)) {
		c, err := parse(part)
		if err != nil {
			s.fail(err)
			return
		}
		if c.verb == verbEmpty {
			continue
		}
		empty = false
		p := &portal{command: c}
		if columns := c.columns(); columns != nil {
			s.put(func(dst []byte) []byte { return wire.AppendRowDescription(dst, describe(columns, nil)) })
		}
		if err := s.run(ctx, p, 0); err != nil {
			s.fail(err)
			return
		}
	}
	if empty {
		s.put(wire.AppendEmptyQuery)
	}
}

// columns are those of the result, nil if there is none.
func (c *command) columns() []column {
	switch c.verb {
	case verbShow:
		return c.show.columns
	case verbOne:
		return number("?column?")
	}
	return nil
}

// run runs a portal, or goes on with it; maxRows 0 means all rows.
func (s *Session) run(ctx context.Context, p *portal, maxRows int) error {
	c := &p.command
	if c.verb == verbEmpty {
		s.put(wire.AppendEmptyQuery)
		return nil
	}
	if !p.run {
		p.run = true
		if err := s.perform(ctx, c); err != nil {
			return err
		}
		switch c.verb {
		case verbShow:
			p.rows = c.show.result(s.actions.State)
		case verbOne:
			p.rows = []row{{int64(1)}}
		}
	}
	n := len(p.rows)
	if maxRows > 0 {
		n = min(n, maxRows)
	}
	columns := c.columns()
	for _, r := range p.rows[:n] {
		s.put(func(dst []byte) []byte { return appendRow(dst, columns, p.formats, r) })
	}
	p.rows = p.rows[n:]
	if maxRows > 0 && n == maxRows {
		s.put(wire.AppendPortalSuspended)
		return nil
	}
	s.put(func(dst []byte) []byte { return wire.AppendCommandComplete(dst, c.tag) })
	return nil
}

// perform does what a command does besides showing something.
func (s *Session) perform(ctx context.Context, c *command) error {
	switch c.verb {
	case verbBegin, verbEnd:
		s.begun = c.verb == verbBegin
		return nil
	case verbReload, verbReconnect, verbKill:
		if !s.admin {
			return pgerr.Newf("42501", "permission denied for %s", c.tag).WithHint("Only users in admin_users may run it.")
		}
	}
	switch c.verb {
	case verbReload:
		if s.actions.Reload == nil {
			return pgerr.Unsupported("this router has no configuration file to read again", "Start it by shardyard serve.")
		}
		return s.actions.Reload(ctx)
	case verbReconnect:
		s.actions.Reconnect(c.argument)
	case verbKill:
		id, err := strconv.ParseUint(trimClient(c.argument), 10, 64)
		if err != nil {
			return pgerr.Newf(codeSyntax, "%q is no number of a client", c.argument).WithHint("SHOW CLIENTS has them in column id.")
		}
		if !s.actions.Kill(ctx, id) {
			return pgerr.Newf("42704", "there is no client %d", id)
		}
	}
	return nil
}

// trimClient takes the ptr of SHOW CLIENTS for the id too.
func trimClient(argument string) string {
	if len(argument) > 1 && argument[0] == 'c' {
		return argument[1:]
	}
	return argument
}

// maxStatements bounds the prepared statements of one session, and its portals.
const maxStatements = 1000

func (s *Session) parse(body []byte) error {
	var m wire.Parse
	if err := m.Decode(body); err != nil {
		return err
	}
	parts := split(string(m.Query))
	for len(parts) > 1 && len(words(parts[len(parts)-1])) == 0 {
		parts = parts[:len(parts)-1]
	}
	if len(parts) > 1 {
		return pgerr.New(codeSyntax, "cannot insert multiple commands into a prepared statement")
	}
	c, err := parse(parts[0])
	if err != nil {
		return err
	}
	name := string(m.Name)
	if _, taken := s.statements[name]; taken && name != "" {
		return pgerr.Newf("42P05", "prepared statement %q already exists", name)
	}
	if len(s.statements) >= maxStatements {
		return pgerr.New("54000", "too many prepared statements in one session").WithHint("Close those that are not needed.")
	}
	s.statements[name] = c
	s.put(wire.AppendParseComplete)
	return nil
}

func (s *Session) statement(name []byte) (command, error) {
	c, ok := s.statements[string(name)]
	if !ok {
		return c, pgerr.Newf("26000", "prepared statement %q does not exist", name)
	}
	return c, nil
}

func (s *Session) bind(body []byte) error {
	var m wire.Bind
	if err := m.Decode(body); err != nil {
		return err
	}
	c, err := s.statement(m.Statement)
	if err != nil {
		return err
	}
	if len(m.Params) > 0 {
		return pgerr.Newf(pgerr.ProtocolViolation, "bind message supplies %d parameters, but the command has none", len(m.Params))
	}
	if err := checkFormats(m.ResultFormats, len(c.columns())); err != nil {
		return err
	}
	if len(s.portals) >= maxStatements {
		return pgerr.New("54000", "too many portals in one session").WithHint("Close those that are not needed.")
	}
	s.portals[string(m.Portal)] = &portal{command: c, formats: append([]int16(nil), m.ResultFormats...)}
	s.put(wire.AppendBindComplete)
	return nil
}

func (s *Session) portal(name []byte) (*portal, error) {
	p, ok := s.portals[string(name)]
	if !ok {
		return nil, pgerr.Newf("34000", "portal %q does not exist", name)
	}
	return p, nil
}

func (s *Session) describe(body []byte) error {
	o, err := wire.DecodeDescribe(body)
	if err != nil {
		return err
	}
	var c command
	var formats []int16
	if o.Kind == wire.ObjectStatement {
		if c, err = s.statement(o.Name); err != nil {
			return err
		}
		s.put(func(dst []byte) []byte { return wire.AppendParameterDescription(dst, nil) })
	} else {
		p, err := s.portal(o.Name)
		if err != nil {
			return err
		}
		c, formats = p.command, p.formats
	}
	columns := c.columns()
	if columns == nil {
		s.put(wire.AppendNoData)
		return nil
	}
	s.put(func(dst []byte) []byte { return wire.AppendRowDescription(dst, describe(columns, formats)) })
	return nil
}

func (s *Session) execute(ctx context.Context, body []byte) error {
	m, err := wire.DecodeExecute(body)
	if err != nil {
		return err
	}
	p, err := s.portal(m.Portal)
	if err != nil {
		return err
	}
	return s.run(ctx, p, int(m.MaxRows))
}

func (s *Session) close(body []byte) error {
	o, err := wire.DecodeClose(body)
	if err != nil {
		return err
	}
	if o.Kind == wire.ObjectStatement {
		delete(s.statements, string(o.Name))
	} else {
		delete(s.portals, string(o.Name))
	}
	s.put(wire.AppendCloseComplete)
	return nil
}
