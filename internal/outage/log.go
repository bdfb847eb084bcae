package outage

import (
	"log/slog"
	"time"
)

// Away returns the log attribute for the duration of an outage. It is a text with a unit: a JSON
// handler would write a time.Duration as a number of nanoseconds.
func Away(d time.Duration) slog.Attr {
	return slog.String("away", d.Round(time.Millisecond).String())
}

// Log is an Outage that logs a warning when something begins to fail, and an info line when it
// works again.
type Log struct {
	Logger *slog.Logger
	outage Outage
}

// Fails records a failure.
func (l *Log) Fails(message string, err error) {
	if l.outage.Failed() {
		l.Logger.Warn(message, slog.Any("error", err))
	}
}

// Works records a success.
func (l *Log) Works(message string) {
	if away, _, tell := l.outage.Worked(); tell {
		l.Logger.Info(message, Away(away))
	}
}
