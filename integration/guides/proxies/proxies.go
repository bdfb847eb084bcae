// Package proxies has the code of docs/proxies.md.
package proxies

import (
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/admit-go/admit"
)

// behindProxies is for a list such as "10.0.0.0/8, 127.0.0.1/32", from the environment.
func behindProxies(list string) (admit.Middleware, error) {
	var networks []netip.Prefix
	for text := range strings.SplitSeq(list, ",") {
		network, err := netip.ParsePrefix(strings.TrimSpace(text))
		if err != nil {
			return nil, fmt.Errorf("trusted proxies: %w", err)
		}
		networks = append(networks, network)
	}
	return admit.ClientIP("X-Forwarded-For", networks...), nil
}

// newServer keeps connections open for longer than the proxy does.
func newServer(clientIP admit.Middleware, mux *http.ServeMux) *http.Server {
	return &http.Server{
		Handler:           admit.Policy{ClientIP: clientIP}.Wrap(admit.Mux(mux)),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       90 * time.Second, // nginx keeps an idle connection for 60 seconds
	}
}

// newGateway admits requests, and passes them on to the service at upstream.
func newGateway(upstream *url.URL, auth *admit.Auth, limiter *admit.Limiter) http.Handler {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.ResponseHeaderTimeout = 20 * time.Second // then 504
	transport.MaxIdleConnsPerHost = 100

	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(upstream)
			r.Out.Host = r.In.Host
			r.SetXForwarded()
			r.Out.Header.Set("X-Forwarded-For", admit.ClientIPFrom(r.In).String())
			key, _ := admit.KeyFrom(r.In.Context())
			r.Out.Header.Set("X-Account", key.Owner) // never the one of the client
		},
		Transport:    transport,
		ErrorHandler: admit.ProxyError,
	}
	return admit.Policy{
		Auth:        auth,
		Limiter:     limiter,
		MaxBody:     10 << 20,
		BodyTimeout: admit.BodyTimeout{Grace: 5 * time.Second, Max: time.Minute},
		Timeout:     30 * time.Second, // then 503
	}.Wrap(proxy)
}
