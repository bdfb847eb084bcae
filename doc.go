// Package admit answers, for net/http services, whether a request may come in.
package admit
