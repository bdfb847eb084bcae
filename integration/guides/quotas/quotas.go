// Package quotas is the code of the guide to quotas and billing.
package quotas

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/sqlquota"
)

// Plans sell requests by the month.
func Plans() (*admit.Plans, error) {
	return admit.NewPlans(
		admit.Plan{
			Name:   "free",
			Limits: []admit.Limit{admit.PerSecond(5)},
			Quotas: []admit.Quota{{Requests: 10_000, Every: admit.Month}},
		},
		admit.Plan{
			Name:       "pro",
			Limits:     []admit.Limit{admit.PerSecond(50)},
			Quotas:     []admit.Quota{{Requests: 1_000_000, Every: admit.Month, Soft: true}}, // more is billed
			UpgradeURL: "https://example.com/pro",
		},
	)
}

// Service counts reports, and shows callers what they have left.
func Service(keys admit.KeyStore, plans *admit.Plans, quotas *admit.Quotas, reports http.Handler) (http.Handler, error) {
	auth, err := admit.NewAuth(admit.AuthConfig{Store: keys})
	if err != nil {
		return nil, err
	}
	limiter, err := admit.NewLimiter(admit.LimiterConfig{Plans: plans, Limits: []admit.Limit{admit.PerSecond(1)}})
	if err != nil {
		return nil, err
	}
	sold := admit.Policy{Methods: []string{"GET"}, Auth: auth, Plans: plans, Limiter: limiter, Quotas: quotas}
	usage := sold
	usage.Quotas = nil // a look at the usage is not counted
	mux := http.NewServeMux()
	mux.Handle("/reports", sold.Wrap(reports))
	mux.Handle("/usage", usage.Wrap(quotas.Usage()))
	return admit.Policy{}.Wrap(admit.Mux(mux)), nil
}

// InMemory counts in one process, and forgets at its end.
func InMemory(plans *admit.Plans) (*admit.Quotas, error) {
	return admit.NewQuotas(admit.QuotasConfig{Plans: plans, Store: admit.NewMemoryQuotaStore()})
}

// OnDatabase counts for all replicas in PostgreSQL.
func OnDatabase(db *sql.DB, plans *admit.Plans, mail func(to, text string)) (*admit.Quotas, error) {
	store, err := sqlquota.New(sqlquota.Config{DB: db, Dialect: sqlquota.PostgreSQL})
	if err != nil {
		return nil, err
	}
	return admit.NewQuotas(admit.QuotasConfig{
		Plans:    plans,
		Store:    store,
		Replicas: 8, // that share the store
		Anchor:   billedSince,
		Notify: func(n admit.QuotaNotice) {
			mail(n.Account, fmt.Sprintf("You have used %d%% of your %d requests this %s.", n.Percent, n.Limit, n.Quota))
		},
	})
}

// billedSince is the first billing day of a key. Without one, months begin on the first.
func billedSince(key *admit.Key) time.Time {
	day, err := time.Parse(time.DateOnly, key.Meta["billed_since"])
	if err != nil {
		return time.Time{}
	}
	return day
}

// Bill exports the usage once a minute, until ctx ends.
func Bill(ctx context.Context, quotas *admit.Quotas, client *http.Client, url string) {
	minute := time.NewTicker(time.Minute)
	defer minute.Stop()
	for {
		err := quotas.Export(ctx, func(ctx context.Context, records []admit.UsageRecord) error {
			return send(ctx, client, url, records)
		})
		if err != nil {
			slog.WarnContext(ctx, "usage was not exported, and will be sent again", slog.Any("error", err))
		}
		select {
		case <-minute.C:
		case <-ctx.Done():
			return
		}
	}
}

// event is what the billing system takes. It counts each ID once.
type event struct {
	ID       string    `json:"id"`
	Customer string    `json:"customer"`
	Meter    string    `json:"meter"`
	Time     time.Time `json:"time"`
	Requests int64     `json:"requests"`
}

func send(ctx context.Context, client *http.Client, url string, records []admit.UsageRecord) error {
	events := make([]event, len(records))
	for i, u := range records {
		events[i] = event{ID: u.ID, Customer: u.Account, Meter: u.Quota, Time: u.Minute, Requests: u.Requests}
	}
	body, err := json.Marshal(events)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	res, err := client.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode/100 != 2 {
		return fmt.Errorf("the billing system responded with %s", res.Status)
	}
	return nil
}

// Stop ends a server, and tells the store what was used.
func Stop(ctx context.Context, server *http.Server, quotas *admit.Quotas) error {
	err := server.Shutdown(ctx)
	return errors.Join(err, quotas.Close(ctx))
}
