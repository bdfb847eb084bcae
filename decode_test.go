package admit_test

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
)

type benchOrder struct {
	Pair     string      `json:"pair"`
	Side     string      `json:"side"`
	Quantity float64     `json:"quantity"`
	ClientID string      `json:"client_id"`
	Items    []benchItem `json:"items"`
}

type benchItem struct {
	SKU   string `json:"sku"`
	Count int    `json:"count"`
	Gift  bool   `json:"gift"`
	Note  string `json:"note"`
}

// faultyOrder has so many faults among 200 items, each of another kind in turn.
func faultyOrder(faults int) string {
	items := make([]string, 200)
	for i := range items {
		items[i] = fmt.Sprintf(`{"sku":"A-%06d","count":%d,"gift":%v,"note":"for number %d"}`, i, i, i%2 == 0, i)
		if faults == 0 || i%(len(items)/faults) != len(items)/faults-1 {
			continue
		}
		switch i / (len(items) / faults) % 3 {
		case 0:
			items[i] = strings.Replace(items[i], `"count":`, `"count":1.`, 1)
		case 1:
			items[i] = strings.Replace(items[i], `"gift":`, `"gif":`, 1)
		case 2:
			items[i] = strings.Replace(items[i], `"sku":"`, `"sku":0,"note":"`, 1)
		}
	}
	return `{"pair":"btc-usd","side":"buy","quantity":1.5,"client_id":"c","items":[` + strings.Join(items, ",") + `]}`
}

// A fault costs no question to encoding/json where it is plain.
func TestDecodeOfPlainFaultsAllocations(t *testing.T) {
	members := make([]string, 20)
	for i := range members {
		members[i] = fmt.Sprintf(`"unknown%d":%d`, i, i)
	}
	text := "{" + strings.Join(members, ",") + "}"
	body := strings.NewReader(text)
	r := newRequest("POST", "/", "")
	r.Body = io.NopCloser(body)
	var err error
	allocs(t, 110, func() {
		body.Reset(text)
		_, err = admit.Decode[benchOrder](r)
	})
	var e *admit.Error
	require.ErrorAs(t, err, &e)
	assert.Len(t, e.Fields, 20)
	assert.Equal(t, admit.FieldError{Path: "unknown19", Code: "unknown_member", Message: "is not a known member"}, e.Fields[19])
}

// BenchmarkDecode decodes bodies with faults, beside encoding/json, which tells the first of each.
func BenchmarkDecode(b *testing.B) {
	unknown, wrong := make([]string, 20), make([]string, 20)
	for i := range unknown {
		unknown[i] = fmt.Sprintf(`"unknown%d":%d`, i, i)
		wrong[i] = `{"sku":"a","count":"1","gift":true,"note":"x"}`
	}
	for name, text := range map[string]string{
		"items, none":     faultyOrder(0),
		"items, 1":        faultyOrder(1),
		"items, 10":       faultyOrder(10),
		"items, 100":      faultyOrder(100),
		"none":            `{"pair":"btc-usd","side":"buy","quantity":1.5,"client_id":"c"}`,
		"1 of wrong type": `{"pair":"btc-usd","side":"buy","quantity":"1.5","client_id":"c"}`,
		"1 unknown":       `{"pair":"btc-usd","side":"buy","quantity":1.5,"client":"c"}`,
		"unknown":         "{" + strings.Join(unknown, ",") + "}",
		"of wrong type":   `{"items":[` + strings.Join(wrong, ",") + "]}",
	} {
		fails := !strings.HasSuffix(name, "none")
		b.Run("faults="+name+"/lib=admit", func(b *testing.B) {
			b.ReportAllocs()
			body := strings.NewReader(text)
			r := newRequest("POST", "/", "")
			r.Body = io.NopCloser(body)
			for b.Loop() {
				body.Reset(text)
				if _, err := admit.Decode[benchOrder](r); (err != nil) != fails {
					b.Fatal(err)
				}
			}
		})
		b.Run("faults="+name+"/lib=encoding-json", func(b *testing.B) {
			b.ReportAllocs()
			body := strings.NewReader(text)
			for b.Loop() {
				body.Reset(text)
				d := json.NewDecoder(body)
				d.DisallowUnknownFields()
				if err := d.Decode(new(benchOrder)); (err != nil) != fails {
					b.Fatal(err)
				}
			}
		})
	}
}
