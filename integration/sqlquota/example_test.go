package sqlquota_test

import (
	"context"
	"database/sql"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"

	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/sqlquota"
)

// Quotas in SQLite. With PostgreSQL, only the driver, the URL and the Dialect differ.
func ExampleNew() {
	ctx := context.Background()
	db, err := sql.Open("sqlite", ":memory:") // or a file: file:quotas.db?_pragma=busy_timeout(5000)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1) // since each connection to :memory: has a database of its own
	if _, err := db.ExecContext(ctx, sqlquota.Schema(sqlquota.SQLite)); err != nil {
		log.Fatal(err)
	}
	store, err := sqlquota.New(sqlquota.Config{DB: db, Dialect: sqlquota.SQLite})
	if err != nil {
		log.Fatal(err)
	}
	plans, err := admit.NewPlans(admit.Plan{Name: "free", Quotas: []admit.Quota{{Requests: 2, Every: admit.Month}}})
	if err != nil {
		log.Fatal(err)
	}
	quotas, err := admit.NewQuotas(admit.QuotasConfig{Plans: plans, Store: store})
	if err != nil {
		log.Fatal(err)
	}
	defer quotas.Close(ctx) // after Server.Shutdown

	auth, err := admit.NewAuth(admit.AuthConfig{Store: admit.KeyMap{admit.DigestOf("secret"): {ID: "k1", Owner: "ACME", Plan: "free"}}})
	if err != nil {
		log.Fatal(err)
	}
	h := admit.Policy{Auth: auth, Quotas: quotas}.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	for range 3 {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("X-API-Key", "secret")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		fmt.Println(w.Code)
	}
	// Output:
	// 200
	// 200
	// 429
}
