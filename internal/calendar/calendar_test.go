package calendar_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit/internal/calendar"
)

func instant(t testing.TB, s string) time.Time {
	if s == "" {
		return time.Time{}
	}
	at, err := time.Parse(time.RFC3339Nano, s)
	require.NoError(t, err)
	return at
}

func zone(t testing.TB, name string) *time.Location {
	loc, err := time.LoadLocation(name)
	require.NoError(t, err)
	return loc
}

func TestIn(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		what, zone, now string
		unit            calendar.Unit
		anchor          string
		start, end      string
		name            string
	}{
		{"a day", "UTC", "2026-02-28T23:59:59.999999999Z", calendar.Day, "", "2026-02-28T00:00:00Z", "2026-03-01T00:00:00Z", "2026-02-28/P1D"},
		{"the end is of the next", "UTC", "2026-03-01T00:00:00Z", calendar.Day, "", "2026-03-01T00:00:00Z", "2026-03-02T00:00:00Z", "2026-03-01/P1D"},
		{"a week of two years", "UTC", "2026-01-01T12:00:00Z", calendar.Week, "", "2025-12-29T00:00:00Z", "2026-01-05T00:00:00Z", "2025-12-29/P1W"},
		{"a month", "UTC", "2026-12-31T12:00:00Z", calendar.Month, "", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z", "2026-12-01/P1M"},
		{"now in another zone", "UTC", "2026-03-01T00:30:00+01:00", calendar.Month, "", "2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z", "2026-02-01/P1M"},
		{"no anchor is not one in year 1, with its mean time", "Europe/Berlin", "2026-06-10T12:00:00Z", calendar.Day, "", "2026-06-09T22:00:00Z", "2026-06-10T22:00:00Z", "2026-06-10/P1D"},

		{"a day of the week and its time", "UTC", "2026-01-01T08:29:59Z", calendar.Week, "2026-05-07T08:30:00Z", "2025-12-25T08:30:00Z", "2026-01-01T08:30:00Z", "2025-12-25/P1W"},
		{"whole seconds", "UTC", "2026-01-15T10:00:00.5Z", calendar.Month, "2025-06-15T10:00:00.75Z", "2026-01-15T10:00:00Z", "2026-02-15T10:00:00Z", "2026-01-15/P1M"},
		{"a 31st, in the month before", "UTC", "2026-02-27T23:59:59Z", calendar.Month, "2026-01-31T00:00:00Z", "2026-01-31T00:00:00Z", "2026-02-28T00:00:00Z", "2026-01-31/P1M"},
		{"a 31st, in February", "UTC", "2026-02-28T00:00:00Z", calendar.Month, "2026-01-31T00:00:00Z", "2026-02-28T00:00:00Z", "2026-03-31T00:00:00Z", "2026-02-28/P1M"},
		{"a 31st, after February", "UTC", "2026-03-31T00:00:00Z", calendar.Month, "2026-01-31T00:00:00Z", "2026-03-31T00:00:00Z", "2026-04-30T00:00:00Z", "2026-03-31/P1M"},
		{"a 31st, in a leap year", "UTC", "2028-03-01T00:00:00Z", calendar.Month, "2026-01-31T00:00:00Z", "2028-02-29T00:00:00Z", "2028-03-31T00:00:00Z", "2028-02-29/P1M"},
		{"29 February", "UTC", "2026-03-01T00:00:00Z", calendar.Month, "2024-02-29T12:00:00Z", "2026-02-28T12:00:00Z", "2026-03-29T12:00:00Z", "2026-02-28/P1M"},
		{"29 February, no leap year", "UTC", "2100-03-01T00:00:00Z", calendar.Month, "2024-02-29T12:00:00Z", "2100-02-28T12:00:00Z", "2100-03-29T12:00:00Z", "2100-02-28/P1M"},
		{"an anchor in the future", "UTC", "2026-02-10T00:00:00Z", calendar.Month, "2030-05-31T06:00:00Z", "2026-01-31T06:00:00Z", "2026-02-28T06:00:00Z", "2026-01-31/P1M"},
		{"an anchor of long ago", "UTC", "2026-02-10T00:00:00Z", calendar.Month, "0002-05-31T06:00:00Z", "2026-01-31T06:00:00Z", "2026-02-28T06:00:00Z", "2026-01-31/P1M"},
		{"an anchor in another zone has another date", "Europe/Berlin", "2026-06-10T12:00:00Z", calendar.Month, "2026-01-31T23:30:00-08:00", "2026-06-01T06:30:00Z", "2026-07-01T06:30:00Z", "2026-06-01/P1M"},

		{"23 hours", "Europe/Berlin", "2026-03-29T12:00:00Z", calendar.Day, "", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z", "2026-03-29/P1D"},
		{"25 hours", "Europe/Berlin", "2026-10-25T12:00:00Z", calendar.Day, "", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z", "2026-10-25/P1D"},
		{"02:30 that does not exist is 03:00", "Europe/Berlin", "2026-03-29T01:00:00Z", calendar.Day, "2026-01-01T02:30:00+01:00", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z", "2026-03-29/P1D"},
		{"02:30 twice is the first", "Europe/Berlin", "2026-10-25T01:10:00Z", calendar.Day, "2026-01-01T02:30:00+01:00", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z", "2026-10-25/P1D"},
		{"the second of both as the anchor", "Europe/Berlin", "2026-10-25T01:30:00Z", calendar.Month, "2026-10-25T01:30:00Z", "2026-10-25T00:30:00Z", "2026-11-25T01:30:00Z", "2026-10-25/P1M"},
		{"half an hour", "Australia/Lord_Howe", "2026-04-04T15:10:00Z", calendar.Day, "2026-01-01T01:45:00+11:00", "2026-04-04T14:45:00Z", "2026-04-05T15:15:00Z", "2026-04-05/P1D"},
		{"a midnight that does not exist", "America/Sao_Paulo", "2018-11-04T03:00:00Z", calendar.Day, "", "2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z", "2018-11-04/P1D"},
		{"before such a midnight", "America/Sao_Paulo", "2018-11-04T02:59:59Z", calendar.Day, "", "2018-11-03T03:00:00Z", "2018-11-04T03:00:00Z", "2018-11-03/P1D"},
		{"set back at midnight, before the date changes", "America/Sao_Paulo", "2018-02-18T02:30:00Z", calendar.Day, "", "2018-02-17T02:00:00Z", "2018-02-18T03:00:00Z", "2018-02-17/P1D"},
		{"a midnight that exists twice", "America/Havana", "2018-11-04T05:00:00Z", calendar.Day, "", "2018-11-04T04:00:00Z", "2018-11-05T05:00:00Z", "2018-11-04/P1D"},
		{"set back to the date before, which is over", "America/St_Johns", "2010-11-07T02:45:00Z", calendar.Day, "", "2010-11-07T02:30:00Z", "2010-11-08T03:30:00Z", "2010-11-07/P1D"},
		{"before a date that is left out", "Pacific/Apia", "2011-12-30T09:59:59Z", calendar.Day, "", "2011-12-29T10:00:00Z", "2011-12-30T10:00:00Z", "2011-12-29/P1D"},
		{"after a date that is left out", "Pacific/Apia", "2011-12-30T10:00:00Z", calendar.Day, "", "2011-12-30T10:00:00Z", "2011-12-31T10:00:00Z", "2011-12-31/P1D"},
		{"a date that is left out as the billing day", "Pacific/Apia", "2012-01-10T00:00:00Z", calendar.Month, "2011-10-30T12:00:00-10:00", "2011-12-30T10:00:00Z", "2012-01-29T22:00:00Z", "2011-12-30/P1M"},
		{"a date that comes twice", "America/Sitka", "1867-10-19T12:00:00Z", calendar.Day, "", "1867-10-18T09:01:13Z", "1867-10-20T09:01:13Z", "1867-10-19/P1D"},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			now := instant(t, c.now)
			p := calendar.In(now, c.unit, instant(t, c.anchor), zone(t, c.zone))
			assert.Equal(t, instant(t, c.start).UTC(), p.Start)
			assert.Equal(t, instant(t, c.end).UTC(), p.End)
			assert.Equal(t, c.name, p.Name())
			assert.True(t, p.Contains(now))
			assert.True(t, p.Contains(p.Start))
			assert.False(t, p.Contains(p.Start.Add(-1)))
			assert.False(t, p.Contains(p.End))
		})
	}
}

func TestPeriodsAreEqual(t *testing.T) {
	t.Parallel()
	now := instant(t, "2026-06-10T12:00:00Z")
	first := calendar.In(now, calendar.Month, time.Time{}, zone(t, "Europe/Berlin"))
	other := calendar.In(first.End.Add(-1).In(time.FixedZone("", 3600)), calendar.Month, time.Time{}.In(zone(t, "Asia/Tokyo")), zone(t, "Europe/Berlin"))
	assert.True(t, first == other, "%v and %v", first, other)
	assert.False(t, first == calendar.In(first.End, calendar.Month, time.Time{}, zone(t, "Europe/Berlin")))
	assert.False(t, calendar.Period{}.Contains(now))
	assert.False(t, calendar.Period{}.Contains(time.Time{}))
}

// Replicas of two releases, one of which has moved the service to another zone and the
// billing day by two hours, count on under one name.
func TestNameStays(t *testing.T) {
	t.Parallel()
	now, anchor := instant(t, "2026-06-10T12:00:00Z"), instant(t, "2026-01-31T12:00:00Z")
	before := calendar.In(now, calendar.Month, anchor, time.UTC)
	after := calendar.In(now, calendar.Month, anchor.Add(2*time.Hour), zone(t, "Europe/Berlin"))
	assert.NotEqual(t, before.Start, after.Start)
	assert.Equal(t, "2026-05-31/P1M", before.Name())
	assert.Equal(t, before.Name(), after.Name())
}

func TestUnitsAreThree(t *testing.T) {
	t.Parallel()
	for _, unit := range []calendar.Unit{-1, 0, calendar.Month + 1} {
		assert.Panics(t, func() { calendar.In(time.Now(), unit, time.Time{}, time.UTC) })
	}
}

// Nobody's clock is at these ends of time, but a service whose clock is should go on.
func TestEndsOfTime(t *testing.T) {
	t.Parallel()
	for _, now := range []time.Time{{}, time.Unix(0, 0), instant(t, "9999-12-31T23:59:59Z"), time.Unix(1<<55, 0), time.Unix(-1<<55, 0)} {
		for _, anchor := range []time.Time{{}, time.Unix(1<<60, 0), time.Unix(-1<<60, 0)} {
			for _, unit := range []calendar.Unit{calendar.Day, calendar.Week, calendar.Month} {
				p := calendar.In(now, unit, anchor, zone(t, "America/New_York"))
				assert.True(t, p.Contains(now), "%v, unit %d, anchor %v: %v to %v", now, unit, anchor, p.Start, p.End)
			}
		}
	}
}

var sink calendar.Period

func TestAllocatesNothing(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector allocates")
	}
	loc, now := zone(t, "America/Sao_Paulo"), instant(t, "2018-11-04T03:00:00Z")
	assert.Zero(t, testing.AllocsPerRun(200, func() { sink = calendar.In(now, calendar.Month, now, loc) }))
}

func BenchmarkIn(b *testing.B) {
	for _, c := range []struct{ what, zone, now string }{
		{"UTC", "UTC", "2026-11-10T12:00:00Z"},
		{"Berlin", "Europe/Berlin", "2026-11-10T12:00:00Z"},
		{"Berlin, when clocks are set", "Europe/Berlin", "2026-10-25T12:00:00Z"},
		{"Berlin, after what tables hold", "Europe/Berlin", "2060-11-10T12:00:00Z"},
		{"no midnight", "America/Sao_Paulo", "2018-11-04T12:00:00Z"},
	} {
		loc, now := zone(b, c.zone), instant(b, c.now)
		for unit, name := range map[calendar.Unit]string{calendar.Day: "day", calendar.Month: "month"} {
			b.Run(c.what+"/"+name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					sink = calendar.In(now, unit, time.Time{}, loc)
				}
			})
		}
	}
	b.Run("kept", func(b *testing.B) {
		now := instant(b, "2026-11-10T12:00:00Z")
		p := calendar.In(now, calendar.Month, time.Time{}, time.UTC)
		for b.Loop() {
			if !p.Contains(now) {
				b.Fatal()
			}
		}
	})
}
