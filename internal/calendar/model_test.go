package calendar_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"
	_ "time/tzdata" // the machine may have none

	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit/internal/calendar"
)

// The model divides the years from 1840 to 2200. All its arithmetic is its own: of package
// time it takes only what the offset of a zone is at an instant.
const (
	firstYear = 1840
	lastYear  = 2200
)

// zones have what is hard: midnights that do not exist, or exist twice, dates that were left
// out or came twice, changes of half an hour and of two, offsets of minutes and of seconds.
var zones = []string{
	"UTC", "Europe/Berlin", "America/New_York", "America/Sao_Paulo", "Asia/Beirut", "Africa/Cairo", "Pacific/Apia",
	"Asia/Kathmandu", "Antarctica/Troll", "Australia/Lord_Howe", "America/Havana", "America/St_Johns", "America/Sitka",
	"Africa/Casablanca", "Africa/Monrovia", "America/Metlakatla", "America/Nuuk", "Asia/Gaza", "Europe/Dublin", "Pacific/Kwajalein",
}

// date is a day, whose number is 0 for 1 January 1970.
type date struct {
	number           int64
	year, month, day int
	weekday          int // 0 is Monday
	last             bool
	text             string
}

func leap(year int) bool { return year%4 == 0 && year%100 != 0 || year%400 == 0 }

func days(year, month int) int {
	switch {
	case month == 2 && leap(year):
		return 29
	case month == 2:
		return 28
	case month == 4 || month == 6 || month == 9 || month == 11:
		return 30
	}
	return 31
}

// dates are all dates of the model, one after the other.
var dates = sync.OnceValue(func() (all []date) {
	d := date{year: firstYear, month: 1, day: 1, weekday: 3} // 1 January 1970 was a Thursday
	for year := firstYear; year < 1970; year++ {
		for month := 1; month <= 12; month++ {
			for range days(year, month) {
				d.number--
				d.weekday = (d.weekday + 6) % 7
			}
		}
	}
	for d.year <= lastYear {
		d.last = d.day == days(d.year, d.month)
		d.text = fmt.Sprintf("%04d-%02d-%02d", d.year, d.month, d.day)
		all = append(all, d)
		d.number++
		d.weekday = (d.weekday + 1) % 7
		switch {
		case !d.last:
			d.day++
		case d.month < 12:
			d.month, d.day = d.month+1, 1
		default:
			d.year, d.month, d.day = d.year+1, 1, 1
		}
	}
	return all
})

// place is a zone, and when its clocks were set, and to what.
type place struct {
	loc    *time.Location
	resets []reset
}

type reset struct{ at, offset int64 }

func (p *place) offset(at int64) int64 {
	_, seconds := time.Unix(at, 0).In(p.loc).Zone()
	return int64(seconds)
}

var (
	placesMu sync.Mutex
	places   = map[string]*place{}
)

// at looks once a day whether clocks have been set. The first reset is none.
func at(t testing.TB, zone string) *place {
	placesMu.Lock()
	defer placesMu.Unlock()
	if p := places[zone]; p != nil {
		return p
	}
	loc, err := time.LoadLocation(zone)
	require.NoError(t, err)
	p := &place{loc: loc}
	all := dates()
	start := all[0].number * 86400
	p.resets = []reset{{start, p.offset(start)}}
	for _, d := range all {
		now, before := d.number*86400, p.resets[len(p.resets)-1].offset
		after := p.offset(now + 86400)
		if before == after {
			continue
		}
		second := now + 1
		for step := int64(3600); step > 0; step /= 60 {
			for p.offset(second+step-1) == before {
				second += step
			}
		}
		require.Equal(t, after, p.offset(second))
		p.resets = append(p.resets, reset{second, after})
	}
	places[zone] = p
	return p
}

// period is what calendar.In should return.
type period struct {
	start, end   int64
	date, length string // are its name
}

// model is the periods of some dates in order. Those at the ends are cut off.
func (p *place) model(unit calendar.Unit, anchor int64, some []date) (all []period) {
	// What the clocks show at the anchor.
	show := anchor
	for _, r := range slices.Backward(p.resets) {
		if r.at <= anchor {
			show += r.offset
			break
		}
	}
	first := dates()[0].number
	from := dates()[(show-first*86400)/86400]
	timeOfDay := show - from.number*86400

	resets := p.resets
	for _, d := range some {
		length := "/P1D"
		switch unit {
		case calendar.Week:
			length = "/P1W"
			if d.weekday != from.weekday {
				continue
			}
		case calendar.Month:
			length = "/P1M"
			if d.day != from.day && !(d.last && d.day < from.day) {
				continue
			}
		}
		show := d.number*86400 + timeOfDay
		// The first instant at which clocks show that or more.
		for len(resets) > 1 && max(show-resets[0].offset, resets[0].at) >= resets[1].at {
			resets = resets[1:]
		}
		start := max(show-resets[0].offset, resets[0].at)
		if n := len(all); n > 0 {
			if all[n-1].start == start { // nothing is left of the one before
				all = all[:n-1]
			} else {
				all[n-1].end = start
			}
		}
		all = append(all, period{start: start, date: d.text, length: length})
	}
	return all[1 : len(all)-1]
}

// same asks for the period at some instants that want contains: both ends, as near as it
// gets, and one in the middle.
func same(t testing.TB, p *place, unit calendar.Unit, anchor time.Time, want period, middle ...int64) (cases int) {
	start, end := time.Unix(want.start, 0), time.Unix(want.end, 0)
	var got calendar.Period
	ask := func(now time.Time) {
		cases++
		got = calendar.In(now, unit, anchor, p.loc)
		if !got.Start.Equal(start) || !got.End.Equal(end) || !got.Contains(now) {
			t.Fatalf("at %v, unit %d, anchor %v, %v\nis      %v to %v\nwant    %v to %v, %s",
				now.UTC(), unit, anchor.UTC(), p.loc, got.Start, got.End, start.UTC(), end.UTC(), want.date+want.length)
		}
	}
	ask(start)
	for _, now := range middle {
		ask(time.Unix(now, 999_999_999))
	}
	ask(end.Add(-1))
	if name := got.Name(); name != want.date+want.length {
		t.Fatalf("%s%s, unit %d, anchor %v, %v: the name is %s", want.date, want.length, unit, anchor.UTC(), p.loc, name)
	}
	return cases
}

// TestIsTheModel goes through the periods of 360 years, with anchors of 40 years: at random,
// at the ends of a month, and when clocks are set in any year.
func TestIsTheModel(t *testing.T) {
	t.Parallel()
	oneIn := 20 // of the periods in which no clock is set
	anchors := map[calendar.Unit]int{calendar.Day: 1, calendar.Week: 2, calendar.Month: 6}
	if testing.Short() || raceDetector {
		oneIn = 200
		anchors = map[calendar.Unit]int{calendar.Day: 1, calendar.Month: 1}
	}
	var mu sync.Mutex
	cases := map[calendar.Unit]int{}
	t.Run("zones", func(t *testing.T) {
		for _, zone := range zones {
			t.Run(zone, func(t *testing.T) {
				t.Parallel()
				p, all := at(t, zone), dates()
				from := time.Date(1990, 1, 1, 0, 0, 0, 0, time.UTC).Unix()
				to := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC).Unix()
				random := func() int64 { return from + rand.Int64N(to-from) }
				kinds := []func() int64{
					random,
					func() int64 { // two seconds around midnight, after one of the last days of a month
						n := time.Unix(random(), 0).UTC()
						midnight := time.Date(n.Year(), n.Month()+1, 1-rand.IntN(4), 0, 0, 0, 0, time.UTC).Unix()
						return midnight - p.offset(midnight) + rand.Int64N(5) - 2
					},
					func() int64 { // two hours around a change
						if len(p.resets) == 1 {
							return random()
						}
						return p.resets[1+rand.IntN(len(p.resets)-1)].at + rand.Int64N(4*3600) - 2*3600
					},
				}
				for unit, n := range anchors {
					for i := range n * len(kinds) {
						anchor := kinds[i%len(kinds)]()
						n, resets := 0, p.resets
						for _, want := range p.model(unit, anchor, all) {
							for len(resets) > 0 && resets[0].at < want.start {
								resets = resets[1:]
							}
							set := len(resets) > 0 && resets[0].at <= want.end
							if set || rand.IntN(oneIn) == 0 {
								n += same(t, p, unit, time.Unix(anchor, rand.Int64N(1e9)), want, want.start+rand.Int64N(want.end-want.start))
							}
						}
						mu.Lock()
						cases[unit] += n
						mu.Unlock()
					}
				}
			})
		}
	})
	t.Logf("these agree: %d days, %d weeks, %d months", cases[calendar.Day], cases[calendar.Week], cases[calendar.Month])
}

// FuzzIn compares one period with the model.
func FuzzIn(f *testing.F) {
	f.Add(int64(1541300400), uint8(3), uint8(0), int64(0))           // the midnight that São Paulo left out
	f.Add(int64(1325239200), uint8(6), uint8(0), int64(1325239200))  // the date that Apia left out
	f.Add(int64(-3225223728), uint8(12), uint8(0), int64(951782400)) // Alaska changes sides
	f.Add(int64(1709251199), uint8(1), uint8(2), int64(1580428800))
	f.Fuzz(func(t *testing.T, now int64, zone, unit uint8, anchor int64) {
		p, all := at(t, zones[int(zone)%len(zones)]), dates()
		u := calendar.Unit(1 + unit%3)
		first, span := (all[0].number+70)*86400, int64(len(all)-140)*86400
		inside := func(n int64) int64 { return first + ((n-first)%span+span)%span }
		now, anchor = inside(now), inside(anchor)
		today := now/86400 - all[0].number
		for _, want := range p.model(u, anchor, all[max(today-70, 0):min(today+70, int64(len(all)))]) {
			if want.start <= now && now < want.end {
				same(t, p, u, time.Unix(anchor, 0), want, now)
				return
			}
		}
		t.Fatalf("the model has no period at %d", now)
	})
}
