// Command example is a small market-data API behind admit. Run it with
//
//	go run ./example
//
// and try the curl lines that it prints.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/example/service"
)

// stopWithin is how long requests may go on after a signal.
const stopWithin = 10 * time.Second

// settleWithin is how long a store may take to hear what was used.
const settleWithin = 5 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "example:", err)
		}
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("example", flag.ContinueOnError)
	flags.SetOutput(stderr)
	addr := flags.String("addr", "127.0.0.1:8080", "listen on `HOST:PORT`")
	keyFile := flags.String("keys", "keys.json", "read keys from `FILE`; if there is none, make demo keys and write it")
	tokenFile := flags.String("tokens", "", "write the tokens of new demo keys to `FILE` too, one to a line as \"name token\"")
	metricsAddr := flags.String("metrics", "127.0.0.1:9464", "serve metrics for Prometheus on `HOST:PORT`; none if empty")
	format := flags.String("log", "text", "write the log as `FORMAT`: text or json")
	quiet := flags.Bool("quiet", false, "print no token")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q; see -help", flags.Arg(0))
	}
	logger, err := newLogger(*format, stderr)
	if err != nil {
		return err
	}

	// First, so that no keys are made that nobody sees because a port is taken.
	listener, err := net.Listen("tcp", *addr)
	if err != nil {
		return fmt.Errorf("%w; name another address with -addr", err)
	}
	defer listener.Close()
	config, metricsURL := service.Config{Logger: logger}, ""
	if *metricsAddr != "" {
		m, err := serveMetrics(*metricsAddr, logger)
		if err != nil {
			return err
		}
		defer m.close()
		config.Metrics, metricsURL = m.Metrics, m.url
	}
	keys, tokens, err := openKeys(*keyFile, *tokenFile)
	if err != nil {
		return err
	}
	defer keys.Close()
	config.Keys = keys
	api, err := service.New(ctx, config)
	if err != nil {
		return err
	}
	api.Handler = admit.AccessLog(logger)(api.Handler)
	greet(stdout, listener.Addr().String(), metricsURL, *keyFile, tokens, *quiet)
	return serve(ctx, listener, api, logger)
}

// serve serves until ctx ends, then lets requests finish, and settles what they have used.
func serve(ctx context.Context, listener net.Listener, api *service.Service, logger *slog.Logger) error {
	server := service.NewServer(api, logger)
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	stopping, cancel := context.WithTimeout(context.Background(), stopWithin)
	defer cancel()
	err := server.Shutdown(stopping)
	if err != nil {
		err = errors.Join(fmt.Errorf("requests were cut after %v: %w", stopWithin, err), server.Close())
	}
	settling, cancel := context.WithTimeout(context.Background(), settleWithin)
	defer cancel()
	return errors.Join(err, api.Quotas.Close(settling))
}

// greet prints ready curl lines.
func greet(w io.Writer, addr, metrics, keyFile string, tokens []namedToken, quiet bool) {
	url := "http://" + addr
	fmt.Fprintf(w, "listening on %s, keys in %s\n", url, keyFile)
	fmt.Fprintf(w, "  curl -i %s/healthz\n", url)
	if metrics != "" {
		fmt.Fprintf(w, "  curl -s %s\n", metrics)
	}
	if quiet {
		return
	}
	if len(tokens) == 0 {
		fmt.Fprintf(w, "the tokens of these keys were shown when %[1]s was made; for new demo keys, remove %[1]s and start again\n", keyFile)
		return
	}
	for _, t := range tokens {
		fmt.Fprintf(w, "%s: %s\n", t.name, t.token)
	}
	free, trader := tokens[0].token, tokens[2].token
	fmt.Fprintf(w, `try
  curl -i %[1]s/v1/prices/btc-usd -H 'X-API-Key: %[2]s'
  curl -i %[1]s/v1/usage -H 'X-API-Key: %[2]s'
  curl -i %[1]s/v1/history/btc-usd -H 'X-API-Key: %[2]s'
  curl -i %[1]s/v1/orders -H 'Authorization: Bearer %[3]s' -H 'Content-Type: application/json' -d '{"pair":"btc-usd","side":"buy","quantity":"0.5","client_id":"c1"}'
`, url, free, trader)
}
