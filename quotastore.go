package admit

import (
	"context"
	"math"
	"time"
)

// QuotaStore keeps what accounts have used of their quotas, for all processes that share it.
// admittest.TestQuotaStore tests an implementation.
//
// A process takes a share of what is left ahead, spends it without asking, and reports later what
// it has used. So a store keeps a [QuotaCount] for each account, quota and period, and a
// [QuotaShare] for each process in a count; both begin as zero values. Settle loads them, calls
// [QuotaClaim.Settle] and saves them, for all claims or for none. Two calls must never work on
// one count at a time. Settle returns a balance for each claim, in the same order.
//
// In the same transaction, Settle adds what a claim adds to the use to a [UsageRecord] of the
// account, quota, period and current minute, by the clock of the store: to a record that has not
// been offered yet, or else to a new one with a new, unique ID.
//
// Offer returns at most so many records, of minutes that ended some time ago. It does not return
// a record again, to any caller, before some time has passed, and never after it was acknowledged.
// A record that has been offered never changes. Acknowledge deletes records; an unknown ID is not
// an error. A record that was not acknowledged within 35 days of its minute may be deleted too:
// billing systems do not accept it any more, and a service without an export must not fill its
// store.
//
// An error means an outage. Settle may have been carried out nevertheless: each claim says what
// has become of those before it, so that the next claim corrects the difference. All methods must
// be safe for concurrent use.
type QuotaStore interface {
	Settle(ctx context.Context, claims []QuotaClaim) ([]QuotaBalance, error)
	Offer(ctx context.Context, most int) ([]UsageRecord, error)
	Acknowledge(ctx context.Context, ids []string) error
}

// QuotaClaim is what a process tells a QuotaStore about the quota of an account in a period.
type QuotaClaim struct {
	Account string    // one or more bytes, of any value
	Quota   string    // Quota.Name
	Period  string    // such as 2026-01-31/P1M; different for each period of an account's quota
	Ends    time.Time // the end of the period; the store may delete it 35 days later

	Process string // the process that claims; empty for a claim that only looks
	Seq     int64  // grows with each claim of the Process; a claim whose Seq has not grown only looks
	Heard   int64  // the Seq of the last claim whose balance has arrived
	Fresh   bool   // no balance has arrived yet: Used is unknown, and the store keeps its own

	// Used is what the Process has used in this period in total. A Used below that of an earlier
	// claim changes nothing. In the first claim of a Process that the store knows of, Used has
	// been counted already: the store has deleted the share, but not the count.
	Used  int64
	Want  int64 // what to hold for later requests
	Floor int64 // the part of Want that is being spent now
	Limit int64 // Quota.Requests
}

// QuotaCount is what a QuotaStore keeps for the quota of an account in a period.
type QuotaCount struct {
	Used int64 // in total, as far as the processes have reported it
	Held int64 // by the processes, in addition
	Told int64 // the use at which the last notice was due
}

// QuotaShare is what a QuotaStore keeps for a process in a QuotaCount. It may be deleted when
// Held is 0 and nothing was claimed for a day.
type QuotaShare struct {
	Seq        int64 // of the last claim; 0 before the first
	Used, Held int64
	Notice     int   // QuotaBalance.Notice, as long as it may not have arrived
	NoticeSeq  int64 // the Seq of the claim to which Notice was the answer
}

// QuotaBalance is what a QuotaStore answers to a QuotaClaim.
type QuotaBalance struct {
	Used, Held     int64 // of the QuotaCount
	MyUsed, MyHeld int64 // of the QuotaShare

	// Notice is 80 or 100 if QuotasConfig.Notify is to be called, because so many percent are
	// used, and 0 if not. It is repeated until the process has Heard it.
	Notice int
}

// Settle carries out a claim. It returns the balance, and how much the claim adds to the use.
//
// A process never gets more than is left of Limit. It keeps what it holds as long as it wants,
// and may have spent it before it gets the balance. So when a Limit becomes smaller, requests
// that were admitted or taken ahead before may exceed it. For each percentage of a Limit, one
// process gets a notice, once. When 100 is reached, there is no notice of 80 any more.
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

// threshold returns the use at which so many percent of a limit are used.
func threshold(limit int64, percent int) int64 {
	return limit/100*int64(percent) + (limit%100*int64(percent)+99)/100
}

// plus adds two numbers that are not negative, without an overflow: a Cost may be any number.
func plus(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// UsageRecord is what an account has used of a quota in one minute, for a billing system: see
// [Quotas.Export].
type UsageRecord struct {
	ID       string    // unique, and the same each time that the record is sent
	Account  string    // see QuotasConfig.Account
	Quota    string    // Quota.Name
	Period   string    // such as 2026-01-31/P1M: the first day, and the length as in ISO 8601
	Minute   time.Time // the beginning of the minute, by the clock of the store
	Requests int64     // the cost of all requests
}
