package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/admit-go/admit"
)

// caller is a key that sends requests.
type caller struct {
	key     admit.Key
	token   string
	refused bool // by its times, always
	gone    bool // not in the file any more

	// When the file began to have the key, and to have it no more or revoked; zero: always,
	// and never. A write has a beginning and an end, and which counts is not known between.
	added, removed interval
}

type interval struct{ began, ended time.Time }

// takesEffect is how long after a write of the key file its keys may still be the old: the
// file is looked at each second, and once more if that was in the middle of the write. The
// rest is for a machine that is busy.
const takesEffect = 2*time.Second + 500*time.Millisecond

// standing says whether a key may be, and may not be, accepted for a request at a time.
func (c *caller) standing(sent, received time.Time) (accepted, refused bool) {
	if c.refused {
		return false, true
	}
	accepted = true
	if !c.added.began.IsZero() {
		accepted = received.After(c.added.began)
		refused = c.added.ended.IsZero() || !sent.After(c.added.ended.Add(takesEffect))
	}
	if !c.removed.began.IsZero() && received.After(c.removed.began) {
		refused = true
		accepted = accepted && (c.removed.ended.IsZero() || !sent.After(c.removed.ended.Add(takesEffect)))
	}
	return accepted, refused
}

// keyring is the callers, and the key file that is rewritten under load.
type keyring struct {
	path   string
	fixed  []*caller // all of the generator, but for the rotating
	faulty []*caller // those that faults use, so that the load does not use up their limits
	lone   *caller   // used by one sender alone

	mu       sync.Mutex
	rotating []*caller // the newest last; the first have been removed
	minted   int
}

const maxRotating = 8

func newKeyring(path string) (*keyring, error) {
	k := &keyring{path: path}
	past, future := time.Now().Add(-time.Hour), time.Now().Add(1000*time.Hour)
	add := func(id, plan string, as admit.Key, scopes ...string) *caller {
		c := newCaller(id, plan)
		c.key.Scopes, c.key.Quotas = scopes, as.Quotas
		c.key.NotBefore, c.key.ExpiresAt, c.key.RevokedAt = as.NotBefore, as.ExpiresAt, as.RevokedAt
		c.refused = !as.NotBefore.IsZero() || !as.ExpiresAt.IsZero() || !as.RevokedAt.IsZero()
		return c
	}
	var always admit.Key
	k.fixed = []*caller{
		add("free1", "free", always), add("free2", "free", always),
		add("pro1", "pro", always), add("pro2", "pro", always),
		add("trader1", "pro", always, "orders:write"), add("trader2", "pro", always, "orders:read", "orders:write"),
		add("freetrader", "free", always, "orders:write"),
		add("noplan", "", always), add("oddplan", "gold", always),
		add("little", "free", admit.Key{Quotas: []admit.Quota{{Name: "month", Requests: 30, Every: admit.Month}}}),
		add("expired", "pro", admit.Key{ExpiresAt: past}),
		add("early", "pro", admit.Key{NotBefore: future}),
		add("revoked", "pro", admit.Key{RevokedAt: past}),
	}
	for i := range 4 {
		k.faulty = append(k.faulty, add(fmt.Sprintf("faulty%d", i), "pro", always, "orders:write"))
	}
	k.lone = add("lone", "free", always)
	text, err := encode(k.keys())
	if err != nil {
		return nil, err
	}
	return k, k.replace(text)
}

// newCaller mints a key. All tokens have a prefix whose checksum the service looks at.
func newCaller(id, plan string) *caller {
	prefix := "demo_free"
	if plan == "pro" {
		prefix = "demo_pro"
	}
	token, _, _ := admit.Mint(prefix)
	return &caller{key: admit.Key{ID: id, Owner: "owner of " + id, Plan: plan}, token: token}
}

func (k *keyring) anyRotating(rng *rand.Rand) *caller {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := rng.IntN(maxRotating)
	if len(k.rotating) == 0 {
		return k.fixed[0]
	}
	return k.rotating[n%len(k.rotating)]
}

// standing is that of the caller, whose times others may be writing.
func (k *keyring) standing(c *caller, sent, received time.Time) (accepted, refused bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return c.standing(sent, received)
}

// keys are those that the next good version has.
func (k *keyring) keys() admit.KeyMap {
	keys := admit.KeyMap{}
	for _, c := range slices.Concat(k.fixed, k.faulty, k.rotating, []*caller{k.lone}) {
		if !c.gone {
			key := c.key
			keys[admit.DigestOf(c.token)] = &key
		}
	}
	return keys
}

// rewrite writes a good version, with one more key and one less, and, once that has
// counted, a broken one, with which the keys stay as they are.
func (k *keyring) rewrite(ctx context.Context, rng *rand.Rand, t *tally) {
	good := k.change(rng)
	ways := []struct {
		name  string
		write func() error
	}{
		{"key file replaced", func() error { return k.replace(good) }},
		{"key file written in place", func() error { return os.WriteFile(k.path, good, 0o600) }},
		{"key file written in halves", func() error { return k.halves(good) }},
	}
	way := ways[rng.IntN(len(ways))]
	t.fault(way.name)
	err := way.write()
	k.changed()
	// A broken version too soon would hide the good one.
	if wait(ctx, takesEffect+time.Second); err != nil || ctx.Err() != nil {
		t.mishap(err)
		return
	}

	ways = []struct {
		name  string
		write func() error
	}{
		{"key file cut off", func() error { return os.WriteFile(k.path, good[:rng.IntN(len(good)-2)], 0o600) }},
		{"key file removed", func() error { return os.Remove(k.path) }},
		{"key file with an unknown member", func() error { return k.replace([]byte(`{"keys": [], "kyes": []}`)) }},
		{"key file with a wrong digest", func() error { return k.replace([]byte(`{"keys": [{"id": "x", "digest": "x"}]}`)) }},
	}
	way = ways[rng.IntN(len(ways))]
	t.fault(way.name)
	t.mishap(way.write())
	wait(ctx, time.Duration(1+rng.IntN(3))*time.Second)
}

// change adds a key and takes one away, and returns the file with both.
func (k *keyring) change(rng *rand.Rand) []byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.minted++
	fresh := newCaller(fmt.Sprintf("rotating%d", k.minted), []string{"free", "pro"}[rng.IntN(2)])
	now := time.Now()
	fresh.added.began = now
	k.rotating = append(k.rotating, fresh)
	if n := len(k.rotating); n > 3 {
		old := k.rotating[n-4] // the newest three stay
		old.removed.began = now
		if old.gone = rng.IntN(2) == 0; !old.gone {
			old.key.RevokedAt = now.Add(-time.Second)
		}
	}
	if len(k.rotating) > maxRotating {
		k.rotating = k.rotating[1:]
	}
	text, err := encode(k.keys())
	if err != nil {
		panic(err) // nothing of it depends on the run
	}
	return text
}

// changed says that the file is there as a whole.
func (k *keyring) changed() {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	for _, c := range k.rotating {
		for _, i := range []*interval{&c.added, &c.removed} {
			if !i.began.IsZero() && i.ended.IsZero() {
				i.ended = now
			}
		}
	}
}

// encode is the file, without a comparison with what admit writes: its own test has that.
func encode(keys admit.KeyMap) ([]byte, error) {
	type quota struct {
		Name     string       `json:"name"`
		Requests int64        `json:"requests"`
		Every    admit.Period `json:"every"`
		Soft     bool         `json:"soft,omitempty"`
	}
	type record struct {
		ID        string    `json:"id"`
		Owner     string    `json:"owner"`
		Plan      string    `json:"plan"`
		Scopes    []string  `json:"scopes"`
		Digest    string    `json:"digest"`
		NotBefore time.Time `json:"not_before,omitzero"`
		ExpiresAt time.Time `json:"expires_at,omitzero"`
		RevokedAt time.Time `json:"revoked_at,omitzero"`
		Quotas    []quota   `json:"quotas,omitempty"`
	}
	file := struct {
		Format int      `json:"format"`
		Keys   []record `json:"keys"`
	}{Format: 2}
	for d, c := range keys {
		var quotas []quota
		for _, q := range c.Quotas {
			quotas = append(quotas, quota(q))
		}
		file.Keys = append(file.Keys, record{c.ID, c.Owner, c.Plan, c.Scopes, d.String(), c.NotBefore, c.ExpiresAt, c.RevokedAt, quotas})
	}
	return json.MarshalIndent(file, "", " ")
}

// replace is atomic.
func (k *keyring) replace(text []byte) error {
	if err := os.WriteFile(k.path+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(k.path+".new", k.path)
}

// halves leaves the file broken for longer than it takes to be looked at.
func (k *keyring) halves(text []byte) error {
	if err := os.WriteFile(k.path, text[:len(text)/2], 0o600); err != nil {
		return err
	}
	time.Sleep(1100 * time.Millisecond)
	return os.WriteFile(k.path, text, 0o600)
}
