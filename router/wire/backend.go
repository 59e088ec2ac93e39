package wire

// Types of the messages that a server sends.
const (
	TypeAuthentication       = 'R'
	TypeBackendKeyData       = 'K'
	TypeBindComplete         = '2'
	TypeCloseComplete        = '3'
	TypeCommandComplete      = 'C'
	TypeCopyBothResponse     = 'W'
	TypeCopyInResponse       = 'G'
	TypeCopyOutResponse      = 'H'
	TypeDataRow              = 'D'
	TypeEmptyQuery           = 'I'
	TypeErrorResponse        = 'E'
	TypeFunctionCallResponse = 'V'
	TypeNegotiateVersion     = 'v'
	TypeNoData               = 'n'
	TypeNotice               = 'N'
	TypeNotification         = 'A'
	TypeParameterDescription = 't'
	TypeParameterStatus      = 'S'
	TypeParseComplete        = '1'
	TypePortalSuspended      = 's'
	TypeReady                = 'Z'
	TypeRowDescription       = 'T'
)

// Transaction states of a ReadyForQuery.
const (
	TxIdle   = 'I'
	TxOpen   = 'T'
	TxFailed = 'E'
)

const (
	authOK           = 0
	authCleartext    = 3
	authMD5          = 5
	authSASL         = 10
	authSASLContinue = 11
	authSASLFinal    = 12
)

// AppendAuthenticationOK appends the end of a successful authentication.
func AppendAuthenticationOK(dst []byte) []byte { return appendAuth(dst, authOK, nil) }

// AppendAuthenticationCleartext appends a request for a password in clear text.
func AppendAuthenticationCleartext(dst []byte) []byte { return appendAuth(dst, authCleartext, nil) }

// AppendAuthenticationMD5 appends a request for a password as md5, with the salt.
func AppendAuthenticationMD5(dst []byte, salt [4]byte) []byte {
	return appendAuth(dst, authMD5, salt[:])
}

// AppendAuthenticationSASL appends the offer of SASL mechanisms, the preferred one first.
func AppendAuthenticationSASL(dst []byte, mechanisms ...string) []byte {
	dst, at := begin(dst, TypeAuthentication)
	dst = appendUint32(dst, authSASL)
	for _, m := range mechanisms {
		dst = appendString(dst, m)
	}
	dst = append(dst, 0)
	return finish(dst, at)
}

// AppendAuthenticationSASLContinue appends a SASL challenge.
func AppendAuthenticationSASLContinue(dst, data []byte) []byte {
	return appendAuth(dst, authSASLContinue, data)
}

// AppendAuthenticationSASLFinal appends the outcome of a SASL exchange; AppendAuthenticationOK follows it.
func AppendAuthenticationSASLFinal(dst, data []byte) []byte {
	return appendAuth(dst, authSASLFinal, data)
}

func appendAuth(dst []byte, code uint32, data []byte) []byte {
	dst, at := begin(dst, TypeAuthentication)
	dst = appendUint32(dst, code)
	dst = append(dst, data...)
	return finish(dst, at)
}

// AppendNegotiateVersion appends the newest minor version of protocol 3 that is spoken, and the protocol options
// (`_pq_.…`) of the start-up message that are not known.
func AppendNegotiateVersion(dst []byte, minor uint32, unknown []string) []byte {
	dst, at := begin(dst, TypeNegotiateVersion)
	dst = appendUint32(dst, 3<<16|minor)
	dst = appendUint32(dst, uint32(len(unknown)))
	for _, name := range unknown {
		dst = appendString(dst, name)
	}
	return finish(dst, at)
}

// AppendBackendKeyData appends the key with which the session can be cancelled.
func AppendBackendKeyData(dst []byte, pid uint32, secret []byte) []byte {
	dst, at := begin(dst, TypeBackendKeyData)
	dst = appendUint32(dst, pid)
	dst = append(dst, secret...)
	return finish(dst, at)
}

// AppendParameterStatus appends the value of a reported setting.
func AppendParameterStatus(dst []byte, name, value string) []byte {
	dst, at := begin(dst, TypeParameterStatus)
	dst = appendString(dst, name)
	dst = appendString(dst, value)
	return finish(dst, at)
}

// AppendReady appends a ReadyForQuery with TxIdle, TxOpen or TxFailed.
func AppendReady(dst []byte, status byte) []byte {
	return append(dst, TypeReady, 0, 0, 0, 5, status)
}

// AppendCommandComplete appends the end of a statement, as "SELECT 3".
func AppendCommandComplete(dst []byte, tag string) []byte {
	dst, at := begin(dst, TypeCommandComplete)
	dst = appendString(dst, tag)
	return finish(dst, at)
}

// AppendParseComplete appends the answer to Parse.
func AppendParseComplete(dst []byte) []byte { return append(dst, TypeParseComplete, 0, 0, 0, 4) }

// AppendBindComplete appends the answer to Bind.
func AppendBindComplete(dst []byte) []byte { return append(dst, TypeBindComplete, 0, 0, 0, 4) }

// AppendCloseComplete appends the answer to Close.
func AppendCloseComplete(dst []byte) []byte { return append(dst, TypeCloseComplete, 0, 0, 0, 4) }

// AppendNoData appends the description of what returns no rows.
func AppendNoData(dst []byte) []byte { return append(dst, TypeNoData, 0, 0, 0, 4) }

// AppendEmptyQuery appends the answer to an empty query.
func AppendEmptyQuery(dst []byte) []byte { return append(dst, TypeEmptyQuery, 0, 0, 0, 4) }

// AppendPortalSuspended appends the answer to an Execute that stopped at its row limit.
func AppendPortalSuspended(dst []byte) []byte { return append(dst, TypePortalSuspended, 0, 0, 0, 4) }

// AppendFunctionCallResponse appends the result of a FunctionCall; nil is NULL.
func AppendFunctionCallResponse(dst, value []byte) []byte {
	dst, at := begin(dst, TypeFunctionCallResponse)
	dst = appendValue(dst, value)
	return finish(dst, at)
}

// AppendNotification appends an asynchronous notification.
func AppendNotification(dst []byte, pid uint32, channel, payload string) []byte {
	dst, at := begin(dst, TypeNotification)
	dst = appendUint32(dst, pid)
	dst = appendString(dst, channel)
	dst = appendString(dst, payload)
	return finish(dst, at)
}

// AppendCopyInResponse appends the start of a COPY FROM STDIN.
func AppendCopyInResponse(dst []byte, binary bool, formats []int16) []byte {
	return appendCopyResponse(dst, TypeCopyInResponse, binary, formats)
}

// AppendCopyOutResponse appends the start of a COPY TO STDOUT.
func AppendCopyOutResponse(dst []byte, binary bool, formats []int16) []byte {
	return appendCopyResponse(dst, TypeCopyOutResponse, binary, formats)
}

func appendCopyResponse(dst []byte, kind byte, binary bool, formats []int16) []byte {
	dst, at := begin(dst, kind)
	overall := byte(0)
	if binary {
		overall = 1
	}
	dst = append(dst, overall)
	dst = appendFormats(dst, formats)
	return finish(dst, at)
}

// CopyResponse is what starts a COPY in either direction.
type CopyResponse struct {
	Binary  bool
	Formats []int16 // one for each column
}

// Decode reads a CopyInResponse or CopyOutResponse; it reuses c.Formats.
func (r *CopyResponse) Decode(body []byte) error {
	c := cursor{rest: body}
	overall := c.byte()
	r.Binary, r.Formats = overall == 1, r.Formats[:0]
	for range c.count(2) {
		r.Formats = append(r.Formats, c.int16())
	}
	if overall > 1 {
		return malformed("invalid format %d in copy response", overall)
	}
	return c.end()
}

// DecodeReady returns the transaction status of a ReadyForQuery.
func DecodeReady(body []byte) (byte, error) {
	if len(body) != 1 || body[0] != TxIdle && body[0] != TxOpen && body[0] != TxFailed {
		return 0, malformed("invalid ready for query message")
	}
	return body[0], nil
}

// DecodeCommandComplete returns the tag; it views the frame.
func DecodeCommandComplete(body []byte) ([]byte, error) {
	return decodeString(body)
}

// TagRows returns the number of rows that a command tag ends with ("INSERT 0 5" → 5); ok is false if there is none.
func TagRows(tag []byte) (rows int64, ok bool) {
	at := len(tag)
	for at > 0 && tag[at-1] >= '0' && tag[at-1] <= '9' {
		at--
	}
	if at == len(tag) || at == 0 || tag[at-1] != ' ' || len(tag)-at > 18 {
		return 0, false
	}
	for _, digit := range tag[at:] {
		rows = rows*10 + int64(digit-'0')
	}
	return rows, true
}

// DecodeParameterStatus returns a reported setting; both views the frame.
func DecodeParameterStatus(body []byte) (name, value []byte, err error) {
	c := cursor{rest: body}
	name, value = c.string(), c.string()
	return name, value, c.end()
}

// DecodeBackendKeyData returns a session's key; secret views the frame.
func DecodeBackendKeyData(body []byte) (pid uint32, secret []byte, err error) {
	c := cursor{rest: body}
	pid = c.uint32()
	if c.bad || len(c.rest) < 4 || len(c.rest) > maxCancelSecret {
		return 0, nil, malformed("invalid backend key data message")
	}
	return pid, c.rest, nil
}

// Notification is an asynchronous notification; it views the frame.
type Notification struct {
	PID              uint32
	Channel, Payload []byte
}

// DecodeNotification reads a NotificationResponse.
func DecodeNotification(body []byte) (Notification, error) {
	c := cursor{rest: body}
	n := Notification{PID: c.uint32(), Channel: c.string(), Payload: c.string()}
	return n, c.end()
}
