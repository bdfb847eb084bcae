package main

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
)

// mark is what a check has found about the answers of a library in a row.
type mark struct {
	Row, Lib string
	Text     string
	Wrong    bool // not only less than it could be: it does not do the work of the row
}

func readMarks(file string) (marks, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var all marks
	return all, json.Unmarshal(content, &all)
}

type marks []mark

// of returns what is known of a library in a row. A check is of all modes of a row,
// which the benchmark has one by one.
func (all marks) of(row, lib string) (found marks) {
	for _, m := range all {
		if m.Lib == lib && (m.Row == row || strings.HasPrefix(row, m.Row+"/")) {
			found = append(found, m)
		}
	}
	return found
}

func (all marks) wrong() bool {
	return slices.ContainsFunc(all, func(m mark) bool { return m.Wrong })
}
