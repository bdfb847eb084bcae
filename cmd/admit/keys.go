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

// patience bounds what one command waits for a database or a lock.
const patience = 30 * time.Second

func keysCommand() *cobra.Command {
	var o options
	keys := &cobra.Command{
		Use:   "keys",
		Short: "Mint, import, list, show, update, rotate and revoke keys",
		Long: `Mint, import, list, show, update, rotate and revoke keys.

The keys are where --keys says, or else the variable ADMIT_KEYS: the path of a key file,
postgres://USER@HOST/DATABASE, or sqlite:PATH. A password is better given in the
variable, or in PGPASSWORD, than in an argument that all users of the machine can see.
A service sees a change of a key file within two seconds, and of a database, with
sqlkeys.Watch, within one. Times from now count by the clock of the database, if it is
PostgreSQL.`,
		Args: usage(cobra.NoArgs),
		RunE: needsCommand,
	}
	o.flags(keys)
	keys.AddCommand(mintCommand(&o), importCommand(&o), listCommand(&o), showCommand(&o), updateCommand(&o),
		rotateCommand(&o), revokeCommand(&o), schemaCommand())
	return keys
}

// options are those of all commands.
type options struct {
	keys string
	json bool
}

func (o *options) flags(c *cobra.Command) {
	c.PersistentFlags().StringVar(&o.keys, "keys", "", "key `FILE or URL` of a database (default $ADMIT_KEYS)")
	c.PersistentFlags().BoolVar(&o.json, "json", false, "print JSON, one object to a line")
}

// where says where the keys are, or is empty.
func (o *options) where() string { return cmp.Or(o.keys, os.Getenv("ADMIT_KEYS")) }

// with opens the store for one command.
func (o *options) with(c *cobra.Command, do func(ctx context.Context, s store) error) (err error) {
	where := o.where()
	if where == "" {
		return usagef("no keys are named: use --keys or ADMIT_KEYS")
	}
	s, err := openStore(where)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return do(c.Context(), s)
}

// withPatience is with for commands that take no longer than patience.
func (o *options) withPatience(c *cobra.Command, do func(ctx context.Context, s store) error) error {
	return o.with(c, func(ctx context.Context, s store) error {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		return do(ctx, s)
	})
}

// withNow is withPatience for commands that read times from now, such as 12h: they count by
// the clock of the store, and not by that of this machine.
func (o *options) withNow(c *cobra.Command, do func(ctx context.Context, s store, now time.Time) error) error {
	return o.withPatience(c, func(ctx context.Context, s store) error {
		now, err := s.Now(ctx)
		if err != nil {
			return err
		}
		return do(ctx, s, now)
	})
}

// about says which key an error of a store is about.
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

// describe names a key, and its owner if it has one.
func describe(k *admit.Key) string {
	if k.Owner == "" {
		return "the key " + clean(k.ID)
	}
	return "the key " + clean(k.ID) + " of " + clean(k.Owner)
}
