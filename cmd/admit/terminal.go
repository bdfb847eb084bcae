package main

import (
	"errors"
	"io"
	"regexp"
	"strings"
	"syscall"

	"github.com/admit-go/admit/cmd/admit/internal/keyinput"
)

// clean keeps what is in a store, a file or an argument from moving the cursor of a
// terminal, and from looking like a line of the command's own.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if keyinput.Unprintable(r) {
			return '?'
		}
		return r
	}, s)
}

// cleaner passes on what a terminal may get, with its lines and tabs. Each Write is a text
// of its own. It stands before standard error, where messages of libraries end up.
type cleaner struct{ w io.Writer }

func (c cleaner) Write(b []byte) (int, error) {
	text := strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && keyinput.Unprintable(r) {
			return '?'
		}
		return r
	}, string(b))
	if _, err := io.WriteString(c.w, text); err != nil {
		return 0, err
	}
	return len(b), nil
}

// errGone is that nobody reads standard output any more.
var errGone = errors.New("nobody reads the output")

// outlet tells a reader that is gone from every other error.
type outlet struct{ w io.Writer }

func (o outlet) Write(b []byte) (int, error) {
	n, err := o.w.Write(b)
	if errors.Is(err, syscall.EPIPE) {
		err = errors.Join(errGone, err)
	}
	return n, err
}

// unlessGone is for output that can be had again: a reader that has seen enough, such as
// head, is no failure.
func unlessGone(err error) error {
	if errors.Is(err, errGone) {
		return nil
	}
	return err
}

var lineBreak = regexp.MustCompile(`[\r\n]+\t*`)

// messages returns what err says, a line for each error that it joins. A line break inside
// of one is that of a driver or of a name.
func messages(err error) []string {
	if e, ok := err.(usageError); ok {
		return messages(e.error)
	}
	if list, ok := err.(interface{ Unwrap() []error }); ok {
		if joined := errors.Join(list.Unwrap()...); joined != nil && joined.Error() == err.Error() {
			var all []string
			for _, e := range list.Unwrap() {
				all = append(all, messages(e)...)
			}
			return all
		}
	}
	return []string{lineBreak.ReplaceAllString(bare(err.Error()), " ")}
}

// bare returns a message without the names of the packages that it came through.
func bare(message string) string {
	for {
		rest := strings.TrimPrefix(strings.TrimPrefix(strings.TrimPrefix(message, "admit: "), "sqlkeys: "), "sqlquota: ")
		if rest == message {
			return message
		}
		message = rest
	}
}
