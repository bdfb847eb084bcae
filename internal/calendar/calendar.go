// Package calendar divides time into days, weeks and months, in the time zone of a location and
// optionally from a billing day.
package calendar

import (
	"fmt"
	"time"
)

// Unit is the length of a Period.
type Unit int

// The units. Zero is not valid.
const (
	Day Unit = 1 + iota
	Week
	Month
)

// Period is a day, a week or a month: from Start, inclusive, to End, exclusive, both in UTC. The
// zero Period contains no time. Equal periods are equal by ==.
type Period struct {
	Start, End time.Time

	unit Unit
	wall int64 // local time of its beginning, see offset
}

// In returns the period that contains now. With a zero anchor, days begin at midnight, weeks on
// Monday and months on the first. Otherwise the local time of the anchor in loc is the time of
// day at which periods begin, in whole seconds, and the day of the week or of the month; a month
// that is too short begins on its last day. Nothing else of the anchor counts, so it may be in
// the future.
//
// A period begins at the first instant at which clocks in loc show its local time or a later
// one. If clocks are set forward over that time, or a date is skipped, it begins at that change;
// if they show that time twice, it begins at the first. So periods neither overlap nor have gaps,
// and a day has 23 or 25 hours where summer time begins or ends.
//
// In panics if unit is none of the three, or if loc is nil. It allocates nothing.
func In(now time.Time, unit Unit, anchor time.Time, loc *time.Location) Period {
	from := anchor.Unix()
	if !anchor.IsZero() {
		from += offset(from, loc)
	}
	t := now.Unix()
	wall, next := around(t+offset(t, loc), unit, from)
	start, end := begins(wall, loc), begins(next, loc)
	for end <= t { // after clocks were set back, they show a period that is over
		wall, start = next, end
		_, next = around(wall, unit, from)
		end = begins(next, loc)
	}
	return Period{time.Unix(start, 0).UTC(), time.Unix(end, 0).UTC(), unit, wall}
}

// Contains reports whether t is in the period.
func (p Period) Contains(t time.Time) bool { return !t.Before(p.Start) && t.Before(p.End) }

// Name returns the local date on which the period begins, and its length, as in 2026-01-31/P1M.
// It distinguishes the periods of an anchor. It does not depend on the time of day of the
// anchor, and hardly on the location or its rules of summer time: counting goes on under the
// same name if replicas differ in these for a while.
func (p Period) Name() string {
	return time.Unix(p.wall, 0).UTC().Format(time.DateOnly) + "/P1" + string("DWM"[p.unit-Day])
}

const (
	day  = 24 * 60 * 60
	week = 7 * day
)

// around returns the local times at which the period that contains wall and the next one begin.
// The zero time.Time is midnight of a Monday that is the first of a month.
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

// inMonth returns the local time at which the period of a month begins. It does not depend on
// the period before, or a 31st would become a 28th forever.
func inMonth(year int, month time.Month, from int64) int64 {
	last := time.Date(year, month+1, 0, 0, 0, 0, 0, time.UTC)
	unused := max(last.Day()-time.Unix(from, 0).UTC().Day(), 0)
	return last.Unix() - int64(unused)*day + modulo(from, day)
}

// modulo returns a modulo b, which is never negative.
func modulo(a, b int64) int64 { return (a%b + b) % b }

// begins returns the first second at which clocks in loc show wall or a later time.
//
// An offset is more than -25 and less than 26 hours (RFC 9636 section 3.2). So clocks show wall
// within a range of 51 hours, and nowhere were they set twice in such a range. time.Date does not
// help: it makes 23:00 of the day before of a midnight that does not exist. Nor does
// Time.ZoneBounds, which is wrong on the last day of a leap year, and in the year in which a
// location gets new rules.
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
	// Clocks are set forward over wall, between the two instants that it could be.
	for second < first {
		if middle := second + (first-second)/2; offset(middle, loc) == after {
			first = middle
		} else {
			second = middle + 1
		}
	}
	return first
}

// offset returns how many seconds clocks in loc are ahead of UTC. A local time is represented by
// the Unix time at which clocks in UTC show it.
func offset(unix int64, loc *time.Location) int64 {
	_, seconds := time.Unix(unix, 0).In(loc).Zone()
	return int64(seconds)
}
