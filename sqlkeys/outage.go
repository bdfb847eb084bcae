package sqlkeys

import (
	"context"
	"log/slog"

	"github.com/admit-go/admit/internal/outage"
)

// outageLog logs when something begins to fail, and when it works again.
type outageLog struct {
	logger *slog.Logger
	outage outage.Outage
}

func (o *outageLog) fails(level slog.Level, message string, err error) {
	if o.outage.Failed() {
		o.logger.Log(context.Background(), level, message, slog.Any("error", err))
	}
}

func (o *outageLog) works(message string) {
	if away, _, tell := o.outage.Worked(); tell {
		o.logger.Info(message, slog.Duration("away", away))
	}
}
