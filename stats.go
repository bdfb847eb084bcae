package admit

// Measure is one value for metrics. InFlight, Shedder, KeyCache, Limiter, MemoryStore, Quotas and
// redislimit.Store have a method Measures that returns theirs.
type Measure struct {
	Name  string // in the style of OpenTelemetry, such as admit.inflight.running
	Unit  string // of UCUM, such as {request}; "" if there is none
	Help  string // a phrase that describes the value
	Total bool   // whether this is a counter: a value that only grows while the process runs
	Value int64
}

// InFlightStats are the figures of an InFlight.
type InFlightStats struct {
	Running, Waiting, Max int // requests now; Running may exceed Max after a place was lent
}

// Stats returns how many requests run and wait now.
func (f *InFlight) Stats() InFlightStats {
	if f.fault() != nil {
		return InFlightStats{}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return InFlightStats{Running: f.running, Waiting: f.queue.Len(), Max: f.c.Max}
}

// Measures returns the Stats as metrics.
func (f *InFlight) Measures() []Measure {
	s := f.Stats()
	return []Measure{
		gauge("admit.inflight.running", "{request}", "requests in flight", s.Running),
		gauge("admit.inflight.waiting", "{request}", "requests that wait for a place", s.Waiting),
		gauge("admit.inflight.max", "{request}", "requests that may be in flight", s.Max),
	}
}

// Measures returns the Stats as metrics.
func (s *Shedder) Measures() []Measure {
	st := s.Stats()
	return []Measure{
		gauge("admit.shedder.running", "{request}", "requests that are worked on", st.Running),
		gauge("admit.shedder.waiting", "{request}", "requests that wait for a place", st.Waiting),
		gauge("admit.shedder.max", "{request}", "requests that may be worked on", st.Max),
		total("admit.shedder.admitted", "{request}", "requests that got a place", st.Admitted),
		total("admit.shedder.shed", "{request}", "requests that were refused since there was too much to do", st.Shed),
	}
}

// KeyCacheStats are the figures of a KeyCache. All but Keys and StoreDown only grow.
type KeyCacheStats struct {
	Keys      int    // in memory
	Hits      uint64 // look-ups answered from memory, of keys and of unknown digests
	Lookups   uint64 // look-ups in the store
	Stale     uint64 // answers with a key past its TTL, because the store failed or was late
	StoreDown bool   // the store has failed or was late, and has not answered since
}

// Stats returns the current figures of the cache.
func (c *KeyCache) Stats() KeyCacheStats {
	if c.fault() != nil {
		return KeyCacheStats{}
	}
	s := KeyCacheStats{Keys: int(c.keys.Load()), Lookups: c.lookups.Load()}
	for i := range c.shards {
		s.Hits += c.shards[i].hits.Load()
	}
	s.StoreDown, s.Stale = c.health.outage.State()
	return s
}

// Measures returns the Stats as metrics.
func (c *KeyCache) Measures() []Measure {
	s := c.Stats()
	return []Measure{
		gauge("admit.keycache.keys", "{key}", "keys in memory", s.Keys),
		total("admit.keycache.hits", "{lookup}", "look-ups that were answered from memory", s.Hits),
		total("admit.keycache.lookups", "{lookup}", "look-ups in the key store", s.Lookups),
		total("admit.keycache.stale", "{lookup}", "answers with a key past its time, since the store failed or was late", s.Stale),
		down("admit.keycache.store.down", "key", s.StoreDown),
	}
}

// LimiterStats are the figures of a Limiter.
type LimiterStats struct {
	Callers      int    // callers with buckets in the memory of this process
	StoreDown    bool   // the Store has failed, and has not answered since
	WithoutStore uint64 // decisions so far that were made without the Store
	Leased       int64  // requests that LimiterConfig.Lease has taken ahead, and that are not used
	LeaseHits    uint64 // decisions so far that needed no call to the Store because of a Lease
}

// Stats returns the current figures of the Limiter.
func (l *Limiter) Stats() LimiterStats {
	var s LimiterStats
	if l.fault() != nil {
		return s
	}
	if l.memory != nil {
		s.Callers = l.memory.Stats().Callers
	}
	if l.store != nil {
		s.StoreDown, s.WithoutStore = l.store.outage.State()
	}
	if l.leases != nil {
		s.Leased, s.LeaseHits = l.leases.sum()
	}
	return s
}

// Measures returns the Stats as metrics.
func (l *Limiter) Measures() []Measure {
	s := l.Stats()
	measures := []Measure{
		gauge("admit.limiter.callers", "{caller}", "callers with buckets in memory", s.Callers),
		down("admit.limiter.store.down", "limit", s.StoreDown),
		total("admit.limiter.store.missed", "{request}", "decisions without the limit store", s.WithoutStore),
	}
	if l.fault() == nil && l.leases != nil {
		measures = append(measures,
			gauge("admit.limiter.lease.held", "{request}", "requests taken ahead, and not used", int(s.Leased)),
			total("admit.limiter.lease.hits", "{request}", "decisions that needed no trip to the limit store", s.LeaseHits))
	}
	return measures
}

// MemoryStoreStats are the figures of a MemoryStore.
type MemoryStoreStats struct {
	Callers int // callers with buckets of their own
}

// Stats returns how many callers have buckets of their own.
func (s *MemoryStore) Stats() MemoryStoreStats {
	if s.fault() != nil {
		return MemoryStoreStats{}
	}
	return MemoryStoreStats{Callers: int(s.callers[unkeyed].Load() + s.callers[keyed].Load())}
}

// Measures returns the Stats as metrics.
func (s *MemoryStore) Measures() []Measure {
	return []Measure{gauge("admit.memorystore.callers", "{caller}", "callers with buckets of their own", s.Stats().Callers)}
}

// QuotasStats are the figures of a Quotas. Held and Unreported are approximate.
type QuotasStats struct {
	Counters     int    // quotas of the accounts that came in the last minutes
	Held         int64  // requests that this process has taken ahead, and not used
	Unreported   int64  // requests that this process has used, and not yet reported to the Store
	StoreDown    bool   // the Store has failed, and has not answered since
	WithoutStore uint64 // decisions so far that were made without the Store
}

// Stats returns the current figures of q.
func (q *Quotas) Stats() QuotasStats {
	var s QuotasStats
	if q.fault() != nil {
		return s
	}
	s.StoreDown, s.WithoutStore = q.ledger.guard.outage.State()
	for counted, more := 0, true; more; {
		counted, more = q.ledger.sum(counted, &s)
	}
	return s
}

// sum adds some counters to s, starting at a position in the queue. It returns the next position,
// and whether there are more. It lets go of the lock in between, so that requests need not wait;
// a counter that moves in the queue meanwhile may be left out or counted twice.
func (l *quotaLedger) sum(from int, s *QuotasStats) (counted int, more bool) {
	const some = 1000
	l.mu.Lock()
	defer l.mu.Unlock()
	s.Counters = len(l.queue)
	to := min(from+some, len(l.queue))
	for ; from < to; from++ {
		s.Held += l.queue[from].Held()
		s.Unreported += l.queue[from].Unreported()
	}
	return from, from < len(l.queue)
}

// Measures returns the Stats as metrics.
func (q *Quotas) Measures() []Measure {
	s := q.Stats()
	return []Measure{
		gauge("admit.quotas.counters", "{quota}", "quotas of accounts that have come in the last minutes", s.Counters),
		gauge("admit.quotas.held", "{request}", "requests taken ahead, and not used", int(s.Held)),
		gauge("admit.quotas.unreported", "{request}", "requests used that the quota store has not heard of", int(s.Unreported)),
		down("admit.quotas.store.down", "quota", s.StoreDown),
		total("admit.quotas.store.missed", "{request}", "decisions without the quota store", s.WithoutStore),
	}
}

func gauge(name, unit, help string, value int) Measure {
	return Measure{Name: name, Unit: unit, Help: help, Value: int64(value)}
}

func total(name, unit, help string, value uint64) Measure {
	return Measure{Name: name, Unit: unit, Help: help, Total: true, Value: int64(value)}
}

func down(name, what string, is bool) Measure {
	m := Measure{Name: name, Help: "1 while the " + what + " store fails, else 0"}
	if is {
		m.Value = 1
	}
	return m
}
