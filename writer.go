package admit

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
)

// responseWriter knows whether a response has begun, and can put the envelope in
// the place of an error that somebody else writes. It is used by one goroutine at
// a time, like the http.ResponseWriter inside it.
type responseWriter struct {
	http.ResponseWriter
	status   int  // of the response that has begun; 0: none has
	hijacked bool // the connection is somebody else's now
	replaced bool // what the handler writes is thrown away

	state        *state        // that this is the writer of; nil: of none
	interception *interception // of Intercept; nil: nothing is replaced
}

// track returns a writer that knows whether the response has begun: w if it is one,
// else a new one around it. One further outside does not do: what stands between may
// hold back what the handler has written.
func track(w http.ResponseWriter) http.ResponseWriter {
	if _, ok := w.(interface{ tracked() *responseWriter }); ok {
		return w
	}
	return (&responseWriter{ResponseWriter: w}).expose()
}

// tracker finds the responseWriter in w, through the wrappers of others.
func tracker(w http.ResponseWriter) *responseWriter {
	for {
		switch t := w.(type) {
		case interface{ tracked() *responseWriter }:
			return t.tracked()
		case interface{ Unwrap() http.ResponseWriter }:
			w = t.Unwrap()
		default:
			return nil
		}
	}
}

func (w *responseWriter) tracked() *responseWriter { return w }

// expose adds the optional methods that the writer inside has, and no others:
// handlers look for them with type assertions. Each of these types is one pointer,
// which an interface holds without an allocation.
func (w *responseWriter) expose() http.ResponseWriter { return w.exposeAs(w.ResponseWriter) }

func (w *responseWriter) exposeAs(like http.ResponseWriter) http.ResponseWriter {
	_, flushes := like.(http.Flusher)
	_, hijacks := like.(http.Hijacker)
	switch {
	case flushes && hijacks:
		return flushHijackWriter{w}
	case flushes:
		return flushWriter{w}
	case hijacks:
		return hijackWriter{w}
	default:
		return w
	}
}

type (
	flushWriter       struct{ *responseWriter }
	hijackWriter      struct{ *responseWriter }
	flushHijackWriter struct{ *responseWriter }
)

func (w flushWriter) Flush()       { _ = w.FlushError() }
func (w flushHijackWriter) Flush() { _ = w.FlushError() }

func (w hijackWriter) Hijack() (net.Conn, *bufio.ReadWriter, error)      { return w.hijack() }
func (w flushHijackWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) { return w.hijack() }

// Unwrap lets http.ResponseController reach deadlines and full duplex.
func (w *responseWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *responseWriter) WriteHeader(status int) {
	if w.replaced {
		return
	}
	if w.status == 0 && w.interception.takes(w, status) {
		w.status, w.replaced = status, true
		w.interception.write(w)
		return
	}
	w.begin(status)
	w.ResponseWriter.WriteHeader(status)
}

// begin notes that the response begins, which a 1xx other than 101 does not do.
func (w *responseWriter) begin(status int) {
	if w.status != 0 || status != http.StatusSwitchingProtocols && (status < 200 || status > 999) {
		return
	}
	w.status = status
	if w.state != nil {
		w.state.begins(status)
	}
}

func (w *responseWriter) Write(p []byte) (int, error) {
	if w.replaced {
		w.interception.log(w.status, string(p[:min(len(p), maxReplacedText)]))
		return len(p), nil
	}
	w.begin(http.StatusOK)
	return w.ResponseWriter.Write(p)
}

func (w *responseWriter) WriteString(s string) (int, error) {
	if w.replaced {
		w.interception.log(w.status, s[:min(len(s), maxReplacedText)])
		return len(s), nil
	}
	w.begin(http.StatusOK)
	return io.WriteString(w.ResponseWriter, s)
}

// ReadFrom lets the server send files without copying them. What comes first begins the
// response, as soon as it is there: a source that fails before leaves it unbegun, so that
// the error can still be written.
func (w *responseWriter) ReadFrom(src io.Reader) (int64, error) {
	switch {
	case w.replaced:
		return io.Copy(io.Discard, src)
	case w.status != 0:
		return io.Copy(w.ResponseWriter, src)
	}
	buf := buffers.Get().(*[]byte)
	defer putBuffer(buf)
	n, err := readSome(src, (*buf)[:cap(*buf)])
	var written int64
	if n > 0 {
		first, failed := w.Write((*buf)[:n])
		if written = int64(first); failed != nil {
			return written, failed
		}
	}
	if err == io.EOF {
		return written, nil
	}
	if err != nil {
		return written, err
	}
	rest, err := io.Copy(w.ResponseWriter, src)
	return written + rest, err
}

// readSome reads until there is something.
func readSome(src io.Reader, p []byte) (n int, err error) {
	for n == 0 && err == nil {
		n, err = src.Read(p)
	}
	return n, err
}

// FlushError is what http.ResponseController calls.
func (w *responseWriter) FlushError() error {
	if w.replaced {
		return nil
	}
	if w.status == 0 && w.state != nil {
		w.state.begins(http.StatusOK)
	}
	err := http.NewResponseController(w.ResponseWriter).Flush()
	if err == nil && w.status == 0 {
		w.status = http.StatusOK
	}
	return err
}

func (w *responseWriter) hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil {
		w.hijacked = true
		if w.state != nil && w.state.body != nil {
			w.state.body.detach() // nothing of ours touches the connection any more
		}
	}
	return conn, buffered, err
}

// addVary merges names into Vary (RFC 9110 §12.5.5): a name that is there is not
// repeated, and * says it all.
func addVary(h http.Header, names ...string) {
	for _, name := range names {
		if !listed(h["Vary"], name) && !listed(h["Vary"], "*") {
			h["Vary"] = append(slices.Clip(h["Vary"]), name) // others may have set what they share
		}
	}
}

// listed reports whether a comma-separated header has name, whatever its case.
func listed(lines []string, name string) bool {
	for _, line := range lines {
		for item := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(item), name) {
				return true
			}
		}
	}
	return false
}
