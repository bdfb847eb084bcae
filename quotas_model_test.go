package admit_test

import (
	"fmt"
	"math/big"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
)

// civil is a model of periods that begin at midnight, by the dates on calendars alone.
type civil struct {
	every  admit.Period
	anchor int // day of the month, or of the week
	loc    *time.Location
}

func (c civil) period(t time.Time) string {
	y, m, d := t.In(c.loc).Date()
	date := time.Date(y, m, d, 12, 0, 0, 0, time.UTC)
	switch c.every {
	case admit.Week:
		for int(date.Weekday()) != c.anchor%7 {
			date = date.AddDate(0, 0, -1)
		}
	case admit.Month:
		last := time.Date(y, m+1, 0, 12, 0, 0, 0, time.UTC).Day()
		if d < min(c.anchor, last) {
			last = time.Date(y, m, 0, 12, 0, 0, 0, time.UTC).Day()
			date = time.Date(y, m-1, min(c.anchor, last), 12, 0, 0, 0, time.UTC)
		} else {
			date = time.Date(y, m, min(c.anchor, last), 12, 0, 0, 0, time.UTC)
		}
	}
	return fmt.Sprint(c.every, date.Format(time.DateOnly))
}

var resetIn = regexp.MustCompile(`;r=(\d+);t=(\d+)`)

// Whoever comes when, for forty years, from whatever billing day and wherever: what is let in is
// what a model with big integers lets in, and what is said of the reset is when it comes.
func TestQuotasAgainstModel(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	cases := 0
	places := []string{"UTC", "Europe/Berlin", "America/Sao_Paulo", "Australia/Lord_Howe", "Pacific/Apia", "Africa/Cairo", "America/Scoresbysund"}
	if raceDetector { // which finds nothing in one goroutine
		places = places[:2]
	}
	for _, place := range places {
		loc, err := time.LoadLocation(place)
		require.NoError(t, err)
		for _, every := range []admit.Period{admit.Day, admit.Week, admit.Month} {
			synctest.Test(t, func(t *testing.T) { cases += fortyYears(t, rnd, every, loc) })
		}
	}
	t.Logf("%d requests", cases)
}

func fortyYears(t *testing.T, rnd *rand.Rand, every admit.Period, loc *time.Location) (cases int) {
	c := civil{every: every, loc: loc, anchor: 1 + rnd.IntN(31)}
	if every == admit.Month && rnd.IntN(2) == 0 {
		c.anchor = 28 + rnd.IntN(4)
	}
	anchor := time.Date(2027, 3, 0, 0, 0, 0, 0, loc)
	for every == admit.Week && int(anchor.Weekday()) != c.anchor%7 || every == admit.Month && anchor.Day() != c.anchor {
		anchor = anchor.AddDate(0, 0, 1)
	}
	limit := 1 + rnd.Int64N(200)
	cost := 1
	q, err := admit.NewQuotas(admit.QuotasConfig{
		Plans:    mustPlans(t, admit.Plan{Name: "free", Quotas: []admit.Quota{{Requests: limit, Every: every}}}),
		Store:    admit.NewMemoryQuotaStore(),
		Anchor:   func(*admit.Key) time.Time { return anchor },
		Location: loc,
		Cost:     func(*http.Request) int { return cost },
	})
	require.NoError(t, err)
	h := withQuotaKey(q.Wrap(ok))
	used := map[string]*big.Int{}
	pauses := []time.Duration{time.Second, time.Hour, 30 * time.Hour, 40 * 24 * time.Hour}
	for end := time.Now().AddDate(40, 0, 0); time.Now().Before(end); cases++ {
		now := time.Now()
		period := c.period(now)
		if used[period] == nil {
			used[period] = new(big.Int)
		}
		cost = 1 + rnd.IntN(int(limit)/4+1)
		after := new(big.Int).Add(used[period], big.NewInt(int64(cost)))
		admitted := after.Cmp(big.NewInt(limit)) <= 0
		if admitted {
			used[period] = after
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, get("/"))
		require.Equal(t, admitted, w.Code == http.StatusOK, "%v in %v of %d, %v used, cost %d", now, period, limit, used[period], cost)

		said := resetIn.FindStringSubmatch(w.Header().Get("RateLimit"))
		left, _ := strconv.ParseInt(said[1], 10, 64)
		seconds, _ := strconv.Atoi(said[2])
		require.Equal(t, limit-used[period].Int64(), left)
		reset := now.Add(time.Duration(seconds) * time.Second)
		require.NotEqual(t, period, c.period(reset), "%v: the period is said to end at %v", now, reset)
		require.Equal(t, period, c.period(reset.Add(-time.Second-time.Nanosecond)), "%v: the period is said to end at %v", now, reset)
		switch rnd.IntN(4) {
		case 0: // to an instant beside the reset
			time.Sleep(time.Until(reset) + time.Duration(rnd.IntN(3)-1)*time.Second/2)
		default:
			time.Sleep(time.Duration(rnd.Int64N(int64(pauses[rnd.IntN(len(pauses))]))))
		}
	}
	return cases
}
