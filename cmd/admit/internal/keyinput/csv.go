package keyinput

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

// csv reads a header row and the rows after it.
func (p *parser) csv(lines io.Reader) {
	in := csv.NewReader(lines)
	in.TrimLeadingSpace = true
	header, err := in.Read()
	if err != nil {
		p.csvFault(err)
		return
	}
	columns := p.columns(header)
	if len(p.faults) > 0 {
		return // the rows would have the same faults
	}
	for !p.full() {
		cells, err := in.Read()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			p.csvFault(err)
			if errors.Is(err, csv.ErrFieldCount) {
				continue
			}
			return
		}
		line, _ := in.FieldPos(0)
		before := len(p.faults)
		f := fields{meta: map[string]string{}}
		for i, set := range columns {
			if cell := strings.TrimSpace(cells[i]); cell != "" {
				if err := set(&f, cell); err != nil {
					p.fault(line, fmt.Errorf("column %q: %w", header[i], err))
				}
			}
		}
		if len(p.faults) == before {
			p.row(line, &f)
		}
	}
}

// csvFault records an error of encoding/csv, which has its own line number.
func (p *parser) csvFault(err error) {
	var long errLongLine
	var syntax *csv.ParseError
	switch {
	case errors.As(err, &long):
		p.fault(long.line, long)
	case errors.Is(err, csv.ErrFieldCount) && errors.As(err, &syntax):
		p.fault(syntax.Line, errors.New("the row does not have as many columns as the header"))
	case errors.As(err, &syntax):
		p.fault(syntax.StartLine, fmt.Errorf("not well-formed CSV, at line %d, column %d: %w", syntax.Line, syntax.Column, syntax.Err))
	default:
		p.fault(1, err)
	}
}

// setter sets a field from a cell that is not empty.
type setter func(f *fields, cell string) error

var columnsKnown = map[string]setter{
	"id":         text(func(f *fields) *string { return &f.id }),
	"token":      text(func(f *fields) *string { return &f.token }),
	"digest":     text(func(f *fields) *string { return &f.digest }),
	"owner":      text(func(f *fields) *string { return &f.owner }),
	"plan":       text(func(f *fields) *string { return &f.plan }),
	"scopes":     list(func(f *fields) *[]string { return &f.scopes }),
	"networks":   list(func(f *fields) *[]string { return &f.networks }),
	"not_before": moment(func(f *fields) *time.Time { return &f.notBefore }),
	"expires_at": moment(func(f *fields) *time.Time { return &f.expiresAt }),
	"revoked_at": moment(func(f *fields) *time.Time { return &f.revokedAt }),
	"limits": func(f *fields, cell string) (err error) {
		f.limits, err = ParseLimits(strings.Fields(cell))
		return err
	},
	"quotas": func(f *fields, cell string) (err error) {
		f.quotas, err = ParseQuotas(strings.Fields(cell))
		return err
	},
}

func text(of func(*fields) *string) setter {
	return func(f *fields, cell string) error {
		*of(f) = cell
		return nil
	}
}

func list(of func(*fields) *[]string) setter {
	return func(f *fields, cell string) error {
		*of(f) = strings.Fields(cell)
		return nil
	}
}

func moment(of func(*fields) *time.Time) setter {
	return func(f *fields, cell string) error {
		t, err := time.Parse(time.RFC3339, cell)
		if err != nil {
			return errors.New("not a time in RFC 3339, such as 2030-01-02T15:04:05Z")
		}
		*of(f) = t
		return nil
	}
}

// columns returns the setter of each column of the header.
func (p *parser) columns(header []string) []setter {
	var columns []setter
	seen := map[string]bool{}
	for i, name := range header {
		name = strings.TrimSpace(name)
		header[i] = name
		set, known := columnsKnown[name]
		if meta, ok := strings.CutPrefix(name, "meta."); ok && meta != "" {
			known = true
			set = func(f *fields, cell string) error {
				f.meta[meta] = cell
				return nil
			}
		}
		switch {
		case !utf8.ValidString(name):
			p.fault(1, errors.New("the text is not valid UTF-8"))
			return nil
		case !known:
			p.fault(1, fmt.Errorf("column %d of the header, %s, is unknown: use id, token or digest, owner, plan, scopes, limits, quotas, "+
				"networks, not_before, expires_at, revoked_at and meta.NAME, separated by commas", i+1, shown(name)))
		case seen[name]:
			p.fault(1, fmt.Errorf("column %d of the header, %s, is duplicated", i+1, shown(name)))
		}
		seen[name] = true
		columns = append(columns, set)
	}
	return columns
}
