// Command example is a small market-data API behind admit. Run it with
//
//	go run ./example
//
// It makes demo keys, prints a tour of curl commands, and shows its contract in a browser.
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

// stopWithin bounds how long requests may go on after a signal.
const stopWithin = 10 * time.Second

// settleWithin bounds how long the quota store may take at the end.
const settleWithin = 5 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the process at once
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "example:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("example", flag.ContinueOnError)
	flags.SetOutput(stderr)
	addr := flags.String("addr", "127.0.0.1:8080", "listen on `HOST:PORT`")
	keyFile := flags.String("keys", "keys.json", "read keys from `FILE`; if it does not exist, write new demo keys to it")
	tokenFile := flags.String("tokens", "", "write the tokens of new demo keys to `FILE` too, one a line, as \"name token\"")
	metricsAddr := flags.String("metrics", "127.0.0.1:9464", "serve metrics for Prometheus on `HOST:PORT`; if empty, serve none")
	format := flags.String("log", "text", "write the log as `FORMAT`: text or json")
	quiet := flags.Bool("quiet", false, "print only the address, no tokens")
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

	// The ports come first: if one is in use, no keys are made whose tokens nobody sees.
	listener, err := net.Listen("tcp", *addr)
	if err != nil {
		return fmt.Errorf("%w; choose another address, such as -addr 127.0.0.1:8081", err)
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
	fmt.Fprint(stdout, greeting(urlOf(listener.Addr()), metricsURL, *keyFile, tokens, *quiet))
	return serve(ctx, listener, api, logger)
}

// serve serves until ctx ends. Then it lets requests finish, and reports their use to the
// quota store.
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
