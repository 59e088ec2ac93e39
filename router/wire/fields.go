package wire

// Codes of the fields of an ErrorResponse or NoticeResponse.
const (
	FieldSeverity         = 'S' // localised
	FieldSeverityVerbatim = 'V'
	FieldCode             = 'C'
	FieldMessage          = 'M'
	FieldDetail           = 'D'
	FieldHint             = 'H'
	FieldPosition         = 'P'
	FieldInternalPosition = 'p'
	FieldInternalQuery    = 'q'
	FieldWhere            = 'W'
	FieldSchema           = 's'
	FieldTable            = 't'
	FieldColumn           = 'c'
	FieldDataType         = 'd'
	FieldConstraint       = 'n'
	FieldFile             = 'F'
	FieldLine             = 'L'
	FieldRoutine          = 'R'
)

// Fields iterates over the fields of an ErrorResponse or NoticeResponse.
type Fields struct {
	c    cursor
	done bool
}

// NewFields starts at the first field of the body.
func NewFields(body []byte) Fields { return Fields{c: cursor{rest: body}} }

// Next returns the next field; the value views the frame. ok is false behind the last field and where the message is malformed.
func (f *Fields) Next() (code byte, value []byte, ok bool) {
	if f.done || f.c.bad {
		return 0, nil, false
	}
	if code = f.c.byte(); code == 0 {
		f.done = true
		return 0, nil, false
	}
	value = f.c.string()
	return code, value, !f.c.bad
}

// Err reports, behind the last field, a message that was malformed.
func (f *Fields) Err() error { return f.c.end() }

// ErrorField returns one field of an ErrorResponse or NoticeResponse, nil if it is absent. The value views the frame.
func ErrorField(body []byte, code byte) []byte {
	fields := NewFields(body)
	for {
		c, value, ok := fields.Next()
		if !ok || c == code {
			return value
		}
	}
}

// ErrorPart is a code and value for AppendError and AppendNotice.
type ErrorPart struct {
	Code  byte
	Value string
}

// AppendError appends an ErrorResponse; parts with an empty value are left out.
func AppendError(dst []byte, parts ...ErrorPart) []byte {
	return appendParts(dst, TypeErrorResponse, parts)
}

// AppendNotice appends a NoticeResponse; parts with an empty value are left out.
func AppendNotice(dst []byte, parts ...ErrorPart) []byte {
	return appendParts(dst, TypeNotice, parts)
}

func appendParts(dst []byte, kind byte, parts []ErrorPart) []byte {
	dst, at := begin(dst, kind)
	for _, p := range parts {
		if p.Value == "" {
			continue
		}
		dst = append(dst, p.Code)
		dst = appendString(dst, p.Value)
	}
	dst = append(dst, 0)
	return finish(dst, at)
}
