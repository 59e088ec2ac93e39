package wire

// Types of the messages that a client sends.
const (
	TypeBind         = 'B'
	TypeClose        = 'C'
	TypeCopyFail     = 'f'
	TypeDescribe     = 'D'
	TypeExecute      = 'E'
	TypeFlush        = 'H'
	TypeFunctionCall = 'F'
	TypeParse        = 'P'
	TypePassword     = 'p' // also every SASL response
	TypeQuery        = 'Q'
	TypeSync         = 'S'
	TypeTerminate    = 'X'
	TypeCopyData     = 'd' // both ways
	TypeCopyDone     = 'c' // both ways
)

// Kinds of objects that Describe and Close name.
const (
	ObjectStatement = 'S'
	ObjectPortal    = 'P'
)

// Parse asks to prepare a statement. Name and Query view the frame.
type Parse struct {
	Name, Query []byte
	Types       []uint32 // type OIDs, 0 = unspecified; may be fewer than the parameters
}

// Decode reads a Parse message; it reuses p.Types.
func (p *Parse) Decode(body []byte) error {
	c := cursor{rest: body}
	p.Name, p.Query, p.Types = c.string(), c.string(), p.Types[:0]
	for range c.count(4) {
		p.Types = append(p.Types, c.uint32())
	}
	return c.end()
}

// Bind asks to bind values to a prepared statement. Everything but the slices of formats and the slice Params itself
// views the frame.
type Bind struct {
	Portal, Statement []byte
	Formats           []int16  // 0 text, 1 binary; none: all text; one: for all
	Params            [][]byte // nil is NULL
	ResultFormats     []int16  // as Formats
	Tail              []byte   // the message behind the two names, to relay it under other names
}

// Decode reads a Bind message; it reuses b's slices.
func (b *Bind) Decode(body []byte) error {
	c := cursor{rest: body}
	b.Portal, b.Statement = c.string(), c.string()
	return b.decodeTail(&c)
}

// DecodeTail reads what another Bind had as its Tail; it reuses b's slices.
func (b *Bind) DecodeTail(tail []byte) error {
	b.Portal, b.Statement = nil, nil
	return b.decodeTail(&cursor{rest: tail})
}

func (b *Bind) decodeTail(c *cursor) error {
	b.Tail = c.rest
	b.Formats, b.Params, b.ResultFormats = b.Formats[:0], b.Params[:0], b.ResultFormats[:0]
	for range c.count(2) {
		b.Formats = append(b.Formats, c.int16())
	}
	for range c.count(4) {
		b.Params = append(b.Params, c.value())
	}
	for range c.count(2) {
		b.ResultFormats = append(b.ResultFormats, c.int16())
	}
	if err := c.end(); err != nil {
		return err
	}
	if n := len(b.Formats); n > 1 && n != len(b.Params) {
		return malformed("bind message has %d parameter formats but %d parameters", n, len(b.Params))
	}
	return nil
}

// Format returns the format of parameter i.
func (b *Bind) Format(i int) int16 { return FormatAt(b.Formats, i) }

// FormatAt applies the protocol's rule for lists of formats: none means text for all, one is for all.
func FormatAt(formats []int16, i int) int16 {
	switch {
	case len(formats) == 0:
		return 0
	case len(formats) == 1:
		return formats[0]
	case i < len(formats):
		return formats[i]
	}
	return 0
}

// Object is what Describe and Close name. Name views the frame.
type Object struct {
	Kind byte // ObjectStatement or ObjectPortal
	Name []byte
}

// DecodeDescribe reads a Describe message.
func DecodeDescribe(body []byte) (Object, error) { return decodeObject(body, "DESCRIBE") }

// DecodeClose reads a Close message.
func DecodeClose(body []byte) (Object, error) { return decodeObject(body, "CLOSE") }

func decodeObject(body []byte, message string) (Object, error) {
	c := cursor{rest: body}
	o := Object{Kind: c.byte(), Name: c.string()}
	if err := c.end(); err != nil {
		return Object{}, err
	}
	if o.Kind != ObjectStatement && o.Kind != ObjectPortal {
		return Object{}, malformed("invalid %s message subtype %d", message, o.Kind)
	}
	return o, nil
}

// Execute asks to run a portal. Portal views the frame.
type Execute struct {
	Portal  []byte
	MaxRows int32 // 0 or less: all
}

// DecodeExecute reads an Execute message.
func DecodeExecute(body []byte) (Execute, error) {
	c := cursor{rest: body}
	e := Execute{Portal: c.string(), MaxRows: c.int32()}
	return e, c.end()
}

// DecodeQuery reads a Query message; the text views the frame.
func DecodeQuery(body []byte) ([]byte, error) { return decodeString(body) }

// DecodeCopyFail reads a CopyFail message; the reason views the frame.
func DecodeCopyFail(body []byte) ([]byte, error) { return decodeString(body) }

// DecodePassword reads a password in clear text; it views the frame.
func DecodePassword(body []byte) ([]byte, error) { return decodeString(body) }

func decodeString(body []byte) ([]byte, error) {
	c := cursor{rest: body}
	s := c.string()
	return s, c.end()
}

// DecodeEmpty checks a message that has no body (Sync, Flush, Terminate, CopyDone).
func DecodeEmpty(body []byte) error {
	c := cursor{rest: body}
	return c.end()
}

// SASLInitial begins a SASL exchange; it views the frame.
type SASLInitial struct {
	Mechanism []byte
	Data      []byte // nil: the client sent none
}

// DecodeSASLInitial reads a SASLInitialResponse. (A later SASLResponse is its body as it stands.)
func DecodeSASLInitial(body []byte) (SASLInitial, error) {
	c := cursor{rest: body}
	s := SASLInitial{Mechanism: c.string(), Data: c.value()}
	return s, c.end()
}

// FunctionCall is a call of a function by its OID. Arguments view the frame.
type FunctionCall struct {
	Function     uint32
	Formats      []int16
	Arguments    [][]byte // nil is NULL
	ResultFormat int16
}

// Decode reads a FunctionCall message; it reuses f's slices.
func (f *FunctionCall) Decode(body []byte) error {
	c := cursor{rest: body}
	f.Function, f.Formats, f.Arguments = c.uint32(), f.Formats[:0], f.Arguments[:0]
	for range c.count(2) {
		f.Formats = append(f.Formats, c.int16())
	}
	for range c.count(4) {
		f.Arguments = append(f.Arguments, c.value())
	}
	f.ResultFormat = c.int16()
	return c.end()
}

// AppendParse appends a Parse message.
func AppendParse(dst []byte, name, query string, types []uint32) []byte {
	dst, at := begin(dst, TypeParse)
	dst = appendString(dst, name)
	dst = appendString(dst, query)
	dst = appendInt16(dst, len(types))
	for _, t := range types {
		dst = appendUint32(dst, t)
	}
	return finish(dst, at)
}

// AppendBind appends a Bind message.
func AppendBind(dst []byte, portal, statement string, formats []int16, params [][]byte, resultFormats []int16) []byte {
	dst, at := begin(dst, TypeBind)
	dst = appendString(dst, portal)
	dst = appendString(dst, statement)
	dst = appendFormats(dst, formats)
	dst = appendInt16(dst, len(params))
	for _, p := range params {
		dst = appendValue(dst, p)
	}
	dst = appendFormats(dst, resultFormats)
	return finish(dst, at)
}

// AppendBindTail appends a Bind message whose values and formats are another's Tail, under new names.
func AppendBindTail(dst []byte, portal, statement string, tail []byte) []byte {
	dst, at := begin(dst, TypeBind)
	dst = appendString(dst, portal)
	dst = appendString(dst, statement)
	dst = append(dst, tail...)
	return finish(dst, at)
}

func appendFormats(dst []byte, formats []int16) []byte {
	dst = appendInt16(dst, len(formats))
	for _, f := range formats {
		dst = appendInt16(dst, int(f))
	}
	return dst
}

// AppendDescribe appends a Describe message; kind is ObjectStatement or ObjectPortal.
func AppendDescribe(dst []byte, kind byte, name string) []byte {
	return appendObject(dst, TypeDescribe, kind, name)
}

// AppendClose appends a Close message; kind is ObjectStatement or ObjectPortal.
func AppendClose(dst []byte, kind byte, name string) []byte {
	return appendObject(dst, TypeClose, kind, name)
}

func appendObject(dst []byte, message, kind byte, name string) []byte {
	dst, at := begin(dst, message)
	dst = append(dst, kind)
	dst = appendString(dst, name)
	return finish(dst, at)
}

// AppendExecute appends an Execute message; maxRows 0 means all.
func AppendExecute(dst []byte, portal string, maxRows int32) []byte {
	dst, at := begin(dst, TypeExecute)
	dst = appendString(dst, portal)
	dst = appendUint32(dst, uint32(maxRows))
	return finish(dst, at)
}

// AppendQuery appends a Query message.
func AppendQuery(dst []byte, sql string) []byte {
	dst, at := begin(dst, TypeQuery)
	dst = appendString(dst, sql)
	return finish(dst, at)
}

// AppendSync appends a Sync message.
func AppendSync(dst []byte) []byte { return append(dst, TypeSync, 0, 0, 0, 4) }

// AppendFlush appends a Flush message.
func AppendFlush(dst []byte) []byte { return append(dst, TypeFlush, 0, 0, 0, 4) }

// AppendTerminate appends a Terminate message.
func AppendTerminate(dst []byte) []byte { return append(dst, TypeTerminate, 0, 0, 0, 4) }

// AppendCopyData appends a CopyData message; it goes both ways.
func AppendCopyData(dst, data []byte) []byte { return AppendFrame(dst, TypeCopyData, data) }

// AppendCopyDone appends a CopyDone message; it goes both ways.
func AppendCopyDone(dst []byte) []byte { return append(dst, TypeCopyDone, 0, 0, 0, 4) }

// AppendCopyFail appends a CopyFail message.
func AppendCopyFail(dst []byte, reason string) []byte {
	dst, at := begin(dst, TypeCopyFail)
	dst = appendString(dst, reason)
	return finish(dst, at)
}

// AppendFrame appends a message of any type with the body given.
func AppendFrame(dst []byte, kind byte, body []byte) []byte {
	dst = append(dst, kind)
	dst = appendUint32(dst, uint32(len(body)+4))
	return append(dst, body...)
}
