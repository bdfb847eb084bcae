package admit

import (
	"context"
	"math"
	"time"
)

// QuotaStore keeps what accounts have used of their quotas, for all processes that share it.
//
// A process takes a share of what is left ahead, spends it without asking, and says later
// what it has used. So a store keeps a QuotaCount for each Account, Quota and Period, and a
// QuotaShare for each Process there, which begin as zero values. Settle loads both, calls
// QuotaClaim.Settle, and saves them, for all claims or none: two calls never work on one
// count at a time. It returns a balance for each claim, in order.
//
// What a claim adds to the use, Settle adds in the same transaction to a UsageRecord of the
// account, quota, period and current minute, by the clock of the store: to one that has not
// been offered yet, or else to a new one with an ID that nobody has had. Offer returns records
// of minutes that have been over for some time, at most so many; it does not return them
// again, also not to others, before they are acknowledged or a while has passed. A record that
// has been offered never changes. Acknowledge forgets them; an ID that is not known is no error.
// A record that nobody has acknowledged 35 days after its minute may be forgotten too: no
// billing system takes it any more, and a service that exports nothing must not fill its store.
//
// An error is an outage, and Settle may have been carried out nevertheless: a claim says what
// has become of the ones before, so that the next one mends it. All methods are called by any
// number of goroutines. admittest.TestQuotaStore tests a store.
type QuotaStore interface {
	Settle(ctx context.Context, claims []QuotaClaim) ([]QuotaBalance, error)
	Offer(ctx context.Context, most int) ([]UsageRecord, error)
	Acknowledge(ctx context.Context, ids []string) error
}

// QuotaClaim is what a process says to a QuotaStore of an account's quota in a period.
type QuotaClaim struct {
	Account string    // 1 or more of any bytes
	Quota   string    // Quota.Name
	Period  string    // such as 2026-01-31/P1M: of one account and quota, others have other names
	Ends    time.Time // of the period; the store may forget it 35 days later

	Process string // who claims; empty: nobody, who only looks
	Seq     int64  // higher with each claim of the Process; one that is not is too late, and looks
	Heard   int64  // the Seq of the last claim whose balance has arrived
	Fresh   bool   // no balance has arrived yet: Used is not known, and stays what the store has

	// Used is what the Process has used in this period, in all; one below that of an earlier
	// claim changes nothing. In the first claim that a store knows of it is taken for counted:
	// the store has forgotten the share then, and not the use.
	Used  int64
	Want  int64 // to hold, for what comes
	Floor int64 // of Want, what is being spent now
	Limit int64 // Quota.Requests
}

// QuotaCount is what a QuotaStore keeps of an account's quota in a period.
type QuotaCount struct {
	Used int64 // in all, as far as the processes have said it
	Held int64 // by the processes, beyond that
	Told int64 // the use with which somebody has been told last
}

// QuotaShare is what a QuotaStore keeps of a process in a QuotaCount. It may be forgotten when
// Held is 0 and nothing was claimed for a day.
type QuotaShare struct {
	Seq        int64 // of the last claim; 0: there was none
	Used, Held int64
	Notice     int   // QuotaBalance.Notice, as long as it may not have arrived
	NoticeSeq  int64 // the Seq of the claim that it was the answer to
}

// QuotaBalance is what a QuotaStore answers to a QuotaClaim.
type QuotaBalance struct {
	Used, Held     int64 // of the QuotaCount
	MyUsed, MyHeld int64 // of the QuotaShare
	Notice         int   // 80 or 100: somebody is to be told that so many percent are used; 0: nobody. Again until it is Heard
}

// Settle carries out a claim. It returns how much the claim adds to the use.
//
// A process never gets more than is left of Limit. It keeps what it holds for as long as it wants
// to, and may have spent it by the time it hears: a Limit which becomes smaller is exceeded by
// what had been let in and taken ahead before.
// Of each percentage of a Limit one process is told, once; when 100 is reached, nobody is told
// of 80 any more.
func (c QuotaClaim) Settle(count *QuotaCount, share *QuotaShare) (balance QuotaBalance, added int64) {
	if c.Process != "" && c.Seq > share.Seq {
		added = c.settle(count, share)
	}
	return QuotaBalance{Used: count.Used, Held: count.Held, MyUsed: share.Used, MyHeld: share.Held, Notice: share.Notice}, added
}

func (c QuotaClaim) settle(count *QuotaCount, share *QuotaShare) (added int64) {
	switch {
	case c.Fresh:
	case share.Seq == 0:
		share.Used = max(c.Used, 0)
	default:
		added = max(c.Used, share.Used) - share.Used
	}
	share.Seq = c.Seq
	share.Used = plus(share.Used, added)
	count.Used = plus(count.Used, added)

	others := max(count.Held-share.Held, 0)
	free := c.Limit - min(plus(count.Used, others), math.MaxInt64/2)
	keeps := max(share.Held-added, 0)
	share.Held = max(min(c.Want, max(free, keeps)), c.Floor, 0)
	count.Held = plus(others, share.Held)

	if share.Notice != 0 && c.Heard >= share.NoticeSeq {
		share.Notice = 0
	}
	for _, percent := range []int{100, 80} {
		if at := threshold(c.Limit, percent); count.Used >= at {
			if at > count.Told {
				count.Told, share.Notice, share.NoticeSeq = at, percent, c.Seq
			}
			break
		}
	}
	return added
}

// threshold is the use at which so many percent of a limit are used.
func threshold(limit int64, percent int) int64 {
	return limit/100*int64(percent) + (limit%100*int64(percent)+99)/100
}

// plus adds what is not negative. Cost is the service's own, and so large as it likes.
func plus(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// UsageRecord is what an account has used of a quota in a minute, for a billing system: see
// Quotas.Export.
type UsageRecord struct {
	ID       string    // the same whenever the record is sent
	Account  string    // see QuotasConfig.Account
	Quota    string    // Quota.Name
	Period   string    // such as 2026-01-31/P1M: its first day, and its length as in ISO 8601
	Minute   time.Time // its beginning, by the clock of the store
	Requests int64     // what they cost, in all
}
