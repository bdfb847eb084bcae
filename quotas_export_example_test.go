package admit_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"time"

	"github.com/admit-go/admit"
)

// Once a minute, usage is sent to a billing service, here to OpenMeter: as CloudEvents 1.0, in
// batches over HTTP. A record may be sent twice; it then has the same ID, so that the service
// counts it once.
func ExampleQuotas_Export() {
	plans, err := admit.NewPlans(admit.Plan{Name: "pro", Quotas: []admit.Quota{{Requests: 1_000_000, Every: admit.Month, Soft: true}}})
	if err != nil {
		panic(err)
	}
	quotas, err := admit.NewQuotas(admit.QuotasConfig{Plans: plans, Store: admit.NewMemoryQuotaStore()})
	if err != nil {
		panic(err)
	}
	server := httptest.NewServer(new(meter))
	defer server.Close()

	ctx, stop := context.WithTimeout(context.Background(), time.Hour)
	defer stop()
	for {
		if err := quotas.Export(ctx, sendEvents(server.URL)); err != nil {
			slog.Warn("usage was not exported, and will be sent again", slog.Any("error", err))
		}
		select {
		case <-time.After(time.Minute):
		case <-ctx.Done():
			return
		}
	}
}

// cloudEvent is the event that OpenMeter counts, in the JSON format of CloudEvents 1.0.
type cloudEvent struct {
	SpecVersion string    `json:"specversion"`
	ID          string    `json:"id"`
	Source      string    `json:"source"`
	Type        string    `json:"type"`
	Subject     string    `json:"subject"`
	Time        time.Time `json:"time"`
	Data        struct {
		Requests int64 `json:"requests"`
	} `json:"data"`
}

// sendEvents sends usage to OpenMeter, or to another service that takes a batch of CloudEvents.
// If the service fails, or does not respond with success, it gets the same events again.
func sendEvents(url string) func(context.Context, []admit.UsageRecord) error {
	return func(ctx context.Context, records []admit.UsageRecord) error {
		events := make([]cloudEvent, len(records))
		for i, record := range records {
			events[i] = cloudEvent{
				SpecVersion: "1.0", ID: record.ID, Source: "api.example.com", Type: "requests." + record.Quota, Subject: record.Account, Time: record.Minute,
			}
			events[i].Data.Requests = record.Requests
		}
		body, err := json.Marshal(events)
		if err != nil {
			return err
		}
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/api/v1/events", bytes.NewReader(body))
		if err != nil {
			return err
		}
		r.Header.Set("Content-Type", "application/cloudevents-batch+json")
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if res.StatusCode/100 != 2 {
			return fmt.Errorf("the meter has answered %s", res.Status)
		}
		return nil
	}
}

// meter is the billing service.
type meter struct {
	mu   sync.Mutex
	seen map[[2]string]bool // by source and id, which identify an event
	used map[string]int64   // by subject
}

func (m *meter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var events []cloudEvent
	if r.Method != http.MethodPost || r.URL.Path != "/api/v1/events" || r.Header.Get("Content-Type") != "application/cloudevents-batch+json" {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	if err := json.NewDecoder(r.Body).Decode(&events); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.seen == nil {
		m.seen, m.used = make(map[[2]string]bool), make(map[string]int64)
	}
	for _, e := range events {
		if id := [2]string{e.Source, e.ID}; !m.seen[id] {
			m.seen[id] = true
			m.used[e.Subject] += e.Data.Requests
		}
	}
	w.WriteHeader(http.StatusNoContent)
}
