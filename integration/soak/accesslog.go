package main

import (
	"fmt"
	"slices"
	"strings"
)

// accessLog holds the lines that the service writes, one for each request, against the answers
// that clients have seen whole. Either may come first. What no client has waited for has a line
// alone, so that the number of lines is held against the requests that the service counts.
type accessLog struct {
	lines int
	open  map[logged]int  // lines without their answers, less answers without their lines
	half  map[string]bool // ids of clients that have closed their half
}

// logged is what a line and an answer have in common.
type logged struct {
	id     string
	status int
}

func newAccessLog() accessLog {
	return accessLog{open: map[logged]int{}, half: map[string]bool{}}
}

func (l *accessLog) note(one logged, by int) {
	if l.open[one] += by; l.open[one] == 0 {
		delete(l.open, one)
	}
}

func (l *accessLog) line(id string, status int) {
	l.lines++
	l.note(logged{id, status}, 1)
}

// answer notes one that was seen. A server cannot tell a client that has closed its half of the
// connection from one that has left: half says that the line may have 499.
func (l *accessLog) answer(id string, status int, half bool) {
	l.note(logged{id, status}, -1)
	if half {
		l.half[id] = true
	}
}

// check returns an error unless each answer has its line, and each request one. It is for the
// end, when the whole log is read.
func (l *accessLog) check(requests uint64) error {
	var without []string
	for one, n := range l.open {
		if n < 0 && !(l.half[one.id] && l.open[logged{one.id, 499}] == -n) {
			without = append(without, fmt.Sprintf("%s with %d", one.id, one.status))
		}
	}
	slices.Sort(without)
	switch {
	case len(without) > 0:
		return fmt.Errorf("%d answers have no line of the access log with their status: %s", len(without), strings.Join(without[:min(len(without), maxShown)], ", "))
	case uint64(l.lines) != requests:
		return fmt.Errorf("the access log has %d lines, and the service has had %d requests", l.lines, requests)
	}
	return nil
}
