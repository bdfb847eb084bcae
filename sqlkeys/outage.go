package sqlkeys

import (
	"context"
	"log/slog"
	"time"
)

// outage logs when something begins to fail, and when it works again. Each is one line. One
// goroutine at a time uses it.
type outage struct {
	logger *slog.Logger
	since  time.Time // zero while it works
}

func (o *outage) fails(level slog.Level, message string, err error) {
	if o.since.IsZero() {
		o.since = time.Now()
		o.logger.Log(context.Background(), level, message, slog.Any("error", err))
	}
}

func (o *outage) works(message string) {
	if !o.since.IsZero() {
		o.logger.Info(message, slog.Duration("failed_for", time.Since(o.since).Round(time.Millisecond)))
		o.since = time.Time{}
	}
}
