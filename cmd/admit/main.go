// Command admit mints and manages API keys in a key file or a database.
//
//	admit keys mint --keys keys.json --owner ACME --plan pro --prefix acme
//
// See admit --help.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/sqlkeys"
)

// The exit codes of the process, for scripts. The code of success is 0.
const (
	exitFailed   = 1
	exitUsage    = 2
	exitNotFound = 3
	exitConflict = 4
)

func main() {
	// If the reader of the token is gone, that is an error to handle, and not the end.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	code := run(ctx, os.Args[1:], outlet{os.Stdout}, cleaner{os.Stderr})
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use:   "admit",
		Short: "Manage the API keys of services that use admit",
		Long: `Manage the API keys of services that use admit.

Exit codes: 0 for success, 1 for a failure, 2 for a usage error, 3 if there is no such
key, and 4 if the id or token is taken, or if the key has expired or is revoked.`,
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          usage(cobra.NoArgs),
		RunE:          needsCommand,
	}
	root.AddCommand(keysCommand(), quotasCommand())
	root.SetVersionTemplate("admit {{.Version}}\n")
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	command, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	for _, message := range messages(err) {
		fmt.Fprintln(stderr, "admit:", message)
	}
	switch {
	case errors.As(err, new(usageError)):
		fmt.Fprintf(stderr, "see %s --help\n", command.CommandPath())
		return exitUsage
	case errors.Is(err, admit.ErrKeyNotFound):
		return exitNotFound
	case errors.Is(err, sqlkeys.ErrExists), errors.Is(err, sqlkeys.ErrNotValid), errors.Is(err, errConflict):
		return exitConflict
	default:
		return exitFailed
	}
}

// usageError is an error of the command line.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

func usage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if err := check(c, args); err != nil {
			return usageError{err}
		}
		return nil
	}
}

// one accepts exactly one argument, which has a name.
func one(name string) cobra.PositionalArgs {
	return usage(func(_ *cobra.Command, args []string) error {
		if len(args) != 1 {
			return errors.New("give exactly one " + name)
		}
		return nil
	})
}

func needsCommand(c *cobra.Command, _ []string) error {
	return usagef("%s needs a command", c.CommandPath())
}
