package main

import (
	"cmp"
	"context"
	"errors"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/sqlkeys"
)

// patience bounds how long one command waits for a database or a lock.
const patience = 30 * time.Second

func keysCommand() *cobra.Command {
	var o options
	keys := &cobra.Command{
		Use:   "keys",
		Short: "Mint, import, list, show, update, rotate and revoke keys",
		Long: `Mint, import, list, show, update, rotate and revoke keys.

--keys, or else the variable ADMIT_KEYS, says where the keys are: the path of a key file,
postgres://USER@HOST/DATABASE, or sqlite:PATH. Put a password into the variable or into
PGPASSWORD: all users of the machine can see arguments.

A service sees a change of a key file within two seconds, and with sqlkeys.Watch a change
of a database within about one. Durations from now count by the clock of the database if
that is PostgreSQL.`,
		Args: usage(cobra.NoArgs),
		RunE: needsCommand,
	}
	o.flags(keys)
	keys.AddCommand(mintCommand(&o), importCommand(&o), listCommand(&o), showCommand(&o), updateCommand(&o),
		rotateCommand(&o), revokeCommand(&o), schemaCommand())
	return keys
}

// options are the flags of all commands.
type options struct {
	keys string
	json bool
}

func (o *options) flags(c *cobra.Command) {
	c.PersistentFlags().StringVar(&o.keys, "keys", "", "key `FILE or URL` of a database (default $ADMIT_KEYS)")
	c.PersistentFlags().BoolVar(&o.json, "json", false, "print JSON, one object per line")
}

// where returns where the keys are, or "".
func (o *options) where() string { return cmp.Or(o.keys, os.Getenv("ADMIT_KEYS")) }

// with opens the store for one command.
func (o *options) with(c *cobra.Command, do func(ctx context.Context, s store) error) (err error) {
	where := o.where()
	if where == "" {
		return usagef("no key file or database is given: use --keys or ADMIT_KEYS")
	}
	s, err := openStore(where)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return do(c.Context(), s)
}

// withPatience is like with, for commands that take at most patience.
func (o *options) withPatience(c *cobra.Command, do func(ctx context.Context, s store) error) error {
	return o.with(c, func(ctx context.Context, s store) error {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		return do(ctx, s)
	})
}

// withNow is like withPatience, for commands that read durations from now, such as 12h. These
// count by the clock of the store, and not by that of this machine.
func (o *options) withNow(c *cobra.Command, do func(ctx context.Context, s store, now time.Time) error) error {
	return o.withPatience(c, func(ctx context.Context, s store) error {
		now, err := s.Now(ctx)
		if err != nil {
			return err
		}
		return do(ctx, s, now)
	})
}

// about adds to an error of a store which key it is about.
func about(id string, err error) error {
	if err == nil {
		return nil
	}
	return &keyError{id, err}
}

type keyError struct {
	id  string
	err error
}

func (e *keyError) Unwrap() error { return e.err }

func (e *keyError) Error() string {
	switch {
	case errors.Is(e.err, admit.ErrKeyNotFound):
		return "there is no key " + clean(e.id)
	case errors.Is(e.err, sqlkeys.ErrExists):
		return clean(e.id) + ": a key with this id or token exists"
	case errors.Is(e.err, sqlkeys.ErrNotValid):
		return "the key " + clean(e.id) + " has expired or is revoked"
	default:
		return clean(e.id) + ": " + bare(e.err.Error())
	}
}

// describe returns the name of a key, with its owner if it has one.
func describe(k *admit.Key) string {
	if k.Owner == "" {
		return "the key " + clean(k.ID)
	}
	return "the key " + clean(k.ID) + " of " + clean(k.Owner)
}
