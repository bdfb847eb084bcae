package contract_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/contract"
)

func TestPrint(t *testing.T) {
	auth, err := admit.NewAuth(admit.AuthConfig{Store: admit.KeyMap{}})
	require.NoError(t, err)
	l, err := admit.NewLimiter(admit.LimiterConfig{Limits: []admit.Limit{admit.PerSecond(5)}})
	require.NoError(t, err)
	api, err := contract.New(contract.Info{Title: "x", Version: "1"}, admit.Policy{Errors: &admit.ErrorWriter{}})
	require.NoError(t, err)
	mux := http.NewServeMux()
	api.Handle(mux, "POST /v1/orders", admit.Policy{Auth: auth, Limiter: l, Scopes: []string{"a"}, MaxBody: 100, ContentType: []string{"application/json"}, Timeout: time.Second}, admit.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil }), contract.Decodes()...)
	for _, a := range api.Answers() {
		b, _ := json.Marshal(a)
		fmt.Println(string(b))
	}
}
