package outage

import (
	"context"
	"log/slog"
)

// Log is an Outage that logs when something begins to fail, and when it works again.
type Log struct {
	Logger *slog.Logger
	outage Outage
}

// Fails records a failure.
func (l *Log) Fails(level slog.Level, message string, err error) {
	if l.outage.Failed() {
		l.Logger.Log(context.Background(), level, message, slog.Any("error", err))
	}
}

// Works records a success.
func (l *Log) Works(message string) {
	if away, _, tell := l.outage.Worked(); tell {
		l.Logger.Info(message, slog.Duration("away", away))
	}
}
