package errors

import (
	"encoding/json"
	"maps"
	"math"
	"net/http"
	"strings"

	"github.com/admit-go/admit"
)

var german = map[string]string{
	"sold_out":    "Der Artikel ist ausverkauft.",
	"key_invalid": "Der API-Schlüssel ist ungültig.",
}

// translated is an ErrorWriter.Encode.
func translated(r *http.Request, e *admit.Error) (contentType string, body []byte) {
	message := e.Message
	if text, ok := german[e.Code]; ok && strings.HasPrefix(r.Header.Get("Accept-Language"), "de") {
		message = text
	}
	members := maps.Clone(e.Meta)
	if members == nil {
		members = map[string]any{}
	}
	members["result"], members["message"], members["code"] = "error", message, e.Code
	members["request_id"] = admit.RequestIDFrom(r.Context())
	if e.RetryAfter > 0 {
		members["retry_after"] = int(math.Ceil(e.RetryAfter.Seconds())) // as the header
	}
	if len(e.Fields) > 0 {
		members["errors"] = e.Fields
	}
	body, err := json.Marshal(members)
	if err != nil { // a member of Meta is not JSON
		return "text/plain; charset=utf-8", []byte(message)
	}
	return "application/json", body
}
