package sqlkeys_test

import (
	"context"
	"database/sql"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"

	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/sqlkeys"
)

// Keys in SQLite. With PostgreSQL, only the driver, the URL and the Dialect differ.
func ExampleNew() {
	ctx := context.Background()
	db, err := sql.Open("sqlite", ":memory:") // or a file: file:keys.db?_pragma=busy_timeout(5000)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1) // since each connection to :memory: has a database of its own
	if _, err := db.ExecContext(ctx, sqlkeys.Schema(sqlkeys.SQLite)); err != nil {
		log.Fatal(err)
	}
	store, err := sqlkeys.New(sqlkeys.Config{DB: db, Dialect: sqlkeys.SQLite})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()

	token, digest, _ := admit.Mint("acme")
	if err := store.Insert(ctx, digest, &admit.Key{ID: "k1", Owner: "ACME"}); err != nil {
		log.Fatal(err)
	}
	h := admit.APIKey(store)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key, _ := admit.KeyFrom(r.Context())
		fmt.Fprint(w, "Hello, "+key.Owner)
	}))
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("X-API-Key", token)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	fmt.Println(w.Code, w.Body)
	// Output: 200 Hello, ACME
}
