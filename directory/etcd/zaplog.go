package etcd

import (
	"log/slog"
	"sync/atomic"

	"go.uber.org/zap/zapcore"
)

// slogCore hands zap's entries, which is how etcd logs, to slog: warnings and errors, nothing else, each a
// level lower than etcd gives it. The embedded server serves nobody but us, and what matters to us fails
// where we use it; of its listeners closing at its end it speaks as errors, and is not heard at all then.
type slogCore struct {
	log     *slog.Logger
	closing *atomic.Bool
}

func (c slogCore) Enabled(level zapcore.Level) bool { return level >= zapcore.WarnLevel }

func (c slogCore) With(fields []zapcore.Field) zapcore.Core {
	return slogCore{log: c.log.With(attributes(fields)...), closing: c.closing}
}

func (c slogCore) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(entry.Level) {
		return checked.AddCore(entry, c)
	}
	return checked
}

func (c slogCore) Write(entry zapcore.Entry, fields []zapcore.Field) error {
	if c.closing.Load() {
		return nil
	}
	values := append(attributes(fields), "etcd_message", entry.Message)
	if entry.Level >= zapcore.ErrorLevel {
		c.log.Warn("message of the embedded etcd", values...)
	} else {
		c.log.Info("message of the embedded etcd", values...)
	}
	return nil
}

func (slogCore) Sync() error { return nil }

func attributes(fields []zapcore.Field) []any {
	values := zapcore.NewMapObjectEncoder()
	for _, field := range fields {
		field.AddTo(values)
	}
	attributes := make([]any, 0, 2*len(values.Fields))
	for key, value := range values.Fields {
		attributes = append(attributes, key, value)
	}
	return attributes
}
