package shardsql

// Recognise reports, from its first keywords, whether sql is a sharding statement.
func Recognise(sql string) bool { return false }

// Parse parses one sharding statement. Its errors are *Error.
func Parse(sql string) (Statement, error) { return nil, nil }
