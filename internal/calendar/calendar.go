// Package calendar divides time into the days, weeks and months of a calendar, by the clocks
// of a place and from a billing day.
package calendar

import (
	"fmt"
	"time"
)

// Unit is how long a Period is.
type Unit int

// The units. Zero is none of them.
const (
	Day Unit = 1 + iota
	Week
	Month
)

// Period is a day, a week or a month: from Start until just before End, both in UTC. It is
// good for as long as it contains the time; the zero Period contains none. Periods are
// equal (==) when they are the same.
type Period struct {
	Start, End time.Time

	unit Unit
	wall int64 // when it begins, see offset
}

// In returns the period that now is in. Without an anchor (zero), days begin at midnight,
// weeks on Monday and months on the first. An anchor, as the clocks in loc show it, has the
// time of the day at which periods begin, in whole seconds, and the day of the week or of
// the month; where a month is shorter, its last day. Nothing else of an anchor counts: one in
// the future divides all time before it too.
//
// A period begins when the clocks in loc first show so, or something later: when they are
// set forward over that time, or a date is left out, it begins as they are set; when they
// show that time twice, it begins with the first. So there is no time between periods,
// none is in two, and a day has 23 or 25 hours where summer time begins or ends.
//
// In panics if unit is none of the three, or loc is nil. It allocates nothing.
func In(now time.Time, unit Unit, anchor time.Time, loc *time.Location) Period {
	from := anchor.Unix()
	if !anchor.IsZero() {
		from += offset(from, loc)
	}
	t := now.Unix()
	wall, next := around(t+offset(t, loc), unit, from)
	start, end := begins(wall, loc), begins(next, loc)
	for end <= t { // clocks that were set back show a period that is over
		wall, start = next, end
		_, next = around(wall, unit, from)
		end = begins(next, loc)
	}
	return Period{time.Unix(start, 0).UTC(), time.Unix(end, 0).UTC(), unit, wall}
}

// Contains reports whether t is in the period.
func (p Period) Contains(t time.Time) bool { return !t.Before(p.Start) && t.Before(p.End) }

// Name is the date on which the period begins where it was made, and its length, as in
// 2026-01-31/P1M. It tells the periods of an anchor apart. It does not change with the time
// of day of the anchor, and hardly with the place or the rules of its summer time: what is
// counted under it goes on when replicas differ in these for a while.
func (p Period) Name() string {
	return time.Unix(p.wall, 0).UTC().Format(time.DateOnly) + "/P1" + string("DWM"[p.unit-Day])
}

const (
	day  = 24 * 60 * 60
	week = 7 * day
)

// around returns when the period that wall is in begins and when the next one does, by the
// clocks alone. A zero time is midnight of a Monday that is the first of a month.
func around(wall int64, unit Unit, from int64) (start, next int64) {
	switch unit {
	case Day:
		start = wall - modulo(wall-from, day)
		return start, start + day
	case Week:
		start = wall - modulo(wall-from, week)
		return start, start + week
	case Month:
		year, month, _ := time.Unix(wall, 0).UTC().Date()
		if start = inMonth(year, month, from); start > wall {
			return inMonth(year, month-1, from), start
		}
		return start, inMonth(year, month+1, from)
	}
	panic(fmt.Sprintf("calendar: unit %d is not Day, Week or Month", unit))
}

// inMonth returns when the period begins that begins in a month. It knows nothing of the
// periods before, or a 31st would become a 28th for ever.
func inMonth(year int, month time.Month, from int64) int64 {
	last := time.Date(year, month+1, 0, 0, 0, 0, 0, time.UTC)
	unused := max(last.Day()-time.Unix(from, 0).UTC().Day(), 0)
	return last.Unix() - int64(unused)*day + modulo(from, day)
}

// modulo is not negative.
func modulo(a, b int64) int64 { return (a%b + b) % b }

// begins returns the first second at which the clocks in loc show wall or something later.
//
// An offset is more than -25 and less than 26 hours (RFC 9636 section 3.2), and there is no
// place where clocks were set twice within the 51 hours in between, in which wall is shown.
// time.Date is no help: of a midnight that does not exist it makes 23:00 of the day before.
// Nor is Time.ZoneBounds, which is wrong on the last day of a leap year, and in the year in
// which a place gets new rules.
func begins(wall int64, loc *time.Location) int64 {
	before := offset(wall-26*60*60, loc)
	first := wall - before
	after := offset(first, loc)
	if after == before {
		return first
	}
	second := wall - after
	if offset(second, loc) == after {
		return second
	}
	// Clocks are set forward over wall, between what would be its instants.
	for second < first {
		if middle := second + (first-second)/2; offset(middle, loc) == after {
			first = middle
		} else {
			second = middle + 1
		}
	}
	return first
}

// offset returns how many seconds clocks in loc are ahead of UTC. What they show is written
// as the Unix time at which clocks of UTC do.
func offset(unix int64, loc *time.Location) int64 {
	_, seconds := time.Unix(unix, 0).In(loc).Zone()
	return int64(seconds)
}
