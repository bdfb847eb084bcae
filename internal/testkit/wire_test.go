package testkit_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit/internal/testkit"
)

func TestBytesByHand(t *testing.T) {
	t.Parallel()
	for _, wire := range testkit.PlainWires {
		t.Run(wire, func(t *testing.T) {
			t.Parallel()
			s := testkit.Serve(t, wire, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = fmt.Fprint(w, r.Method, " ", r.URL.Path, " ", r.TLS != nil)
			}))
			c := testkit.Dial(t, s)
			answers := bufio.NewReader(c)
			for _, path := range []string{"/a", "/b"} { // one connection
				_, err := io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n")
				require.NoError(t, err)
				res, body := testkit.Answer(t, answers)
				assert.Equal(t, 200, res.StatusCode)
				assert.Equal(t, fmt.Sprint("GET ", path, " ", wire == testkit.HTTP1TLS), body)
			}
			res, body := testkit.Do(t, s, "PUT", "/c", "body", "X-Name", "1", "X-Name", "2")
			assert.Equal(t, 1, res.ProtoMajor)
			assert.Equal(t, fmt.Sprint("PUT /c ", wire == testkit.HTTP1TLS), string(body))
		})
	}
}

func TestBuffer(t *testing.T) {
	t.Parallel()
	var b testkit.Buffer
	done := make(chan bool)
	go func() {
		_, _ = io.WriteString(&b, "one")
		close(done)
	}()
	_ = b.String() // what the race detector would see
	<-done
	assert.Equal(t, "one", b.String())
	b.Reset()
	assert.Empty(t, b.String())
}
