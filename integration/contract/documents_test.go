package contract_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/contract"
	"github.com/admit-go/admit/example/service"
)

func TestDocuments(t *testing.T) {
	t.Parallel()
	_, api, err := service.New(t.Context(), service.Config{Keys: admit.KeyMap{}})
	require.NoError(t, err)
	docs := documents{}
	for _, version := range []contract.OpenAPIVersion{contract.OpenAPI31, contract.OpenAPI32} {
		text, err := api.OpenAPI(version)
		require.NoError(t, err)
		docs["example "+string(version)] = text
	}
	requireValid(t, docs)
}
