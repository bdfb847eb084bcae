// Package admit is HTTP admission control: composable net/http middlewares that decide
// whether a request may come in. They check API keys, scopes, plans, methods, media types and
// body sizes, and they enforce rate limits, quotas, timeouts, concurrency limits and load
// shedding. Every rejection has the right status, the right headers, and one JSON body, the
// envelope:
//
//	{"result":"error","message":"The API key is not valid.","code":"key_invalid"}
//
// After code, the envelope has these members where they apply: request_id (see [RequestID]),
// retry_after (whole seconds, as in the header), errors (the path, code and message of each
// invalid field), limits (the names of the limits and quotas that are used up), and the
// members of [Error].Meta. A client that prefers application/problem+json gets that instead.
// The codes of this package never change:
//
//	400  bad_request
//	401  key_missing, key_invalid, unauthorized
//	402  plan_required, payment_required
//	403  scope_required, address_not_allowed, forbidden
//	404  not_found
//	405  method_not_allowed
//	406  not_acceptable
//	408  request_timeout
//	409  conflict
//	413  body_too_large
//	415  unsupported_media_type
//	422  unprocessable
//	429  rate_limited, quota_exceeded, key_throttled, overloaded, too_many_requests
//	500  internal
//	501  not_implemented
//	502  bad_gateway
//	503  maintenance, handler_timeout, store_unavailable, unavailable
//	504  gateway_timeout
//
// A middleware has the type func(http.Handler) http.Handler. Chain middlewares with alice, the
// first one outermost, or let a [Policy] put them in order:
//
//	h := alice.New(admit.RequestID, admit.Recover, admit.APIKey(keys)).Then(handler)
//	h := admit.Policy{Auth: auth, Limiter: limiter}.Wrap(handler)
//
// A middleware with more than two settings has a constructor, which reports every problem of
// its configuration at once (see [ConfigError]). The value that it returns with an error cannot
// serve: its Wrap panics, and a Policy or a configuration that contains it reports the error.
// The simple forms panic on invalid arguments, as http.ServeMux.Handle does. State, such as the
// buckets of a rate limit, belongs to the value and is shared by all handlers that it wraps. A
// [Limiter], [Quotas], [InFlight] or [Shedder] that is around a request twice counts it once.
//
// # The order of a chain
//
// From the outside to the handler, with the reason for each place:
//
//   - [RequestID]: every response has the id, whichever middleware rejects the request.
//   - [ClientIP]: everything inside sees the same client address.
//   - [Observe]: around everything that can reject or panic, so that it sees every response.
//   - [ErrorWriter]: every error is written, logged and counted in one way.
//   - [Recover]: inside Observe and ErrorWriter, which its 500 needs; around all that can panic.
//   - [Maintenance]: the cheapest check. It asks no store.
//   - [InFlight]: rejects excess requests before they cost a look-up.
//   - AddressLimiter, a [Limiter]: outside Auth, to count by address what Auth rejects too.
//   - [Methods]: outside Auth, so that OPTIONS needs no key. The methods are no secret.
//   - [Auth], or Identity, a middleware that calls [WithKey]. Then [RequireScopes] and [Plans]:
//     what the caller may do, and what its plan includes. A request that is rejected here does
//     not count against the rate limit of its caller.
//   - [Limiter]: counts by caller, so it needs the key. It runs before anything that parses.
//   - [Quotas]: inside the Limiter, so that requests over a rate limit do not use up a quota;
//     outside the Shedder, so that no request over its quota waits for a place. Requests that
//     are rejected further inside are not counted.
//   - [Accept] or a [Negotiator], [ContentType] or [ContentTypes]: cheap checks of headers. The
//     Limiter has counted a request that fails here, so retries are limited.
//   - [MaxBody]: rejects a body whose announced length is too large.
//   - [Shedder]: the last to reject, so that no request waits for a place and then gets 403.
//     Inside Auth, because the plan sets the priority.
//   - [BodyTimeout]: bounds the time for the body, which only the handler reads.
//   - [WriteStall]: bounds each write. In the Policy around a mux it covers every response.
//   - [Timeout] or a [HandlerTimeout]: innermost, so that only the handler runs in a goroutine
//     of its own.
//
// A CORS middleware stands outside all of these: a preflight has no key, and a page cannot read
// a response without CORS headers. Let it expose Retry-After, RateLimit, RateLimit-Policy and
// X-Request-Id. So from the outside around a mux: [AccessLog], metrics, CORS, the Wrap of a
// contract, the outer Policy, [Mux]. An access log of your own stands inside RequestID and
// ClientIP and outside the rest. After next has returned, it reads the id, the
// address and the key with [RequestIDFrom], [ClientIPFrom] and [SeenKeyFrom].
//
// A service has two Policies: one around the mux, for what every response needs (ClientIP,
// Errors, Maintenance, InFlight, BodyTimeout, WriteStall), and one for the routes. Each route
// gets a copy of the second with its own changes. If an AddressLimiter and a Limiter are around
// the same request, give their limits different names, or clients cannot tell them apart.
//
// # What a handler gets
//
// The handler gets a copy of the request. Its context has the key ([KeyFrom]), the negotiated
// media type ([MediaTypeFrom]) and the address of the client ([ClientIPFrom]). Auth removes the
// credential. Flush, Hijack, deadlines and the rest of [http.ResponseController] work through
// every middleware. A [HandlerFunc] returns its error. [Success] and [Decode] are for JSON,
// [ParseForm] is for forms.
//
// A handler sees what the middlewares around it have set, and nothing else. If two handlers serve
// one request, the second does not get the key, media type or error writer of the first.
//
// # Production
//
// [Observe] and [AccessLog] report once how each request has ended, whatever ended it: see
// [Outcome]. The Stats of an [InFlight], a [Shedder], a [Limiter], [Quotas] or a [KeyCache] say
// how full it is, and whether its store is down. The packages admitprom and admitotel, which
// are separate modules, export both as metrics for Prometheus and OpenTelemetry.
//
// # The contract
//
// [Policy.Answers] lists every error that a chain may answer with. The package contract
// publishes those of a whole service as a page and an OpenAPI document, and reports errors
// that are not in it.
package admit
