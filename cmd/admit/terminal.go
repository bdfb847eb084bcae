package main

import (
	"errors"
	"io"
	"regexp"
	"strings"
	"syscall"

	"github.com/admit-go/admit/cmd/admit/internal/keyinput"
)

// clean replaces the characters with which a text from a store, a file or an argument could
// control a terminal, or look like a line of the command itself.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if keyinput.Unprintable(r) {
			return '?'
		}
		return r
	}, s)
}

// cleaner writes texts without the characters that control a terminal, except for line breaks
// and tabs. Each Write is a text of its own. It wraps standard error, which also gets messages
// of libraries.
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

// errGone says that nothing reads standard output any more.
var errGone = errors.New("nobody reads the output")

// outlet marks the error of a reader that is gone with errGone.
type outlet struct{ w io.Writer }

func (o outlet) Write(b []byte) (int, error) {
	n, err := o.w.Write(b)
	if errors.Is(err, syscall.EPIPE) {
		err = errors.Join(errGone, err)
	}
	return n, err
}

// unlessGone drops errGone, for output that can be printed again: a reader that has seen
// enough, such as head, is not a failure.
func unlessGone(err error) error {
	if errors.Is(err, errGone) {
		return nil
	}
	return err
}

var lineBreak = regexp.MustCompile(`[\r\n]+\t*`)

// messages returns one line for each error that err joins. A line break inside an error comes
// from a driver or a name, and is replaced.
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

// bare returns a message without the names of packages at its beginning.
func bare(message string) string {
	for {
		rest := strings.TrimPrefix(strings.TrimPrefix(strings.TrimPrefix(message, "admit: "), "sqlkeys: "), "sqlquota: ")
		if rest == message {
			return message
		}
		message = rest
	}
}
