package redislimit

import (
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"time"

	"github.com/admit-go/admit"
)

// Script is the Lua script that decides a request. It applies the generic cell rate algorithm
// to each limit; either all limits admit the request or none is charged. The value of a key is
// the time at which its bucket will be full again, in whole microseconds since 1970 and, after
// a colon, a fraction of one; the key expires then. Every number stays below 2^53, where Lua is
// exact. Script changes only with the version of this module, and every version understands
// the same keys.
const Script = `local call, format = redis.call, string.format
local time = call('TIME')
local now = time[1] * 1000000 + time[2]
local n = #KEYS
local fractions = #ARGV > 2 * n
local state, admitted, moved = {1, now, 0, 0}, true, false
for i = 1, n do
  local most, mostPart, unit = tonumber(ARGV[2 * i - 1]), 0, 1
  if fractions then
    mostPart, unit = tonumber(ARGV[2 * n + 3 * i - 1]), tonumber(ARGV[2 * n + 3 * i - 2])
  end
  local lacks, part = 0, 0
  local value = call('GET', KEYS[i])
  if value then
    local at = tonumber(value)
    if not at or at ~= at then
      local whole, fraction = string.match(value, '^(%d+):(%d+)$')
      at, part = tonumber(whole or now), tonumber(fraction or 0)
    end
    lacks = at - now
    if lacks < 0 then
      lacks, part = 0, 0
    elseif lacks > most or lacks == most and part > mostPart then
      lacks, part, moved = most, mostPart, true
    end
  end
  lacks = lacks + ARGV[2 * i]
  if fractions then
    part = part + ARGV[2 * n + 3 * i]
    if part >= unit then
      lacks, part = lacks + 1, part - unit
    end
  end
  if lacks > most or lacks == most and part > mostPart then
    admitted = false
  elseif lacks < 0 then
    lacks, part = 0, 0
  end
  state[2 * i + 1], state[2 * i + 2] = lacks, part
end
if not admitted then
  state[1] = 0
end
for i = 1, n do
  local lacks, part = state[2 * i + 1], state[2 * i + 2]
  if not admitted then
    lacks = lacks - ARGV[2 * i]
    if fractions then
      part = part - ARGV[2 * n + 3 * i]
      if part < 0 then
        lacks, part = lacks - 1, part + ARGV[2 * n + 3 * i - 2]
      end
    end
  end
  state[2 * i + 1], state[2 * i + 2] = now + lacks, part
end
if not admitted then
  if not moved then
    return state
  end
elseif ARGV[2] == '0' and not (fractions and ARGV[2 * n + 3] ~= '0') then
  return state
end
for i = 1, n do
  local at, part = state[2 * i + 1], state[2 * i + 2]
  if at == now and part == 0 then
    call('DEL', KEYS[i])
  elseif part == 0 then
    call('SET', KEYS[i], format('%.0f', at), 'PXAT', (at - at % 1000) / 1000 + 1)
  else
    call('SET', KEYS[i], format('%.0f:%.0f', at, part), 'PXAT', (at - at % 1000) / 1000 + 1)
  end
end
return state
`

// plan is the limits of a caller, prepared for the script.
type plan struct {
	quotas []quota
	one    []any // the arguments for a cost of 1

	fractions bool // for some limit a request is not a whole number of microseconds
}

// quota is a Limit in the units of its bucket: a request takes per units, and each microsecond
// gives back units of them.
type quota struct {
	name  string // the end of the key; a limit with other numbers has another name
	burst uint64 // in requests
	per   uint64
	units uint64
	size  span
}

// span is a time: us + part/units microseconds, where 0 <= part < units.
type span struct{ us, part int64 }

func newPlan(limits []admit.Limit) (*plan, error) {
	complete, err := admit.CompleteLimits(limits)
	if err != nil {
		return nil, err
	}
	p := &plan{}
	for _, l := range complete {
		q := quota{
			name:  fmt.Sprintf("%s:%d/%s", l.Name, l.Requests, l.Per),
			burst: uint64(l.Burst),
			per:   uint64(l.Per),
			units: uint64(l.Requests) * uint64(time.Microsecond),
		}
		if l.Burst != l.Requests {
			q.name += "+" + strconv.Itoa(l.Burst)
		}
		q.size = q.span(l.Burst)
		p.fractions = p.fractions || q.per%q.units != 0
		p.quotas = append(p.quotas, q)
	}
	p.one = p.newArgs(1)
	return p, nil
}

// newProbe returns the plan of a probe, which writes a key of its own that expires after about
// a millisecond. No Limit has such a name.
func newProbe() *plan {
	p, err := newPlan([]admit.Limit{admit.PerSecond(1000)})
	if err != nil {
		panic(err) // never
	}
	p.quotas[0].name = "probe"
	return p
}

// keys returns the keys of a caller. They share the memory of one string.
func (p *plan) keys(id caller) []string {
	var buf [256]byte
	b := buf[:0]
	for _, q := range p.quotas {
		b = append(id.appendTo(b), q.name...)
	}
	all := string(b)
	keys := make([]string, len(p.quotas))
	for i, q := range p.quotas {
		n := keyStartLen + len(q.name)
		keys[i], all = all[:n], all[n:]
	}
	return keys
}

func (p *plan) args(cost int) []any {
	if cost == 1 {
		return slices.Clip(p.one)
	}
	return p.newArgs(cost)
}

// newArgs returns the arguments of the script. For each limit they are the size of a full
// bucket and the cost, in microseconds. If these have fractions, three more follow for each
// limit: the units, and the fractions of both.
func (p *plan) newArgs(cost int) []any {
	if p.never(cost) {
		cost = 0
	}
	args := make([]any, 0, 5*len(p.quotas))
	add := func(n int64) { args = append(args, strconv.FormatInt(n, 10)) }
	for _, q := range p.quotas {
		add(q.size.us)
		add(q.span(cost).us)
	}
	if !p.fractions {
		return args
	}
	for _, q := range p.quotas {
		add(int64(q.units))
		add(q.size.part)
		add(q.span(cost).part)
	}
	return args
}

// never reports whether a cost is more than a full bucket.
func (p *plan) never(cost int) bool {
	return slices.ContainsFunc(p.quotas, func(q quota) bool { return cost > 0 && uint64(cost) > q.burst })
}

// span returns the time that pays back a cost of at most the burst. A negative cost gives back
// no more than the burst.
func (q *quota) span(cost int) span {
	n := uint64(max(cost, 0))
	if cost < 0 {
		n = min(uint64(-(cost+1))+1, q.burst)
	}
	hi, lo := bits.Mul64(n, q.per)
	us, part := bits.Div64(hi, lo, q.units)
	switch {
	case cost >= 0:
		return span{int64(us), int64(part)}
	case part == 0:
		return span{-int64(us), 0}
	default:
		return span{-int64(us) - 1, int64(q.units - part)}
	}
}

// answer is what the script returns: its decision, the time of that, and when each bucket will
// be full.
type answer struct {
	admitted bool
	now      int64
	full     []span
}

func (p *plan) parse(reply any) (answer, error) {
	values, _ := reply.([]any)
	var numbers [16]int64
	n := numbers[:0]
	for _, v := range values {
		if i, ok := v.(int64); ok {
			n = append(n, i)
		}
	}
	if len(n) != len(values) || len(n) != 2+2*len(p.quotas) {
		return answer{}, fmt.Errorf("the script returns %d integers in a []any, but eval returned %T %v", 2+2*len(p.quotas), reply, reply)
	}
	a := answer{admitted: n[0] == 1, now: n[1], full: make([]span, len(p.quotas))}
	for i := range a.full {
		a.full[i] = span{n[2+2*i], n[3+2*i]}
		if part := a.full[i].part; part < 0 || uint64(part) >= p.quotas[i].units {
			return answer{}, fmt.Errorf("the script returned the fraction %d, which is not below %d", part, p.quotas[i].units)
		}
	}
	return a, nil
}

// decide returns what an answer means for a cost that much later. If the buckets have refilled
// enough meanwhile, the Decision allows a cost that was rejected.
func (p *plan) decide(a answer, later time.Duration, cost int) admit.Decision {
	d := admit.Decision{Allowed: true, States: make([]admit.LimitState, len(p.quotas))}
	if a.admitted && !p.never(cost) {
		cost = 0 // the script has taken it
	}
	now := a.now + later.Microseconds()
	never := false
	for i := range p.quotas {
		q, st := &p.quotas[i], &d.States[i]
		lacks := span{a.full[i].us - now, a.full[i].part}
		if lacks.us < 0 {
			lacks = span{}
		}
		wait := q.wait(lacks, cost)
		st.Remaining, st.Reset = q.remaining(lacks), microseconds(lacks.us)
		if lacks.part > 0 {
			st.Reset += time.Microsecond
		}
		if st.Remaining == 0 {
			st.Next = q.wait(lacks, 1)
		}
		switch {
		case cost > 0 && uint64(cost) > q.burst:
			st.Exceeded, never, d.Allowed = true, true, false
		case wait > 0:
			st.Exceeded, st.Reset, d.Allowed = true, wait, false
			d.RetryAfter = max(d.RetryAfter, wait)
		}
	}
	if never {
		d.RetryAfter = -1
	}
	return d
}

// free returns what a bucket holds, as a number of 128 bits.
func (q *quota) free(lacks span) (hi, lo uint64) {
	hi, lo = bits.Mul64(q.burst, q.per)
	lackHi, lackLo := bits.Mul64(uint64(lacks.us), q.units)
	lackLo, carry := bits.Add64(lackLo, uint64(lacks.part), 0)
	lackHi += carry
	if lackHi > hi || lackHi == hi && lackLo >= lo {
		return 0, 0
	}
	lo, borrow := bits.Sub64(lo, lackLo, 0)
	hi, _ = bits.Sub64(hi, lackHi, borrow)
	return hi, lo
}

func (q *quota) remaining(lacks span) int {
	hi, lo := q.free(lacks)
	n, _ := bits.Div64(hi, lo, q.per)
	return int(n)
}

// wait returns the time until a bucket admits the cost, in whole microseconds. It is 0 also if
// the bucket never does.
func (q *quota) wait(lacks span, cost int) time.Duration {
	if cost <= 0 || uint64(cost) > q.burst {
		return 0
	}
	hi, lo := q.free(lacks)
	needHi, needLo := bits.Mul64(uint64(cost), q.per)
	if needHi < hi || needHi == hi && needLo <= lo {
		return 0
	}
	lo, borrow := bits.Sub64(needLo, lo, 0)
	hi, _ = bits.Sub64(needHi, hi, borrow)
	us, part := bits.Div64(hi, lo, q.units)
	if part > 0 {
		us++
	}
	return microseconds(int64(us))
}

func microseconds(n int64) time.Duration { return time.Duration(n) * time.Microsecond }
