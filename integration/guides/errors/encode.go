package errors

import (
	"encoding/json"
	"net/http"
	"strings"

	"github.com/admit-go/admit"
)

var german = map[string]string{
	"sold_out":    "Der Artikel ist ausverkauft.",
	"key_invalid": "Der API-Schlüssel ist ungültig.",
}

// translated is for ErrorWriter.Encode.
func translated(r *http.Request, e *admit.Error) (contentType string, body []byte) {
	message := e.Message
	if text, ok := german[e.Code]; ok && strings.HasPrefix(r.Header.Get("Accept-Language"), "de") {
		message = text
	}
	members := map[string]any{}
	for name, value := range e.Meta {
		members[name] = value
	}
	members["result"], members["message"], members["code"] = "error", message, e.Code
	members["request_id"] = admit.RequestIDFrom(r.Context())
	if len(e.Fields) > 0 {
		members["errors"] = e.Fields
	}
	body, err := json.Marshal(members)
	if err != nil { // by a member of Meta
		return "text/plain; charset=utf-8", []byte(message)
	}
	return "application/json", body
}
