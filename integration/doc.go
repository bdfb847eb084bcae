// Package integration tests admit together with what it does not depend on:
// routers, peers, real Redis and PostgreSQL servers. It is never published.
package integration
