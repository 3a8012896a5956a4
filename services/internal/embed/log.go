package embed

import (
	"fmt"
	"log/slog"
	"sync/atomic"

	"github.com/nats-io/nats-server/v2/server"
)

// logger passes the server's log on to slog and keeps its first fatal line:
// the server reports a JetStream that did not start as one, and runs on.
type logger struct {
	to    *slog.Logger
	fatal atomic.Pointer[string]
}

var _ server.Logger = (*logger)(nil)

// Noticef implements server.Logger. What the server notes at each start is of
// interest only when something is wrong.
func (l *logger) Noticef(format string, v ...any) { l.to.Debug(fmt.Sprintf(format, v...)) }

// Warnf implements server.Logger.
func (l *logger) Warnf(format string, v ...any) { l.to.Warn(fmt.Sprintf(format, v...)) }

// Errorf implements server.Logger.
func (l *logger) Errorf(format string, v ...any) { l.to.Error(fmt.Sprintf(format, v...)) }

// Fatalf implements server.Logger. It does not end the process: Start returns
// the line as an error, and Health after that.
func (l *logger) Fatalf(format string, v ...any) {
	line := fmt.Sprintf(format, v...)
	l.fatal.CompareAndSwap(nil, &line)
	l.to.Error(line, "fatal", true)
}

// Debugf implements server.Logger.
func (l *logger) Debugf(format string, v ...any) { l.to.Debug(fmt.Sprintf(format, v...)) }

// Tracef implements server.Logger. Traces hold message bodies and are never on.
func (l *logger) Tracef(string, ...any) {}

// err is the first fatal line as an error, or nil.
func (l *logger) err() error {
	if line := l.fatal.Load(); line != nil {
		return fmt.Errorf("embed: nats-server: %s", *line)
	}
	return nil
}
