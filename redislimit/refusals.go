package redislimit

import (
	"sync"
	"time"
)

// refusals remembers callers that were rejected. A bucket refills only with time, unless
// something is given back, so what it lacked then tells how long it will reject the caller.
type refusals struct {
	most int

	mu    sync.Mutex
	known map[caller]refusal
	ages  [64]uint64 // by the hash of a caller: how often one was forgotten
}

// refusal is an answer of the script, and when it arrived. That is later than the decision, so
// a RetryAfter computed from it is never too short.
type refusal struct {
	plan   *plan
	answer answer
	at     time.Duration
	retry  time.Duration
}

// find returns the refusal of a caller, if one is known, and the age of the caller. The age
// tells remember whether the caller was forgotten since.
func (rs *refusals) find(id caller, now time.Duration) (r refusal, known bool, age uint64) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	r, known = rs.known[id]
	if known && now-r.at >= r.retry {
		delete(rs.known, id)
		known = false
	}
	return r, known, rs.ages[id[0]%64]
}

// remember keeps a refusal, unless the caller was forgotten since find returned age.
func (rs *refusals) remember(id caller, r refusal, age uint64) {
	if rs.most == 0 {
		return
	}
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if rs.ages[id[0]%64] != age {
		return
	}
	if rs.known == nil {
		rs.known = make(map[caller]refusal)
	}
	if _, known := rs.known[id]; !known && len(rs.known) >= rs.most {
		rs.evict(r.at)
	}
	rs.known[id] = r
}

// evict makes room for one. It looks at a few and drops those that are over, or else the one
// that is over first. A caller that is dropped too early costs a call.
func (rs *refusals) evict(now time.Duration) {
	var first caller
	var soonest time.Duration
	seen, over := 0, 0
	for id, r := range rs.known {
		left := r.at + r.retry - now
		if left <= 0 {
			delete(rs.known, id)
			over++
		} else if seen == over || left < soonest {
			first, soonest = id, left
		}
		if seen++; seen == 8 {
			break
		}
	}
	if over == 0 {
		delete(rs.known, first)
	}
}

// forget drops a caller whose buckets have changed.
func (rs *refusals) forget(id caller) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	delete(rs.known, id)
	rs.ages[id[0]%64]++
}

func (rs *refusals) len() int {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	return len(rs.known)
}
