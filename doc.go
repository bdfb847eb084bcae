// Package admit decides, for HTTP services, whether a request may come in: a set of
// wrappers of the shape func(http.Handler) http.Handler that enforce keys, scopes,
// plans, methods, media types, sizes, times and limits. Each refusal has the right
// status, the right headers, and one JSON body:
//
//	{"result":"error","message":"The API key is not valid.","code":"key_invalid"}
//
// This body is the envelope. After code it has, where there is something to say, request_id
// (see [RequestID]), retry_after (whole seconds, as the header), errors (a path, a code and a
// message for each field that is wrong), limits (the names of the limits and
// quotas that are used up) and the members of [Error].Meta. The codes of this
// package never change:
//
//	400  bad_request
//	401  key_missing, key_invalid
//	402  plan_required
//	403  scope_required, address_not_allowed
//	404  not_found
//	405  method_not_allowed
//	406  not_acceptable
//	408  request_timeout
//	413  body_too_large
//	415  unsupported_media_type
//	422  unprocessable
//	429  rate_limited, quota_exceeded, key_throttled, overloaded
//	500  internal
//	501  not_implemented
//	502  bad_gateway
//	503  maintenance, handler_timeout, store_unavailable
//	504  gateway_timeout
//
// Wrappers are chained with alice, or put in order by a [Policy]. A wrapper with more
// than two settings is made by a constructor that reports every fault of its
// configuration at once (see [ConfigError]); the simple ones panic on literals that cannot
// be, as http.ServeMux.Handle does. What a constructor returns with an error cannot serve:
// its Wrap panics, and a Policy or a configuration that is handed it reports the error.
// State, such as the buckets of a rate limit, belongs to the value that was made, and not
// to each handler that it wraps; a [Limiter], [Quotas], [InFlight] or [Shedder] that is
// around a request twice counts it once.
//
// # The order of a chain
//
// From the outside to the handler, and why each stands where it does:
//
//   - [RequestID]: so that every answer has the id, whatever refuses.
//   - [ClientIP]: so that everything inside knows the same address.
//   - [Observe]: around all that can refuse or panic, so that it is told of every answer.
//   - [ErrorWriter]: so that every error is written, logged and counted in one way.
//   - [Recover]: inside the two that its 500 needs, around all that can panic.
//   - [Maintenance]: the cheapest answer of all, which asks nobody.
//   - [InFlight]: what is too much is refused before it costs a look-up.
//   - AddressLimiter, a [Limiter]: before Auth, so that it counts strangers by their
//     address, those too who are refused for want of a key.
//   - [Methods]: answers OPTIONS and refuses other methods for strangers too: what a
//     resource takes is no secret.
//   - [Auth], or in its place Identity, a wrapper that calls [WithKey]; then
//     [RequireScopes] and [Plans]: who it is, what it may do, what it pays for. A caller who
//     is refused here costs none of its limit.
//   - [Limiter]: counts by caller, so it needs the key; before anything that parses.
//   - [Quotas]: inside the Limiter, so that what a limit refuses costs nothing of what the
//     caller has bought; outside of the Shedder, so that nobody waits for a place whose quota
//     is used up. What is refused further inside is not counted.
//   - [Accept] or a [Negotiator], [ContentType] or [ContentTypes]: cheap looks at headers. A
//     request that is wrong here has been counted by the Limiter: retrying it is not free.
//   - [MaxBody]: refuses a body that is announced as too large.
//   - [Shedder]: the last that refuses, so that nobody waits for a place to be told 403;
//     inside Auth, since the plan says who goes first.
//   - [BodyTimeout]: bounds what only the handler reads.
//   - [WriteStall]: bounds what only the handler writes. In the Policy around a mux it
//     bounds every answer.
//   - [Timeout] or a [HandlerTimeout]: innermost, so that it runs only what can be slow in
//     another goroutine.
//
// CORS stands outside of all of it: a preflight has no key, and a refusal without CORS
// headers cannot be read by the page that it is for. An [AccessLog] stands outermost. One of
// others stands inside RequestID and ClientIP, and outside of the rest: after next has
// returned it reads the id, the address and the key ([RequestIDFrom], [ClientIPFrom],
// [SeenKeyFrom]).
//
// A service has two Policies: one around the mux, for what every answer needs (ClientIP,
// Errors, Maintenance, InFlight, WriteStall), and one for the routes, of which each gets a
// copy, changed. An AddressLimiter and a Limiter around one request need limits of different
// names, or clients cannot tell them apart.
//
// A handler sees what its own wrappers have set, and nothing else: a second handler of the
// same request does not get the key, the media type or the error writer of the first.
//
// # What a handler gets
//
// The request is a copy: after an Auth without its credential, with the key ([KeyFrom]), the
// chosen media type ([MediaTypeFrom]) and the client's address ([ClientIPFrom]) in its
// context. Flush, Hijack, deadlines and all else of [http.ResponseController] work through
// every wrapper.
// A [HandlerFunc] returns its error; [Success] and [Decode] are for JSON, [ParseForm] for forms.
//
// # What is seen in production
//
// [Observe] and [AccessLog] tell how each request has ended, once, whatever has ended it: see
// [Outcome]. The Stats of an [InFlight], a [Shedder], a [Limiter], [Quotas] or a [KeyCache] say
// how full each is, and whether its store is down. The packages admitprom and admitotel, which
// are modules of their own, make metrics of both for Prometheus and OpenTelemetry.
//
// # The contract
//
// [Policy.Answers] has every error that a chain may answer with. The package contract makes
// a page and an OpenAPI document of those of a whole service, and tells of answers that are
// not among them.
package admit
